"""Optical flow: where does every pixel of one frame go in another (SPEC section 7)."""

from __future__ import annotations

from dyn3r.errors import InputError
from dyn3r.flow.dis import DisFlow
from dyn3r.flow.estimator import FlowEstimator
from dyn3r.flow.fields import measure_flow
from dyn3r.flow.raft import RaftFlow

__all__ = ["DisFlow", "FlowEstimator", "RaftFlow", "flow_estimator", "measure_flow"]


def flow_estimator(name: str, device: str = "cpu") -> FlowEstimator:
    """The estimator called `dis`, `raft` or `raft-small`; `device` is where RAFT runs.

    Nothing is loaded before the first flow is asked for. Raises InputError for another name.
    """
    if name == "dis":
        return DisFlow()
    if name in ("raft", "raft-small"):
        return RaftFlow(size="large" if name == "raft" else "small", device=device)
    raise InputError(f"there is no flow estimator '{name}'; choose dis, raft or raft-small")
