"""Camera paths as text: TUM (eight numbers a line) and KITTI (twelve)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.io.camera_list import CameraList, QuaternionOrder, rigid, unit_quaternions
from dyn3r.io.regular_files import read_text

_PUBLISHED_NAME = "pred_traj.txt"  # of MonST3R and Easi3R, which write w first
_IDENTITY = 0.999  # |w| of a rotation by less than 5 degrees


def read_path(source: Path, quaternion: QuaternionOrder = "auto") -> CameraList:
    """Read a text file in the layout of TUM or KITTI.

    Quaternions are x y z w, as TUM defines it, unless the header, `quaternion` or the file itself
    says w first (`_w_is_first`).

    Raises:
        InputError: another layout, numbers that are no camera, or two orders of the quaternions
            that are both plausible.
    """
    text = read_text(source).splitlines()
    lines = [line.split("#")[0].replace(",", " ").split() for line in text]
    widths = {len(line) for line in lines if line}
    if widths not in ({8}, {12}):
        raise InputError(f"{source} is no camera path: TUM has 8 numbers a line, KITTI has 12")
    try:
        table = np.array([line for line in lines if line], dtype=np.float64)
    except ValueError:
        raise InputError(
            f"{source} is no camera path: it holds words that are no numbers"
        ) from None
    if not np.isfinite(table).all():
        raise InputError(f"{source} holds numbers that are not finite")
    T = np.tile(np.eye(4), (len(table), 1, 1))
    if widths == {12}:
        T[:, :3] = table.reshape(-1, 3, 4)
        return CameraList(T)
    return _tum(source, [line for line in text if line.startswith("#")], table, quaternion)


def _tum(
    source: Path, comments: list[str], table: np.ndarray, quaternion: QuaternionOrder
) -> CameraList:
    quaternions = unit_quaternions(table[:, 4:], source)
    w_first = quaternion == "wxyz"
    if quaternion == "auto":
        w_first = _w_is_first(source, comments, quaternions)
    order = [1, 2, 3, 0] if w_first else [0, 1, 2, 3]
    T = rigid(quaternions[:, order], table[:, 1:4])
    remark = "quaternions with w first" if w_first else ""
    return CameraList(T, stamps=table[:, 0], remark=remark)


def _w_is_first(source: Path, comments: list[str], quaternions: Float[np.ndarray, "k 4"]) -> bool:
    """Whether the quaternions are w x y z; False: x y z w, the order of the format.

    A header that names the columns decides. Without one, a path in the world of one of its cameras
    has a rotation near identity: |first| or |last| near 1. The last: the order of the format. The
    first: w is first in a file named as MonST3R and Easi3R name theirs. Under another name it may
    as well be a camera that is upside down to its world (y up): refused.
    """
    named = re.findall(r"\bq_?([wx])", " ".join(comments).lower())
    if named:
        return bool(named[0] == "w")
    first, last = (np.abs(quaternions[:, k]).max() > _IDENTITY for k in (0, 3))
    if source.name == _PUBLISHED_NAME:
        if first == last:
            raise _undecided(source)
        return bool(first)
    if first and not last:
        raise _undecided(source)
    return False


def _undecided(source: Path) -> InputError:
    return InputError(
        f"{source} may have quaternions as x y z w or with w first, as MonST3R writes them: say "
        "which with --known.quaternion xyzw or wxyz"
    )
