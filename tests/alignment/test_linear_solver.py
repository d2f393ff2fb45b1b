"""The frontal method against the dense solution."""

from __future__ import annotations

import pytest
import torch

from dyn3r.alignment.linear_solver import Block, elimination, solve
from dyn3r.alignment.normal_equations import ParameterLayout
from dyn3r.network.pair_graph import make_pairs


def frame_blocks(layout: ParameterLayout, edges: torch.Tensor) -> list[Block]:
    """A positive definite block for every frame, over its camera and the pairs that show it."""
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for frame in range(layout.num_frames):
        own = layout.frames(torch.tensor([frame]))[0]
        pairs = torch.nonzero((edges == frame).any(1))[:, 0]
        index = torch.cat([own, layout.pairs(pairs).reshape(-1)])
        J = torch.randn(2 * len(index), len(index), generator=generator, dtype=torch.float64)
        slope = torch.randn(len(index), generator=generator, dtype=torch.float64)
        blocks.append(Block(index, J.T @ J, slope))
    scales = layout.pairs(torch.arange(len(edges)))[:, 0]
    each = torch.full((len(scales),), 0.3, dtype=torch.float64)
    return [*blocks, Block(scales, each, -each)]


def dense_solution(
    blocks: list[Block], size: int, free: torch.Tensor, damping: float
) -> torch.Tensor:
    H, b = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for block in blocks:
        part = torch.diag(block.H) if block.H.dim() == 1 else block.H
        H.index_put_((block.index[:, None], block.index[None]), part, accumulate=True)
        b.index_add_(0, block.index, block.b)
    H += torch.diag(damping * H.diagonal() + 1e-9 * H.diagonal().max())
    step = torch.zeros_like(b)
    step[free] = -torch.linalg.solve(H[free][:, free], b[free])
    return step


@pytest.mark.parametrize("num_focals", [1, 24])
@pytest.mark.parametrize("graph", ["swin-2-noncyclic", "swin-2", "complete"])
def test_equals_the_dense_solution(graph: str, num_focals: int) -> None:
    n = 24 if graph != "complete" else 6
    edges = torch.from_numpy(make_pairs(graph, n))
    layout = ParameterLayout(n, min(num_focals, n), len(edges))
    blocks = frame_blocks(layout, edges)
    free = torch.ones(layout.size, dtype=torch.bool)
    free[6:12] = False
    found = solve(blocks, layout.size, free, 1e-3)
    expected = dense_solution(blocks, layout.size, free, 1e-3)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    assert (found[6:12] == 0).all()


def test_the_front_does_not_grow_with_the_clip() -> None:
    sizes = []
    for n in (60, 120):
        edges = torch.from_numpy(make_pairs("swinstride-5-noncyclic", n))
        layout = ParameterLayout(n, 1, len(edges))
        of_frames = [
            torch.cat([
                layout.frames(torch.tensor([t]))[0],
                layout.pairs(torch.nonzero((edges == t).any(1))[:, 0]).reshape(-1),
            ])
            for t in range(n)
        ]  # fmt: skip
        steps = elimination(of_frames, torch.ones(layout.size, dtype=torch.bool))
        eliminated = torch.cat([front.pivot_unknowns for front in steps])
        assert sorted(eliminated.tolist()) == list(range(layout.size))
        sizes.append(max(front.size for front in steps))
    assert sizes[0] == sizes[1] < 500


def test_a_larger_diagonal_where_the_matrix_is_not_positive_definite() -> None:
    H = torch.diag(torch.tensor([1.0, -1e-7], dtype=torch.float64))
    block = Block(torch.arange(2), H, torch.ones(2, dtype=torch.float64))
    found = solve([block], 2, torch.ones(2, dtype=torch.bool), 0.0)
    assert bool(found.isfinite().all())
    assert float(found[0]) == pytest.approx(-1, rel=1e-3)


def test_unknowns_without_a_block_stay() -> None:
    block = Block(torch.arange(2), torch.eye(2).double(), torch.ones(2, dtype=torch.float64))
    found = solve([block], 4, torch.ones(4, dtype=torch.bool), 0.0)
    assert found.tolist() == pytest.approx([-1, -1, 0, 0], abs=1e-6)
