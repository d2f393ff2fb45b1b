"""Measured optical flow between frames (SPEC 7)."""

from __future__ import annotations

from dyn3r.errors import InputError
from dyn3r.flow.dis import DisFlow
from dyn3r.flow.estimator import FlowEstimator
from dyn3r.flow.fields import measure_flow
from dyn3r.flow.raft import RaftFlow

__all__ = ["DisFlow", "FlowEstimator", "RaftFlow", "flow_estimator", "measure_flow"]


def flow_estimator(name: str, device: str = "cpu") -> FlowEstimator:
    """The estimator named `dis`, `raft` or `raft-small`; RAFT runs on `device`.

    Weights are loaded with the first flow. Raises InputError for another name.
    """
    if name == "dis":
        return DisFlow()
    if name in ("raft", "raft-small"):
        return RaftFlow(size="large" if name == "raft" else "small", device=device)
    raise InputError(f"there is no flow estimator '{name}'; choose dis, raft or raft-small")
