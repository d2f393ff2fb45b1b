"""Truth folders (docs/metrics.md): `frames/` and any of camera.npz, depth.npz, dynamic.npz.

`camera.npz`: `cam2world` (n,4,4) and perhaps `K` (3,3) or (n,3,3); `depth.npz`: `depth` (n,H,W), 0
where unknown; `dynamic.npz`: `mask` (n,H,W). A file that is missing is a truth that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from dyn3r.datasets.cameras import known_K, known_poses, lost_notes
from dyn3r.datasets.files import image_files, listing, npz_names, per_file, read_npz, read_rgb
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError

TRUTHS = ("camera.npz", "depth.npz", "dynamic.npz")


def sequences(root: Path) -> list[Sequence]:
    """The truth folder `root`, or every truth folder in it.

    Raises:
        InputError: no truth folder; arrays that do not fit the number of frames; no cameras.
    """
    if _is_truth_folder(root):
        return [_sequence(root)]
    found = sorted(p for p in root.iterdir() if _is_truth_folder(p)) if root.is_dir() else []
    if not found:
        raise InputError(
            f"{root} holds no truth folder: expected frames/ and one of {', '.join(TRUTHS)}, "
            f"found {listing(root)}"
        )
    return [_sequence(folder) for folder in found]


def _is_truth_folder(folder: Path) -> bool:
    return (folder / "frames").is_dir() and any((folder / name).is_file() for name in TRUTHS)


def _sequence(folder: Path) -> Sequence:
    files = image_files(folder / "frames")
    n = len(files)
    T = K = None
    if (folder / "camera.npz").is_file():
        poses = _fit(read_npz(folder / "camera.npz", "cam2world"), (n, 4, 4), folder)
        T, K = known_poses(poses, folder / "camera.npz"), _intrinsics(folder, n)
    return Sequence(
        name=folder.resolve().name,
        frame_names=tuple(f.stem for f in files),
        image=per_file(files, read_rgb),
        depth=_array(folder / "depth.npz", "depth", n, np.float32),
        mask=_array(folder / "dynamic.npz", "mask", n, bool),
        T_world_camera=T,
        K=K,
        notes=() if T is None else lost_notes(T),
    )


def _intrinsics(folder: Path, n: int) -> np.ndarray | None:
    """K of every frame; None if camera.npz has none."""
    if "K" not in npz_names(folder / "camera.npz"):
        return None
    K = read_npz(folder / "camera.npz", "K")
    every = np.broadcast_to(K, (n, 3, 3)) if K.shape == (3, 3) else K
    return known_K(_fit(every, (n, 3, 3), folder), folder / "camera.npz")


def _array(file: Path, key: str, n: int, dtype: type) -> Callable[[int], np.ndarray] | None:
    """A reader of frames of an array (n, H, W), which is read once."""
    if not file.is_file():
        return None

    @cache
    def whole() -> np.ndarray:
        array = np.nan_to_num(read_npz(file, key), posinf=0, neginf=0).astype(dtype)
        if array.ndim != 3 or len(array) != n:
            raise InputError(f"{file} is {array.shape}, expected one (H, W) for {n} frames")
        return array

    return lambda index: whole()[index]


def _fit(array: np.ndarray, shape: tuple[int, ...], folder: Path) -> np.ndarray:
    if array.shape != shape:
        raise InputError(f"{folder / 'camera.npz'}: expected {shape}, found {array.shape}")
    return array
