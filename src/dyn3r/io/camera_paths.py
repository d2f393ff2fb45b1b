"""Camera paths as text: TUM (eight numbers a line) and KITTI (twelve)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dyn3r.errors import InputError
from dyn3r.io.camera_list import CameraList, QuaternionOrder, rigid, unit_quaternions
from dyn3r.io.regular_files import read_text


def read_path(source: Path, quaternion: QuaternionOrder = "auto") -> CameraList:
    """Read a text file in the layout of TUM or KITTI.

    The order of quaternions is that of `quaternion`, else of a header that names the columns.
    Otherwise the list has both readings (`dyn3r.io.quaternion_order`).

    Raises InputError for another layout, and for numbers that are no camera.
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
    values, stamps = unit_quaternions(table[:, 4:], source), table[:, 0]
    w_last = rigid(values, table[:, 1:4])
    w_first = rigid(np.roll(values, -1, axis=1), table[:, 1:4])
    named = re.findall(r"\bq_?([wx])", " ".join(comments).lower())
    if quaternion == "auto" and named:
        quaternion = "wxyz" if named[0] == "w" else "xyzw"
    if quaternion == "auto":
        return CameraList(w_last, stamps=stamps, T_w_first=w_first)
    if quaternion == "wxyz":
        return CameraList(w_first, stamps=stamps, remark="quaternions with w first")
    return CameraList(w_last, stamps=stamps)
