"""Ground truth of a clip, as far as anybody has it, at the resolution of a scene's frames.

A truth folder is like that of the bundled demo clip (docs/metrics.md): any of `depth.npz` (key
`depth`, (k,H,W), 0 = unknown), `dynamic.npz` (key `mask`, (k,H,W)) and `camera.npz` (keys
`cam2world` (k,4,4), and perhaps `K` (3,3) or (k,3,3)), and `frames/` with images whose names match
the scene's. A file that is missing is a truth that nobody has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped

from dyn3r.datasets.cameras import known_K, known_poses
from dyn3r.datasets.files import npz_names, read_npz
from dyn3r.errors import InputError
from dyn3r.geometry.lens import undistort, undistorted_K
from dyn3r.io.arguments import checked_path
from dyn3r.io.images import images_in, resize_nearest
from dyn3r.io.mask_files import match_frames
from dyn3r.types import FrameMapping


@dataclass(frozen=True)
class Truth:
    """Ground truth, resampled to the frames of a scene; None: nobody has it."""

    depth: Float[np.ndarray, "n h w"] | None = None
    """z along the optical axis; 0 where unknown."""
    dynamic: Bool[np.ndarray, "n h w"] | None = None
    """True on dynamic pixels."""
    T_world_camera: Float[np.ndarray, "n 4 4"] | None = None
    """Camera-to-world transforms; rows of NaN where unknown."""
    K: Float[np.ndarray, "n 3 3"] | None = None
    """Intrinsics of the prepared frames in pixels."""


def read_truth(folder: str | Path, mapping: FrameMapping, names: tuple[str, ...]) -> Truth:
    """Ground truth of the frames `names`, at the resolution of the prepared frames.

    It belongs to the images of the source. Where lens distortion was removed from the frames
    (`mapping`), it is removed from the truth. Where images differ in size, maps are those of the
    prepared frames.

    Raises:
        InputError: no truth at all, damaged files, arrays that do not fit together or do not fit
            the source of the frames, frames that cannot be matched.
    """
    root = checked_path(folder, "the ground truth")
    depth = _read_array(root / "depth.npz", "depth")
    dynamic = _read_array(root / "dynamic.npz", "mask")
    poses = _read_array(root / "camera.npz", "cam2world")
    K = _read_array(root / "camera.npz", "K", optional=True)
    total = _check_shapes(root, {"depth": depth, "mask": dynamic, "cam2world": poses})
    _check_source(root, depth if depth is not None else dynamic, mapping)
    index = match_frames(_frame_stems(root, total), names, root)
    return Truth(
        depth=None if depth is None else _resized_depth(depth[index], mapping),
        dynamic=None if dynamic is None else _resized(dynamic[index] > 0, mapping),
        T_world_camera=None if poses is None else known_poses(poses, root / "camera.npz")[index],
        K=None if K is None else _intrinsics(root, K, total, index, mapping),
    )


def _check_shapes(root: Path, arrays: dict[str, np.ndarray | None]) -> int:
    """Number of frames; refuse a folder without truth and arrays that do not fit together."""
    given = {name: array.shape for name, array in arrays.items() if array is not None}
    if not given:
        raise InputError(
            f"{root} has no ground truth: expected camera.npz, depth.npz or dynamic.npz"
        )
    first = next(iter(given.values()))
    total = first[0] if first else 0
    maps = {shape for name, shape in given.items() if name != "cam2world"}
    fits = all(len(shape) == 3 and shape[0] == total > 0 for shape in given.values())
    if not fits or len(maps) > 1 or given.get("cam2world", (total, 4, 4))[1:] != (4, 4):
        shapes = ", ".join(f"{name} {shape}" for name, shape in given.items())
        raise InputError(f"the ground truth in {root} does not fit together: {shapes}")
    return int(total)


def _check_source(root: Path, maps: np.ndarray | None, mapping: FrameMapping) -> None:
    if maps is None:
        return
    if mapping.is_mixed and maps.shape[1:] != mapping.size_hw:
        (h, w), (own_h, own_w) = maps.shape[1:], mapping.size_hw
        raise InputError(
            f"the ground truth in {root} is {w}x{h}: that of images of different sizes must have "
            f"the size of the prepared frames, {own_w}x{own_h}"
        )
    if not mapping.is_mixed and maps.shape[1:] != mapping.source_hw:
        (h, w), (source_h, source_w) = maps.shape[1:], mapping.source_hw
        raise InputError(
            f"the ground truth in {root} is {w}x{h}, but the scene was made from "
            f"{source_w}x{source_h} images: are both of the same clip?"
        )


def _resized_depth(depth: np.ndarray, mapping: FrameMapping) -> np.ndarray:
    known = np.nan_to_num(depth.astype(np.float32), posinf=0.0, neginf=0.0)
    return _resized(known, mapping)


def _resized(
    maps: Shaped[np.ndarray, "n H W"], mapping: FrameMapping
) -> Shaped[np.ndarray, "n h w"]:
    if mapping.is_mixed:
        return maps
    resized = resize_nearest(maps, mapping)
    if resized.dtype == np.bool_:
        return undistort(resized.astype(np.uint8), mapping, nearest=True) > 0
    return undistort(resized, mapping, nearest=True)


def _intrinsics(
    root: Path, K: np.ndarray, total: int, index: list[int], mapping: FrameMapping
) -> Float[np.ndarray, "n 3 3"]:
    if K.shape not in ((3, 3), (total, 3, 3)):
        raise InputError(
            f"K in {root / 'camera.npz'} must be (3,3) or ({total},3,3), not {K.shape}"
        )
    every = known_K(np.broadcast_to(K, (total, 3, 3)), root / "camera.npz")[index]
    undistorted = [
        k if lens is None else undistorted_K(lens, k)
        for k, lens in ((k, mapping.of_frame(t).lens) for t, k in enumerate(every))
    ]
    return mapping.K_from_source(np.stack(undistorted))


def _frame_stems(root: Path, total: int) -> list[str]:
    """Names of the frames of the ground truth: those of the images in `frames/` if present."""
    folder = root / "frames"
    if folder.is_dir():
        files = images_in(folder)
        if len(files) == total:
            return [f.stem for f in files]
    return [f"frame_{index:06d}" for index in range(total)]


def _read_array(path: Path, key: str, *, optional: bool = False) -> np.ndarray | None:
    """An array of a truth file; None without the file, or without an `optional` array."""
    if not path.is_file() or (optional and key not in npz_names(path)):
        return None
    return read_npz(path, key)
