"""Waymo Open (Sun 2020), as DUSt3R's script prepares it: street scenes with LiDAR depth.

Layout (docs/design/DATASETS.md, 3.4): `SEGMENT.tfrecord/%05d_C.{jpg,exr,npz}` for the cameras C = 1
to 5. `.exr` is sparse depth in metres; `.npz` holds `intrinsics` (3,3) and `cam2world` (4,4), and
`distortion`, which published training ignores. A list of pairs may lie beside the segments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int

from dyn3r.datasets.cameras import known_K, known_poses
from dyn3r.datasets.exr import read_exr
from dyn3r.datasets.files import listing, numeric, per_file, read_rgb
from dyn3r.datasets.numbered import numbered_files, numbered_frames
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.archives import open_arrays

CAMERAS = (1, 2, 3, 4, 5)
"""Front, front left, front right, side left, side right."""
PAIR_LISTS = ("waymo_pairs_video.npz", "waymo_pairs.npz")
"""MonST3R's list, and DUSt3R's."""


def sequences(root: Path) -> list[Sequence]:
    """Every camera of every segment, named SEGMENT.tfrecord/C; frames are those with depth.

    Raises:
        InputError: another layout; files that do not fit.
    """
    segments = sorted(p for p in root.glob("*.tfrecord") if p.is_dir())
    if not segments:
        raise InputError(
            f"{root} is not prepared Waymo: expected SEGMENT.tfrecord/00000_1.jpg, "
            f"found {listing(root)}"
        )
    found = [_sequence(folder, camera) for folder in segments for camera in _cameras(folder)]
    if not found:
        raise InputError(f"{segments[0]}: expected 00000_1.jpg, found {listing(segments[0])}")
    return found


def _cameras(folder: Path) -> list[int]:
    return [c for c in CAMERAS if next(folder.glob(f"*_{c}.jpg"), None) is not None]


def _sequence(folder: Path, camera: int) -> Sequence:
    images, depths, cameras = (
        numbered_files(folder, rf"(\d+)_{camera}\.{suffix}") for suffix in ("jpg", "exr", "npz")
    )
    depths = {k: file for k, file in depths.items() if k in cameras}
    frames = numbered_frames(images, depths, max(images) + 1)
    return Sequence(
        name=f"{folder.name}/{camera}",
        frame_names=frames.names,
        image=per_file(frames.images, read_rgb),
        depth=per_file(frames.depths, _depth),
        camera=_camera_reader([cameras[k] for k in frames.rows]),
        fps=10.0,
        notes=frames.notes,
    )


def _depth(file: Path) -> Float32[np.ndarray, "h w"]:
    depth = read_exr(file)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _camera_reader(
    files: list[Path],
) -> Callable[[int], tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "4 4"]]]:
    """A reader of K and the camera-to-world transform of a frame."""

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        with open_arrays(files[i]) as arrays:
            K, T = (numeric(arrays.read(key), files[i]) for key in ("intrinsics", "cam2world"))
        if K.shape != (3, 3) or T.shape != (4, 4):
            raise InputError(
                f"{files[i]}: expected intrinsics (3,3) and cam2world (4,4), found {K.shape} and "
                f"{T.shape}"
            )
        return known_K(K[None], files[i])[0], known_poses(T[None], files[i])[0]

    return read


def listed_pairs(root: Path, found: list[Sequence]) -> Int[np.ndarray, "k 4"] | None:
    """Pairs of the list beside the segments; None without a list.

    Rows are (sequence, frame, sequence, frame), indices into `found`: the list may pair two
    cameras. Segments of the list that are not there are left out.

    Raises:
        InputError: a damaged list; a listed frame that its segment lacks; nothing left.
    """
    file = next((root / name for name in PAIR_LISTS if (root / name).is_file()), None)
    if file is None:
        return None
    scenes, names, pairs = _read_pair_list(file)
    there = {s.name.partition("/")[0] for s in found}
    pairs = pairs[np.isin(scenes[pairs[:, 0]], sorted(there))]
    if len(pairs) == 0:
        raise InputError(f"{file} lists no pair of the segments in {root}")
    index = {
        (s.name.partition("/")[0], name): (k, i)
        for k, s in enumerate(found) for i, name in enumerate(s.frame_names)
    }  # fmt: skip
    views = np.concatenate([pairs[:, [0, 1]], pairs[:, [0, 2]]])
    unique, which = np.unique(views, axis=0, return_inverse=True)
    places = np.empty((len(unique), 2), dtype=np.int32)
    for k, (scene, frame) in enumerate(unique):
        place = index.get((str(scenes[scene]), str(names[frame])))
        if place is None:
            listed = f"{scenes[scene]}/{names[frame]}"
            raise InputError(f"{file} lists {listed}, which has no image, depth or camera")
        places[k] = place
    first, second = places[which.reshape(2, -1)]
    return np.concatenate([first, second], axis=1)


def _read_pair_list(file: Path) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "k 3"]]:
    """Names of scenes, names of frames, and rows (scene, frame, frame) of a list."""
    with open_arrays(file) as arrays:
        scenes, names, pairs = (arrays.read(key) for key in ("scenes", "frames", "pairs"))
    scenes, names = np.ravel(scenes).astype(str), np.ravel(names).astype(str)
    pairs = numeric(pairs, file)
    if pairs.ndim != 2 or pairs.shape[1] != 3 or pairs.dtype.kind not in "iu":
        raise InputError(f"{file}: expected pairs (M,3) of indices, found {pairs.shape}")
    pairs = pairs.astype(np.int64)
    limits = (len(scenes), len(names), len(names))
    if ((pairs < 0) | (pairs >= limits)).any():
        raise InputError(f"{file}: pairs point beyond its {len(scenes)} scenes or its frames")
    return scenes, names, pairs
