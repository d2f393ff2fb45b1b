"""Statistics of global attention against full maps, written out (VGGT4D)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyn3r.network import layers
from dyn3r.network.many_view.backbone import Readout
from dyn3r.network.many_view.gram_statistics import (
    OFFSETS,
    Statistic,
    compared_frames,
    gram_maps,
    readout_for,
    statistics_of,
)
from dyn3r.network.many_view.view_config import ManyViewConfig
from dyn3r.network.many_view.view_images import normalised
from dyn3r.network.model import prepare_model
from dyn3r.network.predict_views import predict_views

from .golden_many_view import TINY, golden_many_view

FRAMES, GRID = 9, (3, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (FRAMES, 42, 56, 3), dtype=np.uint8)


def slow_statistic(readout: Readout, statistic: Statistic, heads: int) -> np.ndarray:
    """The definition: every product of every pair of tokens, by layer and head."""
    stores = {"Q": readout.queries, "K": readout.keys}
    one, two = (stores[letter] for letter in statistic.pair)
    out = np.empty((FRAMES, GRID[0] * GRID[1]))
    for t in range(FRAMES):
        maps = []
        for offset in OFFSETS:
            s = t + offset
            if not 0 <= s < FRAMES:
                continue
            for layer in statistic.layers:
                a = one[layer][t].double().numpy().reshape(12, heads, -1)
                b = two[layer][s].double().numpy().reshape(12, heads, -1)
                maps += [a[:, h] @ b[:, h].T for h in range(heads)]
        products = np.mean(maps, axis=0)
        mean, spread = products.mean(axis=1), products.std(axis=1, ddof=1)
        out[t] = mean if statistic.kind == "mean" else spread
    return out.reshape(FRAMES, *GRID)


def read() -> Readout:
    network, readout = golden_many_view(), readout_for(TINY)
    network.features(normalised(IMAGES), "saddle_balanced", readout=readout)
    return readout


def test_statistics_equal_the_full_maps() -> None:
    readout = read()
    maps = gram_maps(readout, TINY, GRID)
    for statistic in statistics_of(TINY):
        slow = slow_statistic(readout, statistic, TINY.num_heads)
        fast = maps.statistics[statistic.name]
        assert np.abs(fast - slow).max() < 1e-4 * np.abs(slow).max(), statistic.name
    assert maps.tokens.shape == (FRAMES, 12, 64)
    assert (set(readout.queries), set(readout.keys)) == ({3, 5, 7, 9}, {3})


def test_queries_and_keys_are_those_of_the_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """After norm and rotary embedding, patch tokens only, views in their original order."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    attend = layers.attend

    def listening(q: torch.Tensor, k: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        seen.append((q, k))
        return attend(q, k, *more)

    monkeypatch.setattr(layers, "attend", listening)
    network, readout = golden_many_view(), Readout((5,), (5,))
    features = network.features(normalised(IMAGES), "middle", readout=readout)
    assert features.reference == FRAMES // 2
    order = [4, 0, 1, 2, 3, 5, 6, 7, 8]
    q, k = (x[0].reshape(4, FRAMES, 13, 16) for x in seen[5])
    for store, values in ((readout.queries, q), (readout.keys, k)):
        assert list(store) == [5]
        for position, frame in enumerate(order):
            expected = values[:, position, 1:].transpose(0, 1).flatten(1)
            torch.testing.assert_close(store[5][frame], expected, rtol=0, atol=0)


def test_they_do_not_depend_on_the_order_of_reading() -> None:
    """Reading changes no result, and a permuted clip has permuted tokens."""
    network, readout = golden_many_view(), readout_for(TINY)
    plain = network.features(normalised(IMAGES), "middle")
    with_readout = network.features(normalised(IMAGES), "middle", readout=readout)
    torch.testing.assert_close(plain.dense[3], with_readout.dense[3], rtol=0, atol=0)
    backwards = readout_for(TINY)
    network.features(normalised(IMAGES[::-1]), "middle", readout=backwards)
    torch.testing.assert_close(backwards.tokens.flip(0), readout.tokens, rtol=1e-5, atol=1e-5)


def test_frames_that_are_compared() -> None:
    assert compared_frames(0, 20) == [2, 4, 6]
    assert compared_frames(8, 20) == [2, 4, 6, 10, 12, 14]
    assert compared_frames(0, 2) == [1]
    assert compared_frames(0, 1) == []


def test_blocks_of_the_published_sizes() -> None:
    layers_of = {s.name: s.layers for s in statistics_of(ManyViewConfig())}
    assert layers_of == {
        "mean QQ, middle": (5, 7), "spread QQ, deep": (9, 11), "mean QQ, deep": (9, 11),
        "mean KK, shallow": (5,), "spread QK, shallow": (5,),
    }  # fmt: skip


def test_a_single_frame_has_no_statistics_but_depth() -> None:
    model = prepare_model(golden_many_view(), "views", device="cpu")
    seen = predict_views(model, IMAGES[:1], attention=True)
    assert seen.attention is not None
    assert all(np.isnan(values).all() for values in seen.attention.statistics.values())
    assert np.isfinite(seen.depth).all()
