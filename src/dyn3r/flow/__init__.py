"""Measured optical flow between frames (SPEC 7)."""

from __future__ import annotations

import os

from dyn3r.errors import InputError
from dyn3r.flow.aligned import AlignedFlow
from dyn3r.flow.compact import CompactFlow
from dyn3r.flow.dis import DisFlow
from dyn3r.flow.estimator import FlowEstimator
from dyn3r.flow.fields import measure_flow, with_neighbours
from dyn3r.flow.raft import RaftFlow

__all__ = [
    "AlignedFlow",
    "CompactFlow",
    "DisFlow",
    "FlowEstimator",
    "RaftFlow",
    "checked_name",
    "flow_estimator",
    "measure_flow",
    "with_neighbours",
]

NAMES = ("aligned-dis", "dis", "compact", "raft", "raft-small")


def checked_name(name: str) -> str:
    """The name of an estimator: one of NAMES, or an existing .safetensors file.

    Raises InputError for another name.
    """
    if name in NAMES or (name.endswith(".safetensors") and os.path.isfile(name)):
        return name
    if name.endswith(".safetensors"):
        raise InputError(f"there is no file {name} for optical flow")
    raise InputError(
        f"there is no flow estimator '{name}'; choose {', '.join(NAMES)}, or a .safetensors file "
        "of `dyn3r train flow`"
    )


def flow_estimator(name: str, device: str = "cpu") -> FlowEstimator:
    """The estimator of a name (`checked_name`); networks run on `device`.

    Weights are loaded with the first flow. Raises InputError for another name.
    """
    if checked_name(name) == "aligned-dis":
        return AlignedFlow()
    if name == "dis":
        return DisFlow()
    if name in ("raft", "raft-small"):
        return RaftFlow(size="large" if name == "raft" else "small", device=device)
    return CompactFlow(None if name == "compact" else name, device=device)
