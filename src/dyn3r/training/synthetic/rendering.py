"""Rendering of scenes with the compiled kernels: images, depth, masks and optical flow."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

import numpy as np

from dyn3r.training.synthetic.camera_paths import CameraPath
from dyn3r.training.synthetic.scene_sampling import Scene
from dyn3r.training.synthetic.scenes import SceneArrays
from dyn3r.training.synthetic.textures import TextureBank

GRID = 96
"""Cells per side of the grids in which shadows and contact shadows are computed."""
PREVIEW = 8
"""Stride in pixels of the preview."""


def _kernels(name: str) -> Any:
    """Import a module of compiled functions when first needed (numba is an optional extra)."""
    return import_module(f"dyn3r.training.synthetic.{name}")


def camera_rows(path: CameraPath, size_hw: tuple[int, int], stride: int = 1) -> np.ndarray:
    """Compute rows fx fy cx cy R(9) t(3) per frame, for images reduced by `stride`."""
    h, w = size_hw
    cam = np.empty((len(path.t), 16), np.float32)
    cam[:, 0:2] = path.f_px / stride
    cam[:, 2] = ((w - 1) / 2 + 0.5) / stride - 0.5
    cam[:, 3] = ((h - 1) / 2 + 0.5) / stride - 0.5
    cam[:, 4:13] = path.R.reshape(-1, 9)
    cam[:, 13:16] = path.t
    return cam


def preview_fault(
    scene: Scene, size_hw: tuple[int, int], moving_share: tuple[float, float]
) -> float:
    """Rate a scene by a small preview: 0 is good, larger is worse.

    Faults: cameras inside objects, close objects that fill the view, much sky, and a share of
    moving pixels outside `moving_share`.
    """
    trace = _kernels("raycast").trace
    a, path = scene.arrays, scene.path
    R = a.rt[..., :9].reshape(*a.rt.shape[:2], 3, 3)
    gap = path.t[:, None].astype(np.float32) - a.rt[..., 9:]
    local = np.abs(np.einsum("fpij,fpi->fpj", R, gap))
    if (local < a.half + 0.04 * path.distance).all(-1).any():
        return 10.0
    h, w = size_hw[0] // PREVIEW, size_hw[1] // PREVIEW
    depth, index = np.empty((h, w), np.float32), np.empty((h, w), np.int32)
    cams = camera_rows(path, size_hw, PREVIEW)
    moving, fault = [], 0.0
    for k, cam in enumerate(cams):
        trace(a.prim, a.half, a.rt[k], a.relief, cam, depth, index)
        surface = index >= 0
        close = float((surface & (depth < 0.25 * path.distance)).mean())
        fault += max(close - 0.25, 0.0) + max(0.45 - float(surface.mean()), 0.0)
        moving.append(float((a.moving[np.maximum(index, 0)] & surface).mean()))
    if scene.dynamic:
        low, high = moving_share
        share = sum(moving) / len(moving)
        fault += max(low - share, 0.0) * 20 + max(share - high, 0.0) * 4
    return fault


def render(
    scene: Scene,
    edge_samples: int,
    bank: TextureBank,
    rng: random.Random,
    out: dict[str, np.ndarray],
) -> None:
    """Render one clip into the arrays of a `Sample`, without their batch dimension."""
    raycast, lighting, shading = _kernels("raycast"), _kernels("lighting"), _kernels("shading")
    camera_effects = _kernels("camera_effects")

    a, path = scene.arrays, scene.path
    n, _, h, w = out["images"].shape
    cams = camera_rows(path, (h, w))
    depth, image, index = out["depth"], out["images"], np.empty((n, h, w), np.int32)
    sun, left = np.empty((h, w), np.float32), np.empty((h, w), np.float32)
    lo, cell = -6.0 * path.distance, 12.0 * path.distance / GRID
    grids: Any = [np.empty(GRID * GRID + 1, np.int32) for _ in range(2)]
    items: Any = [np.empty(64 * GRID * GRID, np.int32) for _ in range(2)]
    sky_dir = [float(x) for x in scene.light[:3]]
    for k in range(n):
        raycast.trace(a.prim, a.half, a.rt[k], a.relief, cams[k], depth[k], index[k])
        args = (a.rt[k], a.half, a.radii)
        lighting.light_grid(*args, 0.02, *sky_dir, lo, cell, grids[0], items[0])
        lighting.light_grid(*args, 0.25, 0.0, 0.0, 1.0, lo, cell, grids[1], items[1])
        lighting.light_pass(a.prim, a.half, a.radii, a.rt[k], a.relief, scene.light, cams[k],
                            depth[k], index[k], lo, cell, grids[0], items[0], grids[1], items[1],
                            sun, left)  # fmt: skip
        shading.shade_frame(a.prim, a.rt[k], a.relief, a.mat_of, a.mats, bank.tiles, bank.skies,
                            scene.light, cams[k], depth[k], index[k], sun, left,
                            edge_samples, image[k])  # fmt: skip
    camera_effects.apply_effects(image, camera_effects.sample_effects(rng), rng)
    out["valid"][:] = index >= 0
    out["moving"][:] = a.moving[np.maximum(index, 0)] & out["valid"]
    T, K = out["T_world_camera"], out["K"]
    T[:], K[:] = np.eye(4), np.eye(3)
    T[:, :3, :3], T[:, :3, 3] = path.R, path.t
    K[:, 0, 0] = K[:, 1, 1] = path.f_px
    K[:, 0, 2], K[:, 1, 2] = (w - 1) / 2, (h - 1) / 2
    if "flow" in out:
        _flows(a, cams, depth, index, out["flow"], out["visible"])


def _flows(
    a: SceneArrays,
    cams: np.ndarray,
    depth: np.ndarray,
    index: np.ndarray,
    flow: np.ndarray,
    visible: np.ndarray,
) -> None:
    """Fill flow (n, n, h, w, 2) and visible (n, n, h, w) of one clip."""
    raycast = _kernels("raycast")

    n = len(depth)
    inverse = np.where(index >= 0, 1 / np.maximum(depth, 1e-6), 0).astype(np.float32)
    blocks = np.empty_like(index)
    eyes = [raycast.eye_table(a.rt[k], cams[k]) for k in range(n)]
    for k in range(n):
        raycast.uniform_blocks(index[k], blocks[k])
    for i in range(n):
        for j in range(n):
            if i == j:
                flow[i, i], visible[i, i] = 0.0, index[i] >= 0
                continue
            carry = raycast.carry_table(a.rt[i], eyes[i], cams[j], a.rt[j])
            raycast.flow_between(a.prim, carry, eyes[j], a.relief, depth[i], index[i],
                                 inverse[j], index[j], blocks[j],
                                 flow[i, j], visible[i, j])  # fmt: skip
