"""Optical flow: where does every pixel of one frame go in another (SPEC section 7)."""

from dyn3r.flow.dis import DisFlow
from dyn3r.flow.measure import measure_flow
from dyn3r.flow.protocol import FlowEstimator, flow_estimator
from dyn3r.flow.raft import RaftFlow

__all__ = ["DisFlow", "FlowEstimator", "RaftFlow", "flow_estimator", "measure_flow"]
