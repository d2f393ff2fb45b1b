from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from dyn3r.errors import InputError

pytest.importorskip("numba")

from dyn3r.training.synthetic.camera_paths import CameraPath, camera_rotation, following
from dyn3r.training.synthetic.world import Sample, World, WorldOptions

pytestmark = pytest.mark.slow  # compiles and renders


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldOptions(size_hw=(96, 128), frames=3, procedural_tiles=28), seed=5)


@pytest.fixture(scope="module")
def sample(world: World) -> Sample:
    return world.sample(12, step=1)


def unproject(sample: Sample) -> Tensor:
    """World points (b, v, h, w, 3) in float64."""
    h, w = sample.depth.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], -1).double()
    rays = torch.einsum("bvij,hwj->bvhwi", sample.K.double().inverse(), pixels)
    camera = rays * sample.depth.double()[..., None]
    T = sample.T_world_camera.double()
    return torch.einsum("bvij,bvhwj->bvhwi", T[..., :3, :3], camera) + T[:, :, None, None, :3, 3]


def project(sample: Sample, points: Tensor, j: int) -> tuple[Tensor, Tensor]:
    T = sample.T_world_camera.double().inverse()[:, j]
    camera = torch.einsum("bij,bhwj->bhwi", T[:, :3, :3], points) + T[:, None, None, :3, 3]
    pixels = torch.einsum("bij,bhwj->bhwi", sample.K.double()[:, j], camera)
    return pixels[..., :2] / pixels[..., 2:], camera[..., 2]


def lookup(field: Tensor, at: Tensor) -> Tensor:
    """Bilinear lookup of (b, h, w) at pixel positions (b, h, w, 2)."""
    h, w = field.shape[-2:]
    scale = torch.tensor([w - 1, h - 1], dtype=at.dtype)
    grid = 2 * at / scale - 1
    return torch.nn.functional.grid_sample(field[:, None], grid, align_corners=True)[:, 0]


def test_shapes_types_and_ranges(sample: Sample) -> None:
    assert sample.images.shape == (12, 3, 3, 96, 128)
    assert sample.images.dtype == torch.float32
    assert sample.flow is not None
    assert sample.visible is not None
    assert sample.flow.shape == (12, 3, 3, 96, 128, 2)
    assert sample.visible.shape == (12, 3, 3, 96, 128)
    for field in (sample.images, sample.depth, sample.flow, sample.K, sample.T_world_camera):
        assert field.dtype == torch.float32
        assert torch.isfinite(field).all()
    assert sample.images.min() >= 0
    assert sample.images.max() <= 1
    assert 0.1 < sample.images.mean() < 0.8
    assert sample.images.std() > 0.1
    assert ((sample.depth > 0) == sample.valid).all()
    assert not (sample.moving & ~sample.valid).any()
    R = sample.T_world_camera[..., :3, :3]
    assert torch.allclose(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5)
    assert torch.allclose(torch.linalg.det(R), torch.ones(12, 3), atol=1e-5)


def test_a_sample_depends_on_seed_and_step_only(world: World, sample: Sample) -> None:
    again = world.sample(12, step=1, threads=2)
    for name in ("images", "depth", "flow", "visible", "T_world_camera"):
        assert torch.equal(getattr(again, name), getattr(sample, name))
    other = world.sample(1, step=2)
    assert not torch.equal(other.images[0], sample.images[0])


def test_flow_of_static_points_is_their_reprojection(sample: Sample) -> None:
    assert sample.flow is not None
    points = unproject(sample)
    h, w = sample.depth.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    here = torch.stack([u, v], -1).double()
    static = sample.valid & ~sample.moving
    for i, j in ((0, 1), (2, 0), (1, 2)):
        there, z = project(sample, points[:, i], j)
        near = (there.abs() < 4 * w).all(-1) & (z > 0.1)
        error = (there - here - sample.flow[:, i, j]).norm(dim=-1)[static[:, i] & near]
        assert len(error) > 1000
        assert error.max() < 0.1


