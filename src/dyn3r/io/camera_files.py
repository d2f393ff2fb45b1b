"""Known cameras from files of other programs, matched with the frames of a clip.

Intrinsics are converted to those of the prepared frames (docs/conventions.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.io.arguments import checked_path
from dyn3r.io.camera_layouts import CameraList, read_camera_list
from dyn3r.io.numbers import FOCAL_PX, LARGEST_LENGTH, checked_number
from dyn3r.types import Clip, Priors


def read_camera_file(path: str | Path, clip: Clip, *, fixed: bool = True) -> Priors:
    """Read known cameras and match them with the frames of `clip`.

    Layouts, identified by name and content:

    - `transforms.json` of nerfstudio and instant-ngp (or the folder that holds it);
    - a folder with a COLMAP model, text or binary (needs the package pycolmap);
    - a text file in the layout of TUM (`t tx ty tz qx qy qz qw`, camera to world, seconds) or of
      KITTI (twelve numbers a line);
    - an `.npz` with `T_world_camera` or `cam2world` (k, 4, 4), or `K` (3, 3) or (k, 3, 3) at source
      resolution, or both, and optionally `names` (k,).

    K may be that of the source images, of the same images at another size (if the file gives the
    size), or of the prepared frames (as in our exports at the prepared size).

    Rows are matched with frames by name (without suffixes), by time (TUM), or by order if there are
    as many as frames. A frame without a row is estimated as usual.

    Args:
        path: the file or folder.
        clip: the frames they belong to.
        fixed: True: the cameras are kept exactly. False: they are the initial values.

    Returns:
        Known cameras for `Options.priors`; NaN for frames without one.

    Raises:
        InputError: nothing there, an unknown or damaged layout, no camera for any frame, or K of
            images of another shape.
        MissingExtraError: a COLMAP model without pycolmap.
    """
    source = checked_path(path, "the cameras")
    try:
        listing = read_camera_list(source)
    except InputError as problem:
        raise (
            problem if str(source) in str(problem) else InputError(f"{source}: {problem}")
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            MemoryError) as problem:  # fmt: skip
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
    """Known cameras of named frames, matched with the frames of `clip` as by `read_camera_file`.

    `K_source` belongs to the source images (integer pixel centres), `source` is for messages.
    """
    listing = CameraList(T_world_camera, K_source, stems=[Path(name).stem for name in names])
    return _priors(listing, clip, source, fixed=fixed)


def _priors(listing: CameraList, clip: Clip, source: Path, *, fixed: bool) -> Priors:
    """The cameras of a list in the order of the clip."""
    rows = _match(listing, clip, source)
    T = None if listing.T_world_camera is None else _pick(listing.T_world_camera, rows)
    K = None if listing.K is None else _onto_frames(_pick(listing.K, rows), rows, listing, clip)
    _check(T, K, source)
    return Priors(K=K, T_world_camera=T, fix_K=fixed, fix_T=fixed)


def known_field_of_view(fov_deg: float, clip: Clip, *, fixed: bool = True) -> Priors:
    """Intrinsics from the horizontal field of view of the source: centred, square pixels.

    Raises InputError unless 1 <= fov_deg <= 170.
    """
    fov_deg = checked_number(fov_deg, "the field of view in degrees", low=1, high=170)
    height, width = clip.mapping.source_hw
    f_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    K = np.array([[f_px, 0, (width - 1) / 2], [0, f_px, (height - 1) / 2], [0, 0, 1]])
    return Priors(K=clip.mapping.K_from_source(np.tile(K, (len(clip), 1, 1))), fix_K=fixed)


def _match(listing: CameraList, clip: Clip, source: Path) -> list[int | None]:
    """Row of the list for each frame of the clip, or None."""
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
    """Values of these rows; NaN where there is none."""
    out = np.full((len(rows), *values.shape[1:]), np.nan)
    for t, row in enumerate(rows):
        if row is not None:
            out[t] = values[row]
    return out


def _onto_frames(
    K: Float[np.ndarray, "n 3 3"], rows: Sequence[int | None], listing: CameraList, clip: Clip
) -> Float[np.ndarray, "n 3 3"]:
    """Convert K of the file's images to K of the prepared frames."""
    mapping, out = clip.mapping, np.array(K)
    source_wh = np.array(mapping.source_hw[::-1], dtype=np.float64)
    for t, row in enumerate(rows):
        size = source_wh
        if row is not None and listing.sizes_wh is not None:
            size = np.where(np.isfinite(listing.sizes_wh[row]), listing.sizes_wh[row], source_wh)
        if tuple(size) == tuple(float(length) for length in clip.images.shape[2:0:-1]):
            continue  # already of the prepared frames
        scale = source_wh / size
        if not 0.98 < scale[0] / scale[1] < 1.02:
            raise InputError(
                f"the known cameras are of images of {size[0]:g}x{size[1]:g} pixels, the source "
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
    """Raise InputError for matrices that are no cameras."""
    if T is not None:
        known = T[~np.isnan(T).any(axis=(1, 2))]
        R, t = known[:, :3, :3].clip(-2, 2), known[:, :3, 3]
        skew = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
        rigid = skew <= 1e-3 and (np.linalg.det(R) > 0).all()
        if not rigid or np.abs(known[:, 3] - [0, 0, 0, 1]).max(initial=0.0) > 1e-6:
            raise InputError(f"{source}: camera matrices must be a rotation and a translation")
        if np.abs(t).max(initial=0.0) > LARGEST_LENGTH:
            raise InputError(f"{source}: a camera is farther than {LARGEST_LENGTH:g} away")
    if K is not None:
        known = K[~np.isnan(K).any(axis=(1, 2))]
        focal = known[:, [0, 1], [0, 1]]
        if ((focal <= 0) | (focal < FOCAL_PX[0]) | (focal > FOCAL_PX[1])).any():
            raise InputError(f"{source}: a focal length is not positive, or out of all range")
        if np.abs(known).max(initial=0.0) > FOCAL_PX[1]:
            raise InputError(f"{source}: intrinsics are out of all range")
