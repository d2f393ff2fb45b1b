"""Shapes in signatures are checked while the tests run (jaxtyping through beartype)."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # shared machines: don't spin at barriers
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: each needs no threads of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

SOURCE = Path(__file__).parents[1] / "src"
UNCHECKED = {"__init__", "__main__", "options"}
"""Options refuse wrong values themselves, with messages for people."""


def checked_modules() -> list[str]:
    """Every module but options, the command line and the world's compiled kernels."""
    out = []
    for file in sorted((SOURCE / "dyn3r").rglob("*.py")):
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        if file.stem not in UNCHECKED and not name.startswith(("dyn3r.cli", "dyn3r.training")):
            out.append(name)
    return out


# PEP 484: an int is welcome where a float is
TYPE_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook(checked_modules(), TYPE_CHECKER)