def test_depth_agrees_where_static_points_are_visible(sample: Sample) -> None:
    assert sample.visible is not None
    points = unproject(sample)
    inverse = torch.where(sample.valid, 1 / sample.depth.double().clamp(min=1e-6), 0.0)
    for i, j in ((0, 2), (2, 1)):
        there, z = project(sample, points[:, i], j)
        seen = sample.visible[:, i, j] & ~sample.moving[:, i]
        relative = (lookup(inverse[:, j], there) * z - 1).abs()[seen]
        assert relative.median() < 2e-4
        assert (relative < 0.01).double().mean() > 0.93  # the rest lies beside edges


def test_visible_means_unoccluded(sample: Sample) -> None:
    """A static point inside the frame that is not visible is behind another surface."""
    assert sample.visible is not None
    points = unproject(sample)
    h, w = sample.depth.shape[-2:]
    there, z = project(sample, points[:, 0], 2)
    inside = ((there > 1) & (there < torch.tensor([w - 2, h - 2]))).all(-1) & (z > 0.01)
    hidden = inside & sample.valid[:, 0] & ~sample.moving[:, 0] & ~sample.visible[:, 0, 2]
    depth = torch.where(sample.valid, sample.depth, 1e4)[:, 2]
    nearest = -torch.nn.functional.max_pool2d(-depth[:, None], 3, 1, 1)[:, 0]
    at = there.round().long().clamp(min=0)
    batch = torch.arange(len(z))[:, None, None].expand_as(z)
    front = nearest[batch, at[..., 1].clamp(max=h - 1), at[..., 0].clamp(max=w - 1)]
    assert hidden.sum() > 100
    assert (front < z * 0.999)[hidden].double().mean() > 0.98


def test_flow_there_and_back_returns(sample: Sample) -> None:
    """Also on moving objects: the backward flow at the end point cancels the flow."""
    assert sample.flow is not None
    assert sample.visible is not None
    h, w = sample.depth.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    flow = sample.flow[:, 0, 1].double()
    there = torch.stack([u, v], -1).double() + flow
    back = torch.stack([lookup(sample.flow[:, 1, 0, ..., k].double(), there) for k in (0, 1)], -1)
    error = (flow + back).norm(dim=-1)
    seen = sample.visible[:, 0, 1]
    assert error[seen].median() < 0.02
    moving = seen & sample.moving[:, 0]
    assert moving.sum() > 500
    assert error[moving].median() < 0.1
    assert (error[moving] < 1).double().mean() > 0.75


def test_moving_objects_do_not_follow_the_static_scene(sample: Sample) -> None:
    assert sample.flow is not None
    points = unproject(sample)
    h, w = sample.depth.shape[-2:]
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    there, _ = project(sample, points[:, 0], 2)
    excess = (there - torch.stack([u, v], -1) - sample.flow[:, 0, 2]).norm(dim=-1)
    moving = sample.moving[:, 0]
    assert excess[moving].median() > 1
    assert (excess[moving] > 0.05).double().mean() > 0.9


