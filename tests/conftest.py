"""Shapes in signatures are checked while the tests run (jaxtyping through beartype)."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # shared machines: don't spin at barriers
if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: each needs no threads of its own
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# dyn3r.training's compiled kernels are not Python functions any more: left out
CHECKED = ["alignment", "evaluation", "geometry", "motion", "network.pair_graph", "scene"]
CHECKED += [f"network.{part}" for part in ("heads", "layers", "network", "predict", "rope")]
install_import_hook([f"dyn3r.{name}" for name in CHECKED], "beartype.beartype")
