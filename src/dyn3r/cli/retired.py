"""Options of `dyn3r run` that have a new name, for scripts that still use the old one."""

from __future__ import annotations

from collections.abc import Sequence

RETIRED = {
    "--bundle": "--refinement.bundle-adjustment",
    "--cameras": "--known.cameras",
    "--cameras-are": "--known.fixed (on or off)",
    "--continue-from": "--resume",
    "--flow": "--flow.estimator",
    "--flow-term": "--flow.in-alignment",
    "--no-flow-term": "--flow.in-alignment off",
    "--fov": "--known.fov",
    "--graph": "--pairs",
    "--live": "--live of dyn3r stream",
    "--memory-gb": "--inference.memory-gb",
    "--mode": "dyn3r stream, a command of its own (frame by frame)",
    "--motion": "--motion.cue, or --known.masks for a folder of masks",
    "--mover-depth": "--refinement.ground-contact",
    "--overlap": "--alignment.overlap",
    "--pixels": "--alignment.pixels",
    "--port": "--port of dyn3r stream",
    "--refine": "--motion.refine",
    "--second-pass": "--motion.second-pass",
    "--stereo": "--refinement.multi-view-depth",
    "--window": "--alignment.window",
}
"""Old option -> what it is now."""
REMOVED = {
    "--solver": "the published solver is an oracle of the tests; alignment has one solver",
}
"""Old option -> why it is gone."""


def retired_option(arguments: Sequence[str]) -> str | None:
    """One line about the first old option among the arguments; None if there is none."""
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name in RETIRED:
            return f"{name} is now {RETIRED[name]}"
        if name in REMOVED:
            return f"{name} is gone: {REMOVED[name]}"
    return None
