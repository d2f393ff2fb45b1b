"""The golden alignment problem: twelve frames, 70 pairs, 48x64, and what Adam reached on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from dyn3r.types import PairPredictions

FOLDER = Path(__file__).parents[1] / "golden"


@cache
def golden() -> dict[str, np.ndarray]:
    """Arrays of golden/alignment.npz; halves are stored as byte planes, depth in 1/6000."""
    stored = dict(np.load(FOLDER / "alignment.npz"))
    out = {}
    for name, array in stored.items():
        if name.endswith("_bytes"):
            halves = np.ascontiguousarray(np.moveaxis(array, 0, -1)).view(np.float16)
            out[name.removesuffix("_bytes")] = halves[..., 0]
        elif name.endswith("_u16"):
            out[name.removesuffix("_u16")] = array.astype(np.float32) / 6000
        else:
            out[name] = array
    shape = out["gt_depth"].shape
    bits = np.unpackbits(out["gt_dynamic"])[: int(np.prod(shape))]
    out["gt_dynamic"] = bits.reshape(shape).astype(bool)
    return out


def golden_predictions() -> PairPredictions:
    """The pairs of the golden problem."""
    g = golden()
    return PairPredictions(g["edges"], 12, g["pts1"], g["conf1"], g["pts2"], g["conf2"])


def small_functions() -> dict[str, np.ndarray]:
    """The golden numbers of small functions: focal, ego, occ, clean."""
    return dict(np.load(FOLDER / "misc_alignment.npz"))
