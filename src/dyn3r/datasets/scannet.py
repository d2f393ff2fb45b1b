"""ScanNet v2 (Dai 2017): rooms scanned with a depth camera, with camera paths.

Layouts of a scene (docs/design/DATASETS.md, 2.7), the first that is found counts: `SCENE.sens`;
exported `color/I.jpg`, `depth/I.png` (millimetres), `pose/I.txt`, `intrinsic/intrinsic_color.txt`
with unpadded numbers I; prepared `color_90`, `depth_90`, `pose_90.txt`, which are every third of
the first 270 frames. Poses are camera to world; lost frames are all -inf.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.datasets.cameras import known_K, known_poses, lost_notes
from dyn3r.datasets.files import (
    image_files,
    listing,
    per_file,
    read_depth_png,
    read_rgb,
    read_table,
)
from dyn3r.datasets.sens import open_sens
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.images import natural_key, visible_files

UNUSABLE = ("scene0711_00", "scene0737_00", "scene0750_00", "scene0761_00", "scene0791_00",
            "scene0796_00")  # fmt: skip
"""Test scenes that published pose scores leave out: their poses have infinities."""

EXPORTED = ("color", "depth", "pose", "intrinsic")
PREPARED = ("color_90", "depth_90", "pose_90.txt")
FPS, PREPARED_STRIDE = 30.0, 3
PER_METRE = 1000.0


def sequences(root: Path) -> list[Sequence]:
    """Every scene of `root`, of `root/scans`, or the scene `root`.

    The images are those of the colour camera; depth has its own size. A prepared scene has K only
    if its folder `intrinsic` was kept.

    Raises:
        InputError: no scene, a scene that lacks folders, counts that differ, damaged files.
    """
    base = root / "scans" if (root / "scans").is_dir() else root
    children = sorted(p for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
    folders = [root] if _is_scene(root) else [p for p in children if _is_scene(p)]
    out = [sequence for folder in folders for sequence in _scenes(folder)]
    if not out:
        raise InputError(
            f"{root} is not ScanNet: expected SCENE/SCENE.sens, SCENE/{{{','.join(EXPORTED)}}} or "
            f"SCENE/{{{','.join(PREPARED)}}}, found {listing(base)}"
        )
    return sorted(out, key=lambda sequence: sequence.name)


def _is_scene(folder: Path) -> bool:
    names = (*EXPORTED, *PREPARED)
    return any((folder / name).exists() for name in names) or any(folder.glob("*.sens"))


def _scenes(folder: Path) -> list[Sequence]:
    recordings = sorted(folder.glob("*.sens"))
    if recordings:
        return [_from_sens(file) for file in recordings]
    if all((folder / name).is_dir() for name in EXPORTED):
        return [_exported(folder)]
    if all((folder / name).exists() for name in PREPARED):
        return [_prepared(folder)]
    raise InputError(
        f"{folder} is an incomplete scene: expected {', '.join(EXPORTED)}, or "
        f"{', '.join(PREPARED)}, found {listing(folder)}"
    )


def _from_sens(file: Path) -> Sequence:
    recording = open_sens(file)
    n = len(recording.places)
    T = known_poses(recording.poses, file)
    return Sequence(
        name=file.stem,
        frame_names=tuple(str(i) for i in range(n)),
        image=recording.image,
        depth=recording.depth,
        T_world_camera=T,
        K=known_K(np.tile(recording.K, (n, 1, 1)), file),
        fps=FPS,
        notes=lost_notes(T),
    )


def _exported(folder: Path) -> Sequence:
    files = sorted(
        (f for f in visible_files(folder / "pose") if f.suffix == ".txt"), key=natural_key
    )
    images, depths = image_files(folder / "color"), image_files(folder / "depth")
    _same_names(folder, color=images, depth=depths, pose=files)
    poses = np.stack([_matrix(file) for file in files])
    return _pictures(folder, images, depths, known_poses(poses, folder / "pose"))


def _prepared(folder: Path) -> Sequence:
    images, depths = image_files(folder / "color_90"), image_files(folder / "depth_90")
    _same_names(folder, color_90=images, depth_90=depths)
    source = folder / "pose_90.txt"
    poses = known_poses(read_table(source, 16).reshape(-1, 4, 4), source)
    if len(poses) != len(images):
        raise InputError(f"{source} has {len(poses)} poses for {len(images)} pictures of color_90")
    return _pictures(folder, images, depths, poses, stride=PREPARED_STRIDE)


def _pictures(
    folder: Path,
    images: list[Path],
    depths: list[Path],
    T: Float[np.ndarray, "n 4 4"],
    stride: int = 1,
) -> Sequence:
    calibration = folder / "intrinsic" / "intrinsic_color.txt"
    K = None
    if stride == 1 or calibration.is_file():
        matrix = _matrix(calibration)[:3, :3]
        K = known_K(np.tile(matrix, (len(images), 1, 1)), calibration)
    return Sequence(
        name=folder.resolve().name,
        frame_names=tuple(f.stem for f in images),
        image=per_file(images, read_rgb),
        depth=per_file(depths, partial(read_depth_png, per_unit=PER_METRE)),
        T_world_camera=T,
        K=K,
        fps=FPS / stride,
        prepared_for=None if stride == 1 else "monst3r/scannet",
        notes=lost_notes(T),
    )


def _matrix(file: Path) -> Float[np.ndarray, "4 4"]:
    rows = read_table(file, 4)
    if len(rows) != 4:
        raise InputError(f"{file} has {len(rows)} rows of 4 numbers, expected 4")
    return rows


def _same_names(folder: Path, **files: list[Path]) -> None:
    """Raise InputError unless all lists have the same names without suffixes."""
    if len({tuple(f.stem for f in each) for each in files.values()}) > 1:
        counts = ", ".join(f"{len(each)} of {name}" for name, each in files.items())
        raise InputError(f"{folder}: files do not match by name: {counts}")
