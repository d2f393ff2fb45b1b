"""What a run lacks of the published one: then its means do not stand beside published numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dyn3r.evaluation.benchmark import Result
from dyn3r.evaluation.protocols import Protocol


def shortfalls(
    protocol: Protocol, results: Sequence[Result], *, shortened: bool = False
) -> list[str]:
    """What is missing or different, one phrase each; empty for a run of the whole protocol.

    `shortened`: not all frames of the protocol were asked for. Failed sequences count as there:
    the table names them.
    """
    out = _sequences(protocol, {r.sequence for r in results})
    if shortened:
        out.append("not all frames of the protocol")
    frames = sum(r.frames for r in results)
    if not out and protocol.frames not in (None, frames):
        out.append(f"{frames} of {protocol.frames} frames")
    out += [f"{r.sequence}: {', '.join(r.missing)}" for r in results if r.missing]
    wanted = {metric for row in protocol.published for metric in row.values}
    for r in results:
        lacks = sorted(m for m in wanted if not _defined(r.metrics.get(m)))
        if r.status == "ok" and lacks:
            out.append(f"{r.sequence}: no {', '.join(lacks)}")
    return out


def _defined(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _sequences(protocol: Protocol, names: set[str]) -> list[str]:
    """How the sequences differ from those of the published table."""
    if protocol.sequences is None:
        count, n = protocol.count, len(names)
        if count in (None, n):
            return []
        return [f"{n} of {count} sequences" if n < count else f"{n} sequences, not {count}"]
    there = len(names & set(protocol.sequences))
    out = [] if there == len(protocol.sequences) else [
        f"{there} of {len(protocol.sequences)} sequences"
    ]  # fmt: skip
    others = sorted(names - set(protocol.sequences))
    return out + ([f"also {', '.join(others)}"] if others else [])
