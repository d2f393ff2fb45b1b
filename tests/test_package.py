"""What `import dyn3r` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dyn3r

HEAVY = ("torch", "cv2", "av", "sklearn", "skimage", "scipy", "viser", "numba", "tyro", "rich")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, dyn3r; print(' '.join(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert [name for name in HEAVY if name in loaded] == []


def test_a_scene_opens_without_the_network() -> None:
    code = "import sys, dyn3r.scene, dyn3r.viewer; print(' '.join(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert [name for name in ("torch", "sklearn", "numba") if name in loaded] == []


def test_every_public_name_is_there() -> None:
    for name in dyn3r.__all__:
        assert getattr(dyn3r, name) is not None
    assert set(dyn3r.__all__) <= set(dir(dyn3r))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = dyn3r.no_such_name  # type: ignore[attr-defined]
