"""Flow of the pairs of a clip: each pair once, in both directions, and its visibility."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.flow import measure_flow
from dyn3r.flow.dis import DisFlow
from dyn3r.flow.fields import undirected_pairs, with_neighbours


@dataclass
class Marked:
    """Frame t is filled with the number t; its content moves by 2 pixels to the right a frame."""

    calls: list[tuple[int, int]] = field(default_factory=list)
    name: str = "marked"
    wrong: float = 0.0

    def flow(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        i, j = int(source[0, 0, 0]), int(target[0, 0, 0])
        self.calls.append((i, j))
        out = np.zeros((*source.shape[:2], 2), np.float32)
        out[..., 0] = 2 * (j - i)
        if j > i:
            out[..., 1] = self.wrong
        return out


def frames(n: int, h: int = 32, w: int = 48) -> np.ndarray:
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, h, w, 3)).copy()


def test_each_pair_is_measured_once_in_both_directions() -> None:
    estimator = Marked()
    edges = np.array([[0, 1], [1, 0], [2, 0], [1, 1], [0, 2]])
    seen = []
    flow = measure_flow(frames(3), edges, estimator, progress=lambda *a: seen.append(a))
    assert estimator.calls == [(0, 1), (1, 0), (0, 2), (2, 0)]
    assert flow.edges.tolist() == [[0, 1], [1, 0], [0, 2], [2, 0]]
    assert flow.flow[:, 0, 0, 0].tolist() == [2, -2, 4, -4]
    assert seen[-1] == ("measuring flow", 2, 2)


def test_flow_out_of_the_image_is_not_visible() -> None:
    flow = measure_flow(frames(5), np.array([[0, 4]]), Marked())
    assert flow.visible is not None
    assert flow.visible[0, :, : 48 - 8].all()
    assert not flow.visible[0, :, 48 - 8 :].any()
    assert not flow.visible[1, :, :8].any()
    assert flow.visible[1, :, 8:].all()


def test_flow_that_does_not_return_is_not_visible() -> None:
    for wrong, believed in ((2.9, True), (3.1, False)):
        flow = measure_flow(frames(2), np.array([[0, 1]]), Marked(wrong=wrong))
        assert flow.visible is not None
        assert flow.visible[0, 10, 10] == believed


def test_corner_cases_and_errors() -> None:
    none = measure_flow(frames(1), np.array([[0, 0]]), Marked())
    assert none.flow.shape == (0, 32, 48, 2)
    assert undirected_pairs(np.zeros((0, 2), np.int64), 3).shape == (0, 2)
    with pytest.raises(InputError, match="there are 2"):
        measure_flow(frames(2), np.array([[0, 2]]), Marked())
    with pytest.raises(InputError, match="integers"):
        measure_flow(frames(2), np.array([[0.0, 1.0]]), Marked())
    with pytest.raises(InputError, match="not finite"):
        measure_flow(frames(2), np.array([[0, 1]]), Marked(wrong=float("nan")))


def test_large_flow_lies_on_disk_and_is_the_same() -> None:
    random = np.random.default_rng(3)
    wall = random.integers(0, 256, (48, 90, 3), dtype=np.uint8)
    images = np.stack([wall[:, 3 * t : 3 * t + 64] for t in range(3)])
    edges = np.array([[0, 1], [1, 2], [2, 1]])
    here = measure_flow(images, edges, DisFlow())
    there = measure_flow(images, edges, DisFlow(), memory_gb=0.0)
    assert isinstance(there.flow, np.memmap)
    assert not isinstance(here.flow, np.memmap)
    np.testing.assert_array_equal(there.flow, here.flow)
    np.testing.assert_array_equal(there.visible, here.visible)


def test_one_frame_has_no_neighbours() -> None:
    assert with_neighbours(np.zeros((0, 2), int), 1).shape == (0, 2)
    np.testing.assert_array_equal(with_neighbours(np.zeros((0, 2), int), 2), [[0, 1]])
