"""One frame of a run that goes on, as the live page takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.scene.background import depth_edges
from dyn3r.viewer.packing import Packed, pack


@dataclass(frozen=True)
class LiveFrame:
    """One frame as NumPy arrays, checked. The fields are those of `LiveViewer.add_frame`."""

    image: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    T_world_camera: np.ndarray
    dynamic: np.ndarray
    confidence: np.ndarray | None

    @classmethod
    def of(
        cls, image: Any, depth: Any, K: Any, T_world_camera: Any, dynamic: Any, confidence: Any
    ) -> LiveFrame:
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
        picture = (255 * np.clip(np.nan_to_num(rgb), 0, 1)).round().astype(np.uint8)
        moving = np.zeros(z.shape, bool) if maps[0] is None else maps[0]
        return cls(np.ascontiguousarray(picture.transpose(1, 2, 0)), z, K_, T, moving, maps[1])

    def reliable(self, drop: float) -> np.ndarray:
        """Known, sure enough, and not hanging between near and far."""
        chosen = (self.depth > 0) & ~depth_edges(self.depth)
        if self.confidence is not None:
            kept = self.confidence[chosen & (self.confidence > 0)]
            limit = float(np.quantile(kept, drop)) if len(kept) else 0.0
            chosen &= (self.confidence > 0) & (self.confidence >= limit)
        return chosen

    def points(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (k, 3) and colours (k, 3) of the chosen pixels."""
        rows, columns = np.nonzero(chosen)
        z, K, T = self.depth[rows, columns].astype(np.float64), self.K, self.T_world_camera
        x, y = (columns - K[0, 2]) / K[0, 0] * z, (rows - K[1, 2]) / K[1, 1] * z
        points = np.stack([x, y, z], axis=-1) @ T[:3, :3].T + T[:3, 3]
        return points, self.image[rows, columns]

    def pack(self, points: np.ndarray, colors: np.ndarray, unit: float) -> Packed:
        return pack(points, colors, self.T_world_camera[:3, 3], unit)

    def thumbnail(self, side: int = 192) -> np.ndarray:
        step = max(1, -(-max(self.depth.shape) // side))
        return np.ascontiguousarray(self.image[::step, ::step])


def _array(value: Any, kind: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.float() if kind == np.float32 else value.double()
        value = value.numpy()
    return np.asarray(value, dtype=kind)


def grid_step(size_hw: tuple[int, ...], count: int) -> int:
    """Pixels between the points of a grid that has at most `count` of them."""
    return max(1, int(np.ceil(np.sqrt(size_hw[0] * size_hw[1] / count))))
