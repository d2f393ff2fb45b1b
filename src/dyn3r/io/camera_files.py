"""Known cameras from files of other programs, matched with the frames of a clip.

Intrinsics are converted to those of the prepared frames (docs/conventions.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.geometry.lens import distort, fit_zoom, undistort
from dyn3r.io.arguments import checked_path
from dyn3r.io.camera_layouts import read_camera_list
from dyn3r.io.camera_list import CameraList, QuaternionOrder
from dyn3r.io.matching import Match, Rows, match_rows
from dyn3r.io.numbers import FOCAL_PX, LARGEST_LENGTH, checked_number
from dyn3r.io.quaternion_order import with_quaternion_order
from dyn3r.types import Clip, FrameMapping, Lens, Priors
from dyn3r.types.input_report import InputNote


class KnownCameras(NamedTuple):
    """Cameras of a clip that are known."""

    clip: Clip
    """The clip without lens distortion; its report says how the cameras were matched."""
    priors: Priors
    """For `Options.priors`; NaN for frames without a camera."""


def read_camera_file(
    path: str | Path, clip: Clip, *, fixed: bool = True, quaternion: QuaternionOrder = "auto"
) -> KnownCameras:
    """Read known cameras and match them with the frames of `clip`.

    Layouts, identified by name and content (docs/known-cameras.md):

    - `transforms.json` of nerfstudio and instant-ngp (or the folder that holds it);
    - a folder with a COLMAP model, text or binary (needs the package pycolmap);
    - a text file in the layout of TUM (`t tx ty tz qx qy qz qw`, camera to world; t in seconds
      since the start, absolute, or the number of the frame) or of KITTI (twelve numbers a line);
      a TUM RGB-D folder, or the folder of our export `official`;
    - a folder of Polycam, `metadata.json` of Record3D;
    - an `.npz` with `T_world_camera` or `cam2world` (k, 4, 4), or `K` (3, 3) or (k, 3, 3) at source
      resolution, or both, and optionally `names` (k,).

    K may be that of the source images, of the same images at another size (if the file gives the
    size), or of the prepared frames (as in our exports at the prepared size).

    Rows are matched with frames by name, number, time or order (`dyn3r.io.matching`).

    Args:
        path: the file or folder.
        clip: the frames they belong to.
        fixed: True: the cameras are kept exactly. False: they are the initial values.
        quaternion: order of the quaternions in a TUM path; `auto`: x y z w, or w first where the
            file shows it.

    Raises:
        InputError: nothing there, an unknown or damaged layout, no camera for any frame, two ways
            to match that differ, K of images of another shape, or a lens model that is not
            supported.
        MissingExtraError: a COLMAP model without pycolmap.
    """
    source = checked_path(path, "the cameras")
    height, width = clip.mapping.source_hw
    try:
        with _naming(source):
            listing = read_camera_list(source, (width, height), quaternion)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            MemoryError) as problem:  # fmt: skip
        raise InputError(
            f"{source} can't be read as cameras: {type(problem).__name__} {problem!s:.100}"
        ) from None
    return match_cameras(listing, clip, source, fixed=fixed)


def match_cameras(
    listing: CameraList, clip: Clip, source: Path, *, fixed: bool = True
) -> KnownCameras:
    """Cameras of a list in the order of the clip; `source` is for messages.

    Raises InputError as `read_camera_file` does.
    """
    match = _match(listing, clip, source)
    listing = with_quaternion_order(listing, clip, match.rows, source)
    T = None if listing.T_world_camera is None else _pick(listing.T_world_camera, match.rows)
    K = None
    clip = replace(clip, report=clip.report.adding(_note(match, listing, _broken(match, T))))
    if listing.K is not None:
        with _naming(source):
            K = _at_source(_pick(listing.K, match.rows), match.rows, listing, clip)
            clip, K = _undistorted(clip, K, match.rows, listing, source)
        K = clip.mapping.K_from_source(K)
    _check(T, K, source)
    return KnownCameras(clip, Priors(K=K, T_world_camera=T, fix_K=fixed, fix_T=fixed))


@contextmanager
def _naming(source: Path) -> Iterator[None]:
    """Put the file's name in front of messages that lack it."""
    try:
        yield
    except InputError as problem:
        if str(source) in str(problem):
            raise
        raise InputError(f"{source}: {problem}") from None


