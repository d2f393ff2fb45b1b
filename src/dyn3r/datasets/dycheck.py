"""DyCheck iPhone (Gao 2022): hand-held videos of moving things, with LiDAR.

Layouts of a sequence (docs/design/DATASETS.md, 2.8), the first that is found counts:

- the release of Shape of Motion (Wang 2024): that of DyCheck with `flow3d_preprocessed`. Cameras
  are refined by COLMAP, depth is monocular depth aligned to them, the mask is of tracked objects;
- DyCheck: `splits/train.json`, `camera/ID.json`, `rgb/1x/ID.png`, `depth/1x/ID.npy` (LiDAR);
- prepared by Easi3R: `prepare_all_stride10/{rgb,masks,camera,depth_npy}`, every 10th frame.

Frames are those of training camera 0, the one that moves. `scene.json` normalises DyCheck's world;
it is not applied, so that cameras and depth keep their own unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dyn3r.datasets.cameras import (
    inverse_poses,
    json_array,
    known_K,
    known_poses,
    lost_notes,
    read_prepared_cameras,
)
from dyn3r.datasets.colmap_binary import read_colmap_pair
from dyn3r.datasets.files import (
    image_files,
    listing,
    per_file,
    read_index_png,
    read_json,
    read_npy,
)
from dyn3r.datasets.sequence import Sequence
from dyn3r.errors import InputError
from dyn3r.io.images import natural_key, open_image

REFINED, PREPARED = "flow3d_preprocessed", "prepare_all_stride10"
PREPARED_FPS = 3.0
"""A tenth of 30; the prepared layout does not say whether the video had 30 or 60."""
LEAST_INVERSE = 1e-3
"""Smaller inverse depth is unknown."""


class _Split(NamedTuple):
    """Training frames of camera 0 in order of time."""

    names: list[str]
    times_s: Float[np.ndarray, " n"]
    fps: float


def sequences(root: Path) -> list[Sequence]:
    """Every sequence of `root`, or the sequence `root`.

    Raises:
        InputError: no sequence, frames of the split without files, damaged files.
    """
    children = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    folders = [root] if _is_sequence(root) else [p for p in children if _is_sequence(p)]
    if not folders:
        raise InputError(
            f"{root} is not DyCheck iPhone: expected SEQUENCE/splits/train.json with camera, "
            f"depth and rgb, or SEQUENCE/{PREPARED}, found {listing(root)}"
        )
    return [_sequence(folder) for folder in folders]


def _is_sequence(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("splits", "camera", REFINED, PREPARED))


def _sequence(folder: Path) -> Sequence:
    if (folder / "splits" / "train.json").is_file():
        return _refined(folder) if (folder / REFINED).is_dir() else _lidar(folder)
    if (folder / PREPARED).is_dir():
        return _prepared(folder)
    raise InputError(
        f"{folder} is an incomplete sequence: expected splits/train.json or {PREPARED}, "
        f"found {listing(folder)}"
    )


def _refined(folder: Path) -> Sequence:
    """The release of Shape of Motion, whose preprocessed files are all of the 1x pictures."""
    split, base = _split(folder), folder / REFINED
    model = read_colmap_pair(base / "colmap" / "sparse")
    row = {stem: k for k, stem in enumerate(model.stems)}
    missing = [name for name in split.names if name not in row]
    if missing:
        raise InputError(
            f"{base / 'colmap'} has no camera of {len(missing)} of {len(split.names)} training "
            f"frames, the first is {missing[0]}"
        )
    rows = [row[name] for name in split.names]
    depths = _present(base / "aligned_depth_anything_colmap" / "1x", split.names, ".npy")
    masks = _present(base / "track_anything" / "1x", split.names, ".png")
    return Sequence(
        name=folder.resolve().name,
        frame_names=tuple(split.names),
        image=per_file(_present(folder / "rgb" / "1x", split.names, ".png"), _rgb),
        depth=per_file(depths, _depth_of_inverse),
        mask=per_file(masks, _mask),
        T_world_camera=model.T_world_camera[rows],
        K=model.K[rows],
        times_s=split.times_s,
        fps=split.fps,
        unit="arbitrary",
        mask_kind="tracked foreground",
        notes=("lens distortion is left out",) if model.distorted else (),
    )


def _lidar(folder: Path) -> Sequence:
    """DyCheck's own files; there is no mask."""
    split = _split(folder)
    factor = 1 if (folder / "rgb" / "1x").is_dir() else 2
    cameras = [_camera(f) for f in _present(folder / "camera", split.names, ".json")]
    T_camera_world, K, distorted = zip(*cameras)
    scale = np.diag([1 / factor, 1 / factor, 1])
    depths = _present(folder / "depth" / f"{factor}x", split.names, ".npy")
    return Sequence(
        name=folder.resolve().name,
        frame_names=tuple(split.names),
        image=per_file(_present(folder / "rgb" / f"{factor}x", split.names, ".png"), _rgb),
        depth=per_file(depths, _lidar_depth),
        T_world_camera=inverse_poses(np.stack(T_camera_world)),
        K=scale @ np.stack(K),
        times_s=split.times_s,
        fps=split.fps,
        notes=("lens distortion is left out",) if any(distorted) else (),
    )


