"""Order of the quaternions of a path: x y z w, as TUM defines it, or w first, as in MonST3R."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.geometry.epipolar import epipolar_error_px
from dyn3r.io.camera_list import CameraList
from dyn3r.types import Clip

_PUBLISHED_NAME = "pred_traj.txt"  # of MonST3R and Easi3R
_CLEARLY = 0.5  # largest ratio of the errors of two readings
_LARGEST_ERROR = 0.01  # of the right reading, in widths of the image; docs/known-cameras.md
_NEAR_IDENTITY = 1 + 2 * np.cos(np.radians(5))  # trace of a rotation by 5 degrees


def with_quaternion_order(
    listing: CameraList, clip: Clip, rows: list[int | None], source: Path
) -> CameraList:
    """The list with one reading of its quaternions; a list that has one already stays.

    The images decide if tracked points fit the epipolar geometry of one reading. Otherwise (nearly
    straight paths, little texture) a rotation near identity does, as the world of a path is often
    that of one of its cameras. If it is there with w first only, the file must be named as MonST3R
    and Easi3R name theirs: it may also be a camera that is upside down to its world (y up).

    Raises:
        InputError: both readings are plausible.
    """
    if listing.T_w_first is None or listing.T_world_camera is None:
        return listing
    known = np.array([t for t, row in enumerate(rows) if row is not None])
    picks = [row for row in rows if row is not None]
    last, first = (
        epipolar_error_px(clip.images[known], T[picks])
        for T in (listing.T_world_camera, listing.T_w_first)
    )
    if min(first, last) < _LARGEST_ERROR * clip.size_hw[1] and (
        min(first, last) < _CLEARLY * max(first, last)
    ):
        w_first = first < last
    else:
        w_first = _by_identity(listing.T_world_camera, listing.T_w_first, source)
    if w_first:
        return replace(
            listing, T_world_camera=listing.T_w_first, T_w_first=None,
            remark="quaternions with w first",
        )  # fmt: skip
    return replace(listing, T_w_first=None)


def _by_identity(
    w_last: Float[np.ndarray, "k 4 4"], w_first: Float[np.ndarray, "k 4 4"], source: Path
) -> bool:
    """Whether w is first, by rotations near identity."""
    last, first = (
        bool((np.trace(T[:, :3, :3], axis1=1, axis2=2) > _NEAR_IDENTITY).any())
        for T in (w_last, w_first)
    )
    published = source.name == _PUBLISHED_NAME or (source / _PUBLISHED_NAME).is_file()
    if (first and not last and not published) or (published and first == last):
        raise InputError(
            f"{source} may have quaternions as x y z w or with w first, as MonST3R writes them: "
            "say which with --known.quaternion xyzw or wxyz"
        )
    return published and first
