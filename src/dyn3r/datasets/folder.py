"""Truth folders (docs/metrics.md): `frames/` and any of camera.npz, depth.npz, dynamic.npz.

`camera.npz`: `cam2world` (n,4,4) and perhaps `K` (3,3) or (n,3,3); `depth.npz`: `depth` (n,H,W), 0
where unknown; `dynamic.npz`: `mask` (n,H,W). A file that is missing is a truth that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dyn3r.datasets.cameras import known_K, known_poses, lost_notes
from dyn3r.datasets.files import image_files, listing, npz_names, per_file, read_npz, read_rgb
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.atomic import atomic_folder

TRUTHS = ("camera.npz", "depth.npz", "dynamic.npz")


def sequences(root: Path) -> list[Sequence]:
    """The truth folder `root`, or every truth folder in it.

    Raises:
        InputError: no truth folder; arrays that do not fit the number of frames; no cameras.
    """
    return [_sequence(folder) for folder in truth_folders(root)]


def truth_folders(root: Path) -> list[Path]:
    """`root`, or every truth folder in it. Raises InputError if there is none."""
    if _is_truth_folder(root):
        return [root]
    found = sorted(p for p in root.iterdir() if _is_truth_folder(p)) if root.is_dir() else []
    if not found:
        raise InputError(
            f"{root} holds no truth folder: expected frames/ and one of {', '.join(TRUTHS)}, "
            f"found {listing(root)}"
        )
    return found


def write_truth_folder(
    folder: str | Path,
    images: Iterable[UInt8[np.ndarray, "h w 3"]],
    *,
    T_world_camera: Float[np.ndarray, "n 4 4"],
    K: Float[np.ndarray, "*n 3 3"],
    depth: Float[np.ndarray, "n h w"],
    dynamic: Bool[np.ndarray, "n h w"],
    names: Iterable[str] | None = None,
) -> None:
    """Write frames and their truth as a truth folder, which appears when it is complete.

    Args:
        folder: a path where nothing is yet.
        images: the frames, written as PNG.
        T_world_camera: camera to world, OpenCV axes.
        K: intrinsics of every frame or of all, in pixels, pixel centres at integers.
        depth: z of every pixel in the unit of the cameras, 0 where unknown.
        dynamic: pixels of moving objects.
        names: of the frames without suffix; by default 00000, 00001, ...

    Raises:
        OutputError: there is something at `folder`, or it can't be written.
    """
    with atomic_folder(folder) as part:
        (part / "frames").mkdir()
        for name, image in zip(names or (f"{t:05d}" for t in count()), images):
            Image.fromarray(image).save(part / "frames" / f"{name}.png")
        np.savez(part / "camera.npz", cam2world=T_world_camera, K=K)
        np.savez(part / "depth.npz", depth=depth)
        np.savez(part / "dynamic.npz", mask=dynamic)


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