def _prepared(folder: Path) -> Sequence:
    base = folder / PREPARED
    images, masks = image_files(base / "rgb"), image_files(base / "masks")
    cameras, depths = (
        sorted((base / name).glob(pattern), key=natural_key)
        for name, pattern in (("camera", "*.json"), ("depth_npy", "*.npy"))
    )
    stems = [f.stem for f in images]
    if any([f.stem for f in files] != stems for files in (masks, cameras, depths)):
        raise InputError(
            f"{base}: files do not match by name: {len(images)} of rgb, {len(masks)} of masks, "
            f"{len(cameras)} of camera, {len(depths)} of depth_npy"
        )
    T, K = read_prepared_cameras(cameras)
    return Sequence(
        name=folder.resolve().name,
        frame_names=tuple(stems),
        image=per_file(images, _rgb),
        depth=per_file(depths, _prepared_depth),
        mask=per_file(masks, _mask),
        T_world_camera=T,
        K=K,
        fps=PREPARED_FPS,
        prepared_for="easi3r/dycheck",
        unit="arbitrary",
        mask_kind="tracked foreground",
        notes=lost_notes(T),
    )


def _split(folder: Path) -> _Split:
    """Frames of camera 0; numbers of frames that were dropped leave gaps in the times."""
    file, extra = folder / "splits" / "train.json", folder / "extra.json"
    content = read_json(file)
    try:
        names = [str(name) for name in content["frame_names"]]
    except (KeyError, TypeError):
        raise InputError(f"{file} has no list 'frame_names'") from None
    camera_ids, time_ids = (
        json_array(content, key, (len(names),), file) for key in ("camera_ids", "time_ids")
    )
    fps = float(json_array(read_json(extra), "fps", (), extra))
    if not (np.isfinite(fps) and fps > 0):
        raise InputError(f"{extra} has {fps} frames per second")
    order = [i for i in np.argsort(time_ids, kind="stable") if camera_ids[i] == 0]
    if not order or any(Path(name).name != name for name in names):
        raise InputError(f"{file} has no frames of camera 0, found {len(names)} names {names[:3]}")
    return _Split([names[i] for i in order], time_ids[order] / fps, fps)


def _present(folder: Path, names: list[str], suffix: str) -> list[Path]:
    """Files of the frames. Raises InputError if any is missing."""
    files = [folder / f"{name}{suffix}" for name in names]
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing)} of {len(files)} training frames: expected "
            f"{missing[0]}, found {listing(folder)}"
        )
    return files


def _camera(file: Path) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"], bool]:
    """World to camera, K of the 1x picture, whether there is distortion."""
    content = read_json(file)
    R, centre = (
        json_array(content, key, shape, file)
        for key, shape in (("orientation", (3, 3)), ("position", (3,)))
    )
    if not (np.isfinite(R).all() and np.isfinite(centre).all()):
        raise InputError(f"{file} has a pose that is not finite")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ centre
    f, skew, aspect = (
        float(json_array(content, key, (), file))
        for key in ("focal_length", "skew", "pixel_aspect_ratio")
    )
    cx, cy = json_array(content, "principal_point", (2,), file)
    K = np.array([[f, skew, cx], [0, f * aspect, cy], [0, 0, 1]])
    radial = json_array(content, "radial_distortion", (3,), file)
    tangential = json_array(content, "tangential_distortion", (2,), file)
    distorted = bool(radial.any() or tangential.any())
    return known_poses(T[None], file)[0], known_K(K[None], file)[0], distorted


def _rgb(file: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Colours as stored, black in holes; alpha marks where the LiDAR saw and is no transparency."""
    return np.asarray(open_image(file).convert("RGB"))


def _mask(file: Path) -> Bool[np.ndarray, "h w"]:
    return read_index_png(file) > 0


def _lidar_depth(file: Path) -> Float32[np.ndarray, "h w"]:
    array = read_npy(file)
    if array.ndim != 3 or array.shape[2] != 1:
        raise InputError(f"{file} has the shape {array.shape}, expected LiDAR depth (H, W, 1)")
    return _positive(array[..., 0])


def _depth_of_inverse(file: Path) -> Float32[np.ndarray, "h w"]:
    inverse = _flat(file).astype(np.float64)
    known = np.isfinite(inverse) & (inverse >= LEAST_INVERSE)
    return np.where(known, 1 / np.where(known, inverse, 1), 0).astype(np.float32)


def _prepared_depth(file: Path) -> Float32[np.ndarray, "h w"]:
    return _positive(_flat(file))


def _flat(file: Path) -> np.ndarray:
    array = read_npy(file)
    if array.ndim != 2:
        raise InputError(f"{file} has the shape {array.shape}, expected (H, W)")
    return array


def _positive(depth: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """Depth with 0 for what is not a positive number."""
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
