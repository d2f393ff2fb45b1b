"""Which scenes of an earlier batch are kept: those made with the options that are asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dyn3r.cli.run import Run
from dyn3r.errors import InputError

KEY = "asked"
"""Name of the record in a scene's metadata."""
NOT_COMPARED = frozenset(
    {
        "alignment.device",
        "inference.batch_pairs",
        "inference.memory_gb",
        "inference.spill_folder",
        "windows.memory_gb",
    }
)
"""Options that say how to compute, not what."""
MOST = 3
"""Differences that are named."""


def record(run: Run, weights_sha256: str) -> dict[str, Any]:
    """What decides the scene of a run, by the names of its options, and the model for people."""
    of_run = ("model", "method", "pairs", "fps", "num_frames", "every", "all_frames", "size",
               "precision")  # fmt: skip
    out = {name: getattr(run, name) for name in of_run}
    for stage in ("input", "motion", "flow", "alignment", "refinement", "inference", "windows"):
        values = asdict(getattr(run, stage))
        out |= {f"{stage}.{name}": value for name, value in values.items()}
    kept = {name: value for name, value in out.items() if name not in NOT_COMPARED}
    return {**kept, "weights": weights_sha256}


def scenes_to_remake(runs: Mapping[str, Run], weights_sha256: str) -> dict[str, str]:
    """Name -> why its scene is made again, of the runs that have one of other options."""
    out = {}
    for name, run in runs.items():
        if (run.output / "scene.dyn3r").is_file():
            why = _difference(run, record(run, weights_sha256))
            if why:
                out[name] = why
    return out


def remade(reasons: Mapping[str, str]) -> str:
    """One line that names the scenes that are made again, those of one reason together."""
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return "made again: " + "; ".join(f"{', '.join(n)} ({why})" for why, n in names.items())


def _difference(run: Run, now: dict[str, Any]) -> str:
    """How the scene of a run differs from what is asked for; empty if it is that.

    An option that only one of them knows is another version's, and is not compared.
    """
    from dyn3r.scene.file import read_metadata

    try:
        before = read_metadata(run.output).get(KEY)
    except InputError:
        return "its file is damaged"
    if not isinstance(before, dict):
        return "its options are not recorded"
    compared = (before.keys() & now.keys()) - {"model"}
    other = [name for name in now if name in compared and before[name] != now[name]]
    if not other and run.save_masks and not (run.output / "masks").is_dir():
        return "it has no masks"
    said = [f"{name} was {before[name]}, is {now[name]}" for name in other if name != "weights"]
    if "weights" in other:
        same = before.get("model") == now["model"]
        said.insert(0, "other weights" if same else f"model was {before.get('model')}")
    return ", ".join(said[:MOST]) + (f", {len(said) - MOST} more" if len(said) > MOST else "")