def test_static_world_stands_still() -> None:
    world = World(
        WorldOptions(size_hw=(48, 64), frames=2, dynamic_share=0.0, procedural_tiles=5), seed=1
    )
    assert not world.sample(4, 0).moving.any()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_following_camera_keeps_its_target_in_view(seed: int) -> None:
    """The target crosses less of the view than for a camera that stands still."""
    frames = 9
    still = CameraPath(
        R=np.tile(camera_rotation(0.0, 0.0, 0.0), (frames, 1, 1)), t=np.zeros((frames, 3)),
        f_px=100.0, half_angle=0.5, distance=4.0, times=list(np.linspace(0, 1, frames)),
        kind="still",
    )  # fmt: skip
    across = np.linspace(-1.5, 1.5, frames)
    target = np.stack([across, np.full(frames, 4.0), np.full(frames, 0.5)], -1)

    def crossed(path: CameraPath) -> float:
        seen = np.einsum("fji,fj->fi", path.R, target - path.t)  # right, down, forward
        assert (seen[:, 2] > 0).all()
        return float(np.ptp(seen[:, 0] / seen[:, 2]))

    path = following(random.Random(seed), still, target, lambda _x, _y, _r: True)
    assert crossed(path) < 0.45 * crossed(still)
    np.testing.assert_allclose(
        path.R @ path.R.transpose(0, 2, 1), np.eye(3)[None].repeat(9, 0), atol=1e-12
    )
    np.testing.assert_array_equal(path.t[frames // 2], still.t[frames // 2])
    confined = following(random.Random(seed), still, target, lambda x, _y, _r: abs(x) < 0.9)
    assert np.abs(confined.t[:, 0]).max() < 0.9


def test_following_changes_scenes_with_motion_only() -> None:
    """The first camera of a scene without motion is that without the option."""
    options = WorldOptions(size_hw=(48, 64), frames=3, dynamic_share=0.5, procedural_tiles=5)
    world = World(options, seed=4)
    follows = world.changed(following_share=1.0)
    changed = {False: 0, True: 0}
    for step in range(12):
        a, b = (w.sample(1, step, with_flow=False) for w in (world, follows))
        dynamic = bool(a.moving.any() or b.moving.any())
        changed[dynamic] += not torch.equal(a.T_world_camera, b.T_world_camera)
    assert changed[False] == 0
    assert changed[True] > 2
    with pytest.raises(InputError, match="following_share"):
        WorldOptions(following_share=1.5)


@pytest.mark.parametrize("size_hw", [(64, 48), (48, 80)])
def test_portrait_and_landscape_have_square_pixels(size_hw: tuple[int, int]) -> None:
    sample = World(WorldOptions(size_hw=size_hw, frames=2, procedural_tiles=5), seed=2).sample(
        2, 0, with_flow=False
    )
    assert sample.images.shape[-2:] == size_hw
    assert sample.flow is None
    assert sample.visible is None
    K = sample.K[0, 0]
    assert K[0, 0] == K[1, 1]
    assert (K[0, 2], K[1, 2]) == ((size_hw[1] - 1) / 2, (size_hw[0] - 1) / 2)


def test_baselines_stay_in_range(world: World) -> None:
    T = world.sample(8, 3, with_flow=False).T_world_camera
    gaps = (T[:, 1:, :3, 3] - T[:, :-1, :3, 3]).norm(dim=-1)
    assert gaps.max() < 20
    assert gaps.max() > 0


def test_photographs_are_used(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    red = np.zeros((40, 60, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "a.png")
    Image.fromarray(red).save(tmp_path / "pano_b.jpg")
    bank = World(WorldOptions(photos=str(tmp_path), procedural_tiles=5), seed=0).bank
    assert len(bank.tiles) == bank.num_procedural + 8
    assert len(bank.skies) == bank.num_procedural_skies + 1
    assert (bank.tiles[bank.num_procedural] == 255).all()  # red in the lowest byte


def test_options_that_cannot_be_rendered_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="multiples of 16"):
        WorldOptions(size_hw=(100, 64))
    with pytest.raises(InputError, match="not a folder"):
        World(WorldOptions(photos=str(tmp_path / "none")), seed=0)
    with pytest.raises(InputError, match="has no jpg or png"):
        World(WorldOptions(photos=str(tmp_path), procedural_tiles=5), seed=0)


def test_some_views_end_at_a_near_surface_and_some_are_wide() -> None:
    """Far inverse depth over the median one: 1 is a flat wall, 0 the horizon."""
    world = World(WorldOptions(size_hw=(48, 64), frames=1, procedural_tiles=28), seed=8)
    depth = world.sample(60, step=0, with_flow=False).depth.flatten(1)
    closed = []
    for values in depth:
        inverse = 1 / values[values > 0]
        far, middle = inverse.quantile(torch.tensor([0.1, 0.5]))
        closed.append(float(far / middle))
    shares = [np.mean(np.array(closed) > limit) for limit in (0.7, 0.35)]
    assert 0.2 < shares[0] < 0.6
    assert 0.1 < 1 - shares[1] < 0.5
