"""Cameras that are known already: read from files of other programs, for the alignment to hold to.

Everything is brought to our conventions (docs/conventions.md): camera to world, x right, y down, z
forward, integer pixel centres, intrinsics of the prepared frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.errors import Dyn3rError, InputError, MissingExtraError
from dyn3r.types import Clip, Priors

_MOST_BYTES = 256_000_000
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Listing:
    """Cameras as a file lists them; NaN where a value is not given."""

    T_world_camera: Float[np.ndarray, "k 4 4"] | None
    K: Float[np.ndarray, "k 3 3"] | None = None
    """Integer pixel centres."""
    sizes_wh: Float[np.ndarray, "k 2"] | None = None
    """Pixels of the pictures that K belongs to; None or NaN: those of the source."""
    stems: Sequence[str] = ()
    """Names of the pictures, less endings; none: rows in the order of the frames."""
    times_s: Float[np.ndarray, " k"] | None = None


def read_camera_file(path: str | Path, clip: Clip, *, fixed: bool = True) -> Priors:
    """Read known cameras and bring them onto the frames of `clip`.

    Layouts, told by name and content:

    - `transforms.json` of nerfstudio and instant-ngp (or the folder that holds it);
    - a folder with a COLMAP model, text or binary (needs the package pycolmap);
    - a text file in the layout of TUM (`t tx ty tz qx qy qz qw`, camera to world, seconds) or of
      KITTI (twelve numbers a line);
    - an `.npz` with `T_world_camera` or `cam2world` (k, 4, 4), or `K` (3, 3) or (k, 3, 3) at source
      resolution, or both, and perhaps `names` (k,).

    K may be that of the source pictures, of the same pictures at another size (if the file says
    so), or, as our exports at the prepared size have it, of the prepared frames.

    Rows are matched with frames by name (less endings), by time (TUM), or by order where there are
    as many as frames. A frame that has no row stays unknown, and is found as always.

    Args:
        path: the file or folder.
        clip: the frames they belong to.
        fixed: True: the cameras hold to the last digit. False: they are a start.

    Returns:
        Known cameras for `AlignmentOptions.priors`; frames without one are NaN.

    Raises:
        InputError: nothing there, an unknown or damaged layout, no camera for any frame, or K of
            pictures of another shape.
        MissingExtraError: a COLMAP model without pycolmap.
    """
    source = Path(path)
    try:
        listing = _read(source)
    except Dyn3rError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
        raise InputError(
            f"{source} can't be read as cameras: {type(problem).__name__} {problem!s:.100}"
        ) from None
    return _priors(listing, clip, source, fixed=fixed)


def priors_from_cameras(
    T_world_camera: Float[np.ndarray, "k 4 4"],
    K_source: Float[np.ndarray, "k 3 3"],
    names: Sequence[str],
    clip: Clip,
    source: Path,
    *,
    fixed: bool = True,
) -> Priors:
    """Known cameras of named frames, brought onto the frames of `clip`; see `read_camera_file`.

    `K_source` belongs to the source images (integer pixel centres), `source` is for messages.
    """
    listing = _Listing(T_world_camera, K_source, stems=[Path(name).stem for name in names])
    return _priors(listing, clip, source, fixed=fixed)


def _priors(listing: _Listing, clip: Clip, source: Path, *, fixed: bool) -> Priors:
    rows = _match(listing, clip, source)
    T = None if listing.T_world_camera is None else _pick(listing.T_world_camera, rows)
    K = None if listing.K is None else _onto_frames(_pick(listing.K, rows), rows, listing, clip)
    _check(T, K, source)
    return Priors(K=K, T_world_camera=T, fix_K=fixed, fix_T=fixed)


def known_field_of_view(fov_deg: float, clip: Clip, *, fixed: bool = True) -> Priors:
    """Intrinsics from the horizontal field of view of the source picture, centred, square pixels.

    Raises InputError unless 1 <= fov_deg <= 170.
    """
    if not 1 <= fov_deg <= 170:
        raise InputError(f"a field of view lies between 1 and 170 degrees, not {fov_deg:g}")
    height, width = clip.mapping.source_hw
    f_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    K = np.array([[f_px, 0, (width - 1) / 2], [0, f_px, (height - 1) / 2], [0, 0, 1]])
    return Priors(K=clip.mapping.K_from_source(np.tile(K, (len(clip), 1, 1))), fix_K=fixed)


def _read(source: Path) -> _Listing:
    if source.is_dir():
        if (source / "transforms.json").is_file():
            return _nerfstudio(source / "transforms.json")
        for folder in (source, source / "sparse" / "0", source / "sparse"):
            if any((folder / f"images{end}").is_file() for end in (".txt", ".bin")):
                return _colmap(folder)
        raise InputError(
            f"{source} holds no cameras: transforms.json, a COLMAP model or a dyn3r scene"
        )
    if not source.is_file():
        raise InputError(f"{source} does not exist")
    if source.stat().st_size > _MOST_BYTES:
        raise InputError(f"{source} is too large for a file of cameras")
    kinds = {".json": _nerfstudio, ".npz": _npz}
    return kinds.get(source.suffix.lower(), _text)(source)


def _npz(source: Path) -> _Listing:
    with np.load(source, allow_pickle=False) as arrays:
        T = next((arrays[name] for name in ("T_world_camera", "cam2world") if name in arrays), None)
        K = arrays.get("K")
        names = [str(name) for name in arrays.get("names", ())]
    if T is None and K is None:
        raise InputError(f"{source} has neither T_world_camera (or cam2world) nor K")
    if T is not None:
        T = _shaped(T, (4, 4), source)
    if K is not None:
        K = _shaped(K[None] if K.ndim == 2 else K, (3, 3), source)
        if len(K) == 1 and T is not None:
            K = np.repeat(K, len(T), axis=0)
        if T is not None and len(K) != len(T):
            raise InputError(f"{source} has {len(T)} cameras and {len(K)} K")
    return _Listing(T, K, stems=[Path(name).stem for name in names])


def _text(source: Path) -> _Listing:
    lines = [line.split("#")[0].replace(",", " ").split() for line in source.open()]
    widths = {len(line) for line in lines if line}
    if widths == {8}:
        from scipy.spatial.transform import Rotation

        table = np.array([line for line in lines if line], dtype=np.float64)
        T = np.tile(np.eye(4), (len(table), 1, 1))
        T[:, :3, 3] = table[:, 1:4]
        T[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
        return _Listing(T, times_s=table[:, 0])
    if widths == {12}:
        table = np.array([line for line in lines if line], dtype=np.float64)
        T = np.tile(np.eye(4), (len(table), 1, 1))
        T[:, :3] = table.reshape(-1, 3, 4)
        return _Listing(T)
    raise InputError(f"{source} is no camera path: TUM has 8 numbers a line, KITTI has 12")


def _nerfstudio(source: Path) -> _Listing:
    content = json.loads(source.read_text())
    frames = content["frames"]
    if not frames:
        raise InputError(f"{source} lists no frames")
    T = np.array([frame["transform_matrix"] for frame in frames], dtype=np.float64)
    if T.shape[1:] == (3, 4):
        T = np.concatenate([T, np.tile([[[0.0, 0, 0, 1]]], (len(T), 1, 1))], axis=1)
    K = np.stack([_nerfstudio_K({**content, **frame}) for frame in frames])
    stems = [Path(frame["file_path"]).stem for frame in frames]
    sizes = np.array([_nerfstudio_size({**content, **frame}) for frame in frames])
    return _Listing(_shaped(T, (4, 4), source) @ _OPENCV_FROM_OPENGL, K, sizes, stems)


def _nerfstudio_K(lens: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
    """In those files integers are pixel corners; a missing focal stays unknown."""
    if "fl_x" in lens:
        f = float(lens["fl_x"])
    elif "camera_angle_x" in lens and "w" in lens:
        f = float(lens["w"]) / 2 / math.tan(float(lens["camera_angle_x"]) / 2)
    else:
        return np.full((3, 3), np.nan)
    cx, cy = (
        float(lens[name]) if name in lens else length / 2
        for name, length in zip(("cx", "cy"), _nerfstudio_size(lens))
    )
    return np.array([[f, 0, cx - 0.5], [0, float(lens.get("fl_y", f)), cy - 0.5], [0, 0, 1]])


def _nerfstudio_size(lens: dict[str, Any]) -> tuple[float, float]:
    return float(lens.get("w", math.nan)), float(lens.get("h", math.nan))


def _colmap(folder: Path) -> _Listing:
    try:
        import pycolmap
    except ImportError:
        raise MissingExtraError("pycolmap", "colmap", "reading a COLMAP model") from None
    try:
        model = pycolmap.Reconstruction(str(folder))
    except Exception as problem:
        raise InputError(f"{folder} is no COLMAP model: {problem!s:.100}") from None
    T, K, sizes, stems = [], [], [], []
    for image in model.images.values():
        if not image.has_pose:
            continue
        matrix = np.eye(4)
        matrix[:3] = image.cam_from_world().inverse().matrix()
        intrinsics = np.array(image.camera.calibration_matrix())
        intrinsics[:2, 2] -= 0.5  # integers are pixel corners there
        T.append(matrix)
        K.append(intrinsics)
        sizes.append((image.camera.width, image.camera.height))
        stems.append(Path(image.name).stem)
    if not T:
        raise InputError(f"{folder} has no registered pictures")
    return _Listing(np.stack(T), np.stack(K), np.array(sizes, dtype=np.float64), stems)


def _shaped(array: np.ndarray, tail: tuple[int, int], source: Path) -> np.ndarray:
    if array.ndim != 3 or array.shape[1:] != tail or not len(array):
        raise InputError(f"{source}: cameras of shape {array.shape}, expected (k, {tail[0]}, ...)")
    return array.astype(np.float64)


def _match(listing: _Listing, clip: Clip, source: Path) -> list[int | None]:
    """For each frame of the clip the row that belongs to it, or None."""
    given = listing.T_world_camera if listing.T_world_camera is not None else listing.K
    assert given is not None
    count, rows = len(given), list[int | None]()
    if listing.times_s is not None:
        gaps = np.abs(clip.times_s[:, None] - listing.times_s[None])
        reach = 0.5 * float(np.median(np.diff(clip.times_s))) if len(clip) > 1 else 0.0
        near = gaps.argmin(axis=1)
        rows = [
            int(k) if gap <= max(reach * 0.999, 1e-4) else None
            for k, gap in zip(near, gaps.min(axis=1))
        ]
    elif listing.stems:
        by_stem = {stem: k for k, stem in enumerate(listing.stems)}
        rows = [by_stem.get(Path(name).stem) for name in clip.names]
    elif count in (1, len(clip)):
        return [0] * len(clip) if count == 1 else list(range(count))
    else:
        raise InputError(
            f"{source} has {count} cameras and the clip {len(clip)} frames: give one for each, "
            "or a layout with names"
        )
    if all(row is None for row in rows):
        raise InputError(
            f"{source}: none of its {count} cameras belongs to a frame of the clip "
            f"(frames are called {clip.names[0]}, ..., at {clip.times_s[0]:g} s and later)"
        )
    return rows


def _pick(values: np.ndarray, rows: Sequence[int | None]) -> np.ndarray:
    out = np.full((len(rows), *values.shape[1:]), np.nan)
    for t, row in enumerate(rows):
        if row is not None:
            out[t] = values[row]
    return out


def _onto_frames(
    K: Float[np.ndarray, "n 3 3"], rows: Sequence[int | None], listing: _Listing, clip: Clip
) -> Float[np.ndarray, "n 3 3"]:
    """K of the pictures that the file is about -> K of the prepared frames."""
    mapping, out = clip.mapping, np.array(K)
    source_wh = np.array(mapping.source_hw[::-1], dtype=np.float64)
    for t, row in enumerate(rows):
        size = source_wh
        if row is not None and listing.sizes_wh is not None:
            size = np.where(np.isfinite(listing.sizes_wh[row]), listing.sizes_wh[row], source_wh)
        if tuple(size) == tuple(float(length) for length in clip.images.shape[2:0:-1]):
            continue  # our own frames, cropped and scaled
        scale = source_wh / size
        if not 0.98 < scale[0] / scale[1] < 1.02:
            raise InputError(
                f"the known cameras are of pictures of {size[0]:g}x{size[1]:g} pixels, the source "
                f"has {source_wh[0]:g}x{source_wh[1]:g}"
            )
        scaled = K[t].copy()
        scaled[:2, :2] *= scale[:, None]
        scaled[:2, 2] = (K[t, :2, 2] + 0.5) * scale - 0.5
        out[t] = mapping.K_from_source(scaled)
    return out


def _check(
    T: Float[np.ndarray, "n 4 4"] | None, K: Float[np.ndarray, "n 3 3"] | None, source: Path
) -> None:
    if T is not None:
        known = T[np.isfinite(T).all(axis=(1, 2))]
        R = known[:, :3, :3]
        flat = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
        if flat > 1e-3 or (np.linalg.det(R) < 0).any():
            raise InputError(
                f"{source}: camera matrices must be a rotation and a shift (scale 1, no mirror)"
            )
    if K is not None:
        known = K[np.isfinite(K).all(axis=(1, 2))]
        if (known[:, 0, 0] <= 0).any() or (known[:, 1, 1] <= 0).any():
            raise InputError(f"{source}: a focal length is not positive")
