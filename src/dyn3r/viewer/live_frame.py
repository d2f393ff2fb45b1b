"""Frames of the live page: input of any kind, checked and brought to NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dyn3r.errors import InputError
from dyn3r.scene.background import depth_edges
from dyn3r.viewer.packing import PackedCloud, pack
from dyn3r.viewer.points import unproject


@dataclass(frozen=True)
class LiveFrame:
    """One frame as NumPy arrays."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB, 0..255."""
    depth: Float32[np.ndarray, "h w"]
    """z along the optical axis in scene units; 0 or negative: unknown."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics in pixels, integer pixel centres."""
    T_world_camera: Float[np.ndarray, "4 4"]
    """Map from camera to world."""
    dynamic: Bool[np.ndarray, "h w"]
    """True on dynamic pixels."""
    confidence: Float32[np.ndarray, "h w"] | None
    """Larger is more confident; 0: rejected. None: the same for all pixels."""

    @classmethod
    def from_arrays(
        cls, image: Any, depth: Any, K: Any, T_world_camera: Any, dynamic: Any, confidence: Any
    ) -> LiveFrame:
        """Frame from tensors or arrays. The arguments are those of `LiveViewer.add_frame`.

        Raises:
            InputError: shapes that do not fit together, or a camera that is not finite.
        """
        z = np.nan_to_num(_array(depth, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if z.ndim != 2:
            raise InputError(f"the depth of a live frame has the shape (h, w), not {z.shape}")
        rgb = _array(image, np.float32)
        if rgb.shape != (3, *z.shape):
            raise InputError(f"the image of a live frame must be {(3, *z.shape)}, not {rgb.shape}")
        maps = [None if m is None else _array(m, kind) for m, kind in
                ((dynamic, bool), (confidence, np.float32))]  # fmt: skip
        if any(m is not None and m.shape != z.shape for m in maps):
            raise InputError(f"the mask and the confidence of a live frame must be {z.shape}")
        K_, T = _array(K, np.float64), _array(T_world_camera, np.float64)
        if K_.shape != (3, 3) or T.shape != (4, 4) or not np.isfinite([*K_.flat, *T.flat]).all():
            raise InputError("K must be 3x3 and T_world_camera 4x4, both finite")
        rgb8 = (255 * np.clip(np.nan_to_num(rgb), 0, 1)).round().astype(np.uint8)
        moving = np.zeros(z.shape, bool) if maps[0] is None else maps[0]
        return cls(np.ascontiguousarray(rgb8.transpose(1, 2, 0)), z, K_, T, moving, maps[1])

    def select(self, drop: float) -> Bool[np.ndarray, "h w"]:
        """Pixels to show: with depth, away from depth discontinuities, not rejected.

        A share `drop` (0..1) of them is left out, the least confident ones.
        """
        chosen: np.ndarray = (self.depth > 0) & ~depth_edges(self.depth)
        if self.confidence is not None:
            kept = self.confidence[chosen & (self.confidence > 0)]
            threshold = float(np.quantile(kept, drop)) if len(kept) else 0.0
            chosen &= (self.confidence > 0) & (self.confidence >= threshold)
        return chosen

    def points(
        self, chosen: Bool[np.ndarray, "h w"]
    ) -> tuple[Float[np.ndarray, "k 3"], UInt8[np.ndarray, "k 3"]]:
        """World points and colours of the pixels that are True in `chosen`."""
        rows, columns = np.nonzero(chosen)
        uv = np.stack([columns, rows], axis=-1).astype(np.float64)
        points = unproject(uv, self.depth[rows, columns], self.K, self.T_world_camera)
        return points, self.image[rows, columns]

    def pack(
        self,
        points: Float[np.ndarray, "k 3"],
        colors: UInt8[np.ndarray, "k 3"],
        unit: float,
        step: int,
    ) -> PackedCloud:
        """World points in the wire format, relative to the camera centre, in units of `unit`.

        `step`: spacing in pixels of the grid that they were taken from.
        """
        T = self.T_world_camera
        depth = (points - T[:3, 3]) @ T[:3, 2]
        typical = float(np.median(depth)) if len(depth) else unit
        return pack(points, colors, T[:3, 3], unit, step * typical / float(self.K[0, 0]))

    def thumbnail(self, max_side: int = 192) -> UInt8[np.ndarray, "_ _ 3"]:
        """Image down-sampled to `max_side` pixels along its longer side."""
        step = max(1, -(-max(self.depth.shape) // max_side))
        return np.ascontiguousarray(self.image[::step, ::step])


def grid_step(size_hw: tuple[int, ...], count: int) -> int:
    """Spacing in pixels of a grid with at most `count` points."""
    return max(1, int(np.ceil(np.sqrt(size_hw[0] * size_hw[1] / count))))


def _array(value: Any, kind: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float() if kind == np.float32 else value.double()
        value = value.numpy()
    return np.asarray(value, dtype=kind)