def _broken(match: Match, T: Float[np.ndarray, "n 4 4"] | None) -> int:
    """Number of frames whose camera has values that are no numbers."""
    if T is None:
        return 0
    known = np.isfinite(T).all(axis=(1, 2))
    return sum(row is not None and not known[t] for t, row in enumerate(match.rows))


def _note(match: Match, listing: CameraList, broken: int) -> InputNote:
    """How the cameras were matched; a warning where the user should check it."""
    parts = [str(match)]
    if listing.remark:
        parts.append(listing.remark)
    if match.found < len(match.rows):
        parts.append("the others are estimated")
    if broken:
        parts.append(f"{broken} of them have values that are no numbers, and are estimated")
    doubtful = match.is_doubtful or 2 * match.found < len(match.rows)
    return InputNote("cameras", "; ".join(parts), warning=doubtful)


def known_field_of_view(fov_deg: float, clip: Clip, *, fixed: bool = True) -> Priors:
    """Intrinsics from the horizontal field of view of the source: centred, square in the frames.

    Raises InputError unless 1 <= fov_deg <= 170.
    """
    fov_deg = checked_number(fov_deg, "the field of view in degrees", low=1, high=170)
    if clip.mapping.is_mixed:
        raise InputError("one field of view can't hold for images of different sizes")
    height, width = clip.mapping.source_hw
    f_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    f_y = f_px * clip.mapping.pixel_aspect
    K = np.array([[f_px, 0, (width - 1) / 2], [0, f_y, (height - 1) / 2], [0, 0, 1]])
    return Priors(K=clip.mapping.K_from_source(np.tile(K, (len(clip), 1, 1))), fix_K=fixed)


def _match(listing: CameraList, clip: Clip, source: Path) -> Match:
    """Row of the list for each frame of the clip."""
    if listing.T_world_camera is None and len(listing) == 1:
        if clip.mapping.is_mixed:
            raise InputError(f"{source}: one K can't hold for images of different sizes")
        return Match([0] * len(clip), "one K for all")
    rows = Rows(len(listing), listing.names, listing.stamps)
    return match_rows(rows, clip.names, clip.times_s, source)


def _pick(values: np.ndarray, rows: Sequence[int | None]) -> np.ndarray:
    """Values of these rows; NaN where there is none."""
    out = np.full((len(rows), *values.shape[1:]), np.nan)
    for t, row in enumerate(rows):
        if row is not None:
            out[t] = values[row]
    return out


def _at_source(
    K: Float[np.ndarray, "n 3 3"], rows: Sequence[int | None], listing: CameraList, clip: Clip
) -> Float[np.ndarray, "n 3 3"]:
    """Convert K of the file's images to K at source resolution."""
    out = np.array(K)
    for t, row in enumerate(rows):
        if row is None or listing.sizes_wh is None:
            continue
        mapping = clip.mapping.of_frame(t)
        source_wh = np.array(mapping.source_hw[::-1], dtype=np.float64)
        size = listing.sizes_wh[row]
        if tuple(size) == tuple(float(length) for length in clip.images.shape[2:0:-1]):
            out[t] = mapping.K_to_source(K[t])  # of the prepared frames
            continue
        scale = source_wh / size
        stretch = scale[0] / scale[1] * np.array([1.0, mapping.pixel_aspect])  # or of square pixels
        if not ((stretch > 0.98) & (stretch < 1.02)).any():
            raise InputError(
                f"the known cameras are of images of {size[0]:g}x{size[1]:g} pixels, the source "
                f"has {source_wh[0]:g}x{source_wh[1]:g}"
            )
        out[t, :2, :2] *= scale[:, None]
        out[t, :2, 2] = (K[t, :2, 2] + 0.5) * scale - 0.5
    return out


def _undistorted(
    clip: Clip,
    K: Float[np.ndarray, "n 3 3"],
    rows: Sequence[int | None],
    listing: CameraList,
    source: Path,
) -> tuple[Clip, Float[np.ndarray, "n 3 3"]]:
    """The clip without the distortion of its lenses, and K of the undistorted source."""
    known = [t for t, row in enumerate(rows) if row is not None]
    given = [None if row is None or not listing.lenses else listing.lenses[row] for row in rows]
    lenses = [None if lens is None else _with_K(lens, k) for lens, k in zip(given, K)]
    if set(lenses) <= {None}:
        return clip, K
    if not np.isfinite(K[known]).all():
        raise InputError(f"{source} has lens distortion without a focal length")
    if clip.mapping.is_mixed and len(known) < len(rows):
        raise InputError(
            f"{source} has lens distortion, and no camera for some of the images, which differ in "
            "size"
        )
    clip = without_distortion(clip, *_of_all_frames(lenses, known, K))
    for t in known:
        lens = clip.mapping.of_frame(t).lens
        assert lens is not None
        K[t] = lens.K
    return clip, K


