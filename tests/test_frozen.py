"""Results of every method on one machine, frozen: a refactoring must not change them.

Written by `python -m tests.test_frozen` (float32, one thread) when an algorithm changes on purpose.
Another processor rounds otherwise, hence the tolerances: what they catch is a wrong stage, option
or order, not a last digit. Rotations of world1 by monst3r differ by 0.0023 rad between processors
with and without AVX-512 (float32, the same versions).
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import dyn3r
from dyn3r.assets.demo import demo_clip_folder
from dyn3r.types import Clip

FOLDER = Path(__file__).parent / "golden" / "frozen"
CLIPS = ("bundled", "world1", "world2", "world3")
METHODS = ("refined", "easi3r", "monst3r", "dust3r")
STRIDE = np.s_[:, 4::8, 4::8]
"""Pixels whose depth is kept."""


@cache
def clip(name: str) -> Clip:
    """The bundled clip (24 frames of 224x160), or 8 frames of 160x112 of the synthetic world."""
    if name == "bundled":
        return dyn3r.read_clip(demo_clip_folder() / "frames", size=224)
    below_each_other = cv2.imread(str(FOLDER / f"{name}.png"))[..., ::-1]
    return dyn3r.clip_from_images(below_each_other.reshape(8, 112, 160, 3), size=160, fps=10.0)


@cache
def model() -> dyn3r.Model:
    return dyn3r.load_model("compact", device="cpu", precision="float32")


def result(name: str, method: str) -> dict[str, np.ndarray]:
    """The arrays of a scene that are kept."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        scene = dyn3r.reconstruct(clip(name), model(), dyn3r.Options(method=method))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    none = np.zeros(0)
    return {
        "T_world_camera": scene.T_world_camera,
        "K": scene.K,
        "depth": scene.depth[STRIDE],
        "dynamic": np.packbits(scene.dynamic),
        "frame_quality": none if scene.frame_quality is None else scene.frame_quality,
        "dynamic_map": none if scene.dynamic_map is None else scene.dynamic_map,
    }


ALL = "DYN3R_TEST_FROZEN" in os.environ
"""All of them take minutes: before a release, and when a stage is rewritten."""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CLIPS if ALL else CLIPS[1:2])
def test_results_are_as_they_were(name: str, method: str) -> None:
    now, before = result(name, method), np.load(FOLDER / f"{name}_{method}.npz")
    unit = float(np.median(before["depth"]))
    np.testing.assert_allclose(now["K"], before["K"], rtol=2e-3)
    difference = np.abs(now["T_world_camera"] - before["T_world_camera"])
    assert difference[:, :3, :3].max() < 3e-3
    assert difference[:, :3, 3].max() < 5e-3 * unit
    relative = np.abs(np.log(now["depth"] / before["depth"]))
    assert np.median(relative) < 1e-3
    assert np.quantile(relative, 0.99) < 0.05
    changed = np.unpackbits(now["dynamic"] ^ before["dynamic"]).mean()
    # MonST3R's residual is normalised by its extremes, which are single pixels
    sensitive = method == "monst3r"
    assert changed < (0.05 if sensitive else 2e-3)
    np.testing.assert_allclose(now["frame_quality"], before["frame_quality"], atol=0.01)
    assert now["dynamic_map"].shape == before["dynamic_map"].shape
    if now["dynamic_map"].size:
        change = np.abs(now["dynamic_map"] - before["dynamic_map"]).mean()
        assert change < (0.03 if sensitive else 2e-3)


def main() -> None:
    """Write all results anew."""
    for name in CLIPS:
        for method in METHODS:
            np.savez_compressed(FOLDER / f"{name}_{method}.npz", **result(name, method))
            print(name, method, flush=True)


if __name__ == "__main__":
    main()
