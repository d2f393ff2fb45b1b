"""Recommended processing of a checkpoint: typed facts from the header of its weights file.

The only module that reads these facts. Weights files are untrusted: a value that is not listed here
is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from dyn3r.errors import CheckpointError

Cue = Literal["attention", "flow", "both"]
MaskSmoothing = Literal["none", "edges"]
Value = TypeVar("Value")

_CUES: dict[str, Cue] = {
    "attention": "attention",
    "flow": "flow",
    "both": "both",
    "learned": "flow",  # retired values
    "flow+learned": "flow",
}
_SWITCH = {"on": True, "off": False}
_MOVER_DEPTH = {"ground": True, "network": False}
_SMOOTHING: dict[str, MaskSmoothing] = {"edges": "edges", "none": "none"}


@dataclass(frozen=True)
class Recommendation:
    """Processing that gives the best results with a model, where the user asks for nothing else."""

    cue: Cue = "attention"
    """Motion cue: `attention` (Easi3R), `flow` (residual flow) or `both`."""
    refinement: bool = False
    """Bundle adjustment on optical flow."""
    mvs: bool = None  # type: ignore[assignment]  # replaced below
    """Multi-view depth after refinement; default: as `refinement`."""
    ground_contact: bool = False
    """Depth of moving objects from their ground contact, instead of the network's."""
    mask_smoothing: MaskSmoothing = "none"
    """Smoothing of motion masks: `edges` (temporal voting and guided filter) or `none`."""

    def __post_init__(self) -> None:
        """Set the default of `mvs`."""
        if self.mvs is None:
            object.__setattr__(self, "mvs", self.refinement)

    @classmethod
    def from_facts(cls, facts: Mapping[str, str]) -> Recommendation:
        """Read motion_cue, bundle, stereo, mover_depth and refine; missing entries: the defaults.

        Raises CheckpointError with one line for a value that is not known.
        """
        refinement = _read(facts, "bundle", _SWITCH, default=False)
        return cls(
            cue=_read(facts, "motion_cue", _CUES, default="attention"),
            refinement=refinement,
            mvs=_read(facts, "stereo", _SWITCH, default=refinement),
            ground_contact=_read(facts, "mover_depth", _MOVER_DEPTH, default=False),
            mask_smoothing=_read(facts, "refine", _SMOOTHING, default="none"),
        )


def _read(
    facts: Mapping[str, str], name: str, values: Mapping[str, Value], *, default: Value
) -> Value:
    """Return the value of one fact. Raises CheckpointError for one that is not in `values`."""
    if name not in facts:
        return default
    fact = facts[name]
    if fact not in values:
        raise CheckpointError(
            f"unknown recommendation {name}={fact!r:.40} in the weights file; known values: "
            f"{', '.join(values)}"
        )
    return values[fact]
