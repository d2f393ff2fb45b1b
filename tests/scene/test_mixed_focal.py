"""Focal lengths of images of different sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.io.clip import clip_from_images
from dyn3r.motion.options import MotionOptions
from dyn3r.network.model import prepare_model
from dyn3r.options import Options, resolve
from dyn3r.pipeline import reconstruct, resume
from dyn3r.scene.known_cameras import K_known_alone, with_stated_focal
from dyn3r.scene.mixed_focal import HELD_SIGMA, with_common_focal
from dyn3r.types import Clip, Geometry, Priors
from tests.factories import geometry_of, tiny_network

SIZES = ((96, 128), (128, 96), (48, 64), (96, 128), (128, 96))
DIAGONALS = np.array([np.hypot(*hw) for hw in SIZES])


@pytest.fixture(scope="module")
def clip() -> Clip:
    wall = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    images = [wall[2 * t : 2 * t + h, 3 * t : 3 * t + w] for t, (h, w) in enumerate(SIZES)]
    return clip_from_images(images, size=64)


def geometry(clip: Clip, ratios: np.ndarray) -> Geometry:
    """Focal lengths in the sources are the diagonals times `ratios`."""
    h, w = clip.size_hw
    K = np.zeros((5, 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = ratios * DIAGONALS
    K[:, 2, 2] = 1
    K = clip.mapping.K_from_source(K)
    K[:, :2, 2] = (w / 2, h / 2)
    return geometry_of(np.tile(np.eye(4), (5, 1, 1)), K, np.ones((5, h, w)), focal_sigma=0.1)


def in_source(clip: Clip, found: Geometry) -> np.ndarray:
    return clip.mapping.K_to_source(found.K)[:, 0, 0] / DIAGONALS


def test_images_of_one_camera_get_one_focal_length(clip: Clip) -> None:
    ratios = np.array([0.80, 0.82, 0.79, 0.81, 0.83])
    found, held = with_common_focal(geometry(clip, ratios), clip, Priors())
    assert not held
    np.testing.assert_allclose(in_source(clip, found), 0.81, rtol=1e-3)
    assert found.focal_sigma == 0.1
    assert "one camera" in found.diagnostics.notes[-1]


def test_several_cameras_keep_one_for_each_size(clip: Clip) -> None:
    ratios = np.array([0.80, 1.20, 0.79, 0.82, 1.22])
    found, held = with_common_focal(geometry(clip, ratios), clip, Priors())
    assert held
    expected = [0.81, 1.21, 0.79, 0.81, 1.21]
    np.testing.assert_allclose(in_source(clip, found), expected, rtol=1e-3)
    assert found.focal_sigma == HELD_SIGMA
    assert "several cameras" in found.diagnostics.notes[-1]


def test_nothing_changes_for_one_size_or_known_focal_lengths(clip: Clip) -> None:
    start = geometry(clip, np.linspace(0.5, 1, 5))
    assert with_common_focal(start, clip, Priors(K=start.K)) == (start, False)
    plain = replace(clip, mapping=replace(clip.mapping, frame_mappings=()))
    assert with_common_focal(start, plain, Priors()) == (start, False)


def test_stated_focal_lengths_are_known_for_each_image(clip: Clip) -> None:
    stated = replace(clip, focal_px=np.linspace(50, 90, 5), focal_sigma=0.05)
    priors = with_stated_focal(Priors(), stated)
    np.testing.assert_array_equal(priors.K[:, 0, 0], np.linspace(50, 90, 5))
    np.testing.assert_array_equal(priors.K[:, 0, 0], priors.K[:, 1, 1])
    assert K_known_alone(priors, stated) is priors.K
    plain = replace(clip, mapping=replace(clip.mapping, frame_mappings=()))
    assert K_known_alone(priors, plain) is None


@pytest.mark.slow
def test_a_run_and_its_continuation(clip: Clip) -> None:
    model = prepare_model(tiny_network(), "tiny", device="cpu")
    options = Options(method="refined", pairs="complete", motion=MotionOptions(cue="none"))
    assert not resolve(options, model, clip).alignment.shared_focal
    whole = reconstruct(clip, model, options)
    assert np.isfinite(whole.T_world_camera).all()
    ratios = in_source(clip, whole)
    np.testing.assert_allclose(ratios[[0, 1]], ratios[[3, 4]], rtol=1e-6)
    plain = Options(method="dust3r", pairs="complete")
    earlier = reconstruct(clip.part(slice(0, 3)), model, plain)
    later = resume(clip, earlier, model, plain)
    assert later.mapping.frame_mappings == clip.mapping.frame_mappings
    np.testing.assert_array_equal(later.K[:3], earlier.K)
    shuffled = replace(clip, mapping=clip.mapping.part([1, 0, 2, 3, 4]))
    with pytest.raises(InputError, match="must agree"):
        resume(shuffled, earlier, model, plain)
