"""Motion masks from the statistics of global attention (VGGT4D)."""

from __future__ import annotations

import numpy as np

from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.gram_cue import INVERTED, dynamic_map, gram_motion
from dyn3r.motion.options import AttentionCueOptions
from dyn3r.network.many_view.gram_statistics import GramMaps, statistics_of
from dyn3r.network.many_view.view_config import ManyViewConfig

NAMES = [statistic.name for statistic in statistics_of(ManyViewConfig())]
N, GRID, SIZE_HW = 5, (8, 12), (112, 160)


def maps_of(moving: np.ndarray, noise: float = 0.02) -> GramMaps:
    """Statistics and tokens that tell the `moving` patches (n, gh, gw) from the others."""
    random = np.random.default_rng(0)
    statistics = {}
    for name in NAMES:
        high = ~moving if name in INVERTED else moving
        values = 5 + 3 * high + noise * random.normal(size=moving.shape)
        statistics[name] = values.astype(np.float32)
    tokens = random.normal(size=(*moving.shape, 8)) + 20 * moving[..., None]
    return GramMaps(statistics, tokens.reshape(len(moving), -1, 8).astype(np.float32))


def square() -> np.ndarray:
    moving = np.zeros((N, *GRID), bool)
    for t in range(N):
        moving[t, 2:5, 1 + t : 4 + t] = True
    return moving


def test_the_names_are_those_of_the_network() -> None:
    assert set(INVERTED) < set(NAMES)
    assert len(NAMES) == 5


def test_the_map_is_the_published_product() -> None:
    """(1 - m1)(1 - v1) m2 (1 - m3) v3, scaled to 0..1 in every frame."""
    random = np.random.default_rng(1)
    values = {name: random.random((2, 2, 3)).astype(np.float32) for name in NAMES}
    m1, v1, m2, m3, v3 = values.values()
    product = (1 - m1) * (1 - v1) * m2 * (1 - m3) * v3
    low, high = product.min((1, 2), keepdims=True), product.max((1, 2), keepdims=True)
    np.testing.assert_allclose(dynamic_map(values), (product - low) / (high - low), atol=1e-3)


def test_a_moving_square_is_found() -> None:
    moving = square()
    motion = gram_motion(maps_of(moving), SIZE_HW)
    assert motion.has_motion
    inside = np.array([np.kron(frame, np.ones((14, 13)))[:, :156] for frame in moving]) > 0
    assert motion.masks.shape == (N, *SIZE_HW)
    found = motion.masks[:, :, :156]
    overlap = (found & inside).sum() / (found | inside).sum()
    assert overlap > 0.75
    assert motion.dynamic_map.shape == (N, 7, 10)  # 16 pixels, as other cues
    assert isinstance(motion.evidence, AttentionEvidence)
    assert list(motion.evidence.statistics) == NAMES
    assert "automatic threshold" in motion.reason


def test_still_clips() -> None:
    one = gram_motion(maps_of(square()[:1]), SIZE_HW)
    assert not one.has_motion
    assert "single frame" in one.reason
    same = GramMaps(
        {name: np.ones((N, *GRID), np.float32) for name in NAMES},
        np.zeros((N, 96, 8), np.float32),
    )
    assert "same everywhere" in gram_motion(same, SIZE_HW).reason


def test_a_mask_over_most_of_the_clip_is_the_background() -> None:
    moving = np.ones((N, *GRID), bool)
    moving[:, 2:4, 2:4] = False
    ours = gram_motion(maps_of(moving), SIZE_HW)
    assert not ours.has_motion
    assert not ours.masks.any()
    published = gram_motion(maps_of(moving), SIZE_HW, AttentionCueOptions.easi3r())
    assert published.has_motion
    assert published.masks.mean() > 0.5


def test_parts_of_a_clip_are_joined() -> None:
    maps = maps_of(square())
    joined = GramMaps.join([maps[slice(0, 2)], maps[slice(2, None)]])
    for name in NAMES:
        np.testing.assert_array_equal(joined.statistics[name], maps.statistics[name])
    np.testing.assert_array_equal(joined.tokens, maps.tokens)
