"""Verdict on a result: how far its parts can be trusted, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from dyn3r.errors import InputError

Grade = Literal["good", "doubtful", "poor"]
GRADES: tuple[Grade, ...] = get_args(Grade)
PARTS = ("cameras", "focal length", "depth", "masks")


@dataclass(frozen=True)
class PartVerdict:
    """Judgement of one part of a result."""

    grade: Grade
    reason: str
    """What was measured, in words."""


@dataclass(frozen=True)
class Verdict:
    """Judgement of a result."""

    parts: dict[str, PartVerdict]
    """By name: those of PARTS that could be judged."""

    def lines(self) -> list[str]:
        """Text, a line for each part."""
        return [f"{name}: {part.grade} ({part.reason})" for name, part in self.parts.items()]

    def worse(self, other: Verdict) -> Verdict:
        """Return the worse judgement of each part."""
        parts = dict(self.parts)
        for name, part in other.parts.items():
            if name not in parts or GRADES.index(part.grade) > GRADES.index(parts[name].grade):
                parts[name] = part
        return Verdict(parts)

    def to_json(self) -> dict[str, dict[str, str]]:
        """Value for `json.dumps`."""
        return {n: {"grade": p.grade, "reason": p.reason} for n, p in self.parts.items()}

    @classmethod
    def from_json(cls, value: Any) -> Verdict:
        """Verdict from `to_json`. Raises InputError for anything else."""
        if not isinstance(value, Mapping):
            raise InputError("a verdict must be an object")
        parts = {}
        for name, part in value.items():
            fields = part if isinstance(part, Mapping) else {}
            grade, reason = fields.get("grade"), fields.get("reason")
            if name not in PARTS or grade not in GRADES or not isinstance(reason, str):
                raise InputError(f"the verdict on {str(name)[:40]!r} is not valid")
            parts[str(name)] = PartVerdict(grade, reason)
        return cls(parts)