def _of_all_frames(
    lenses: Sequence[Lens | None], known: Sequence[int], K: Float[np.ndarray, "n 3 3"]
) -> list[Lens]:
    """A lens of every frame; of one without a camera, that of the nearest frame with one."""
    nearest = [min(known, key=lambda k, t=t: abs(k - t)) for t in range(len(lenses))]  # type: ignore[misc]
    plain = Lens("perspective", (1.0, 1.0), (0.0, 0.0))
    return [lenses[k] or _with_K(plain, K[k]) for k in nearest]


def _with_K(lens: Lens, K: Float[np.ndarray, "3 3"]) -> Lens:
    """The lens in the pixels of K."""
    (fx, _, cx), (_, fy, cy), _ = K.tolist()
    return replace(lens, focal_xy=(fx, fy), centre_xy=(cx, cy))


def without_distortion(clip: Clip, *lenses: Lens) -> Clip:
    """The clip with undistorted frames, the lenses in its mapping, and a note in its report.

    `lenses`: one for all frames, or one for each. They belong to the source. Their zoom is chosen
    so that all pixels of the frames are known. A clip that was undistorted with the same lenses
    stays as it is.

    Raises InputError if it was undistorted with others, or for a lens that can't be undone.
    """
    mapping, fitted = _with_lenses(clip.mapping, lenses)
    if clip.mapping == mapping:
        return clip
    if clip.mapping.is_undistorted:
        raise InputError("the clip was already undistorted with another lens")
    report = clip.report.adding(_lens_note(fitted, mapping))
    overlay = clip.overlay
    if overlay is not None:  # where any frame has it
        grey = np.repeat(np.uint8(255) * overlay[None, ..., None], 3, axis=-1)
        shown = [undistort(grey, replace(mapping, lens=lens, frame_lenses=())) for lens in fitted]
        overlay = np.max(shown, axis=0)[0, ..., 0] > 127
    return replace(
        clip, images=undistort(clip.images, mapping), mapping=mapping, report=report,
        overlay=overlay,
    )  # fmt: skip


def _with_lenses(mapping: FrameMapping, lenses: Sequence[Lens]) -> tuple[FrameMapping, list[Lens]]:
    """The mapping with lenses, one or one for each frame, and the different ones among them."""
    if mapping.is_mixed:
        each = list(lenses) * (len(mapping.frame_mappings) if len(lenses) == 1 else 1)
        own = tuple(
            replace(frame, lens=fit_zoom(lens, frame))
            for frame, lens in zip(mapping.frame_mappings, each, strict=True)
        )
        return replace(mapping, frame_mappings=own), [m.lens for m in own if m.lens is not None]
    fitted = {lens: fit_zoom(lens, mapping) for lens in dict.fromkeys(lenses)}
    if len(fitted) == 1:
        common = next(iter(fitted.values()))
        return replace(mapping, lens=common, frame_lenses=()), [common]
    own_lenses = tuple(fitted[lens] for lens in lenses)
    return replace(mapping, lens=None, frame_lenses=own_lenses), list(fitted.values())


def _lens_note(lenses: Sequence[Lens], mapping: FrameMapping) -> InputNote:
    """What was removed; the largest displacement of a corner of the source."""
    sizes = {own.source_hw for own in mapping.frame_mappings or (mapping,)}
    corners = np.array(
        [[u, v] for height, width in sizes for u in (0, width - 1) for v in (0, height - 1)], float
    )
    moved = [
        np.nan_to_num(np.linalg.norm(distort(lens, corners) - corners, axis=1)).max()
        for lens in lenses
    ]
    lenses = list(dict.fromkeys(lenses))
    models = " and ".join(sorted({lens.model for lens in lenses}))
    each = f", {len(lenses)} lenses" if len(lenses) > 1 else ""
    return InputNote(
        "lens",
        f"{models} distortion removed from the frames{each}: up to {max(moved):.0f} px in a corner "
        "of the source",
    )


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
