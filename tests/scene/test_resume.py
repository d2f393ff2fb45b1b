"""Going on from an earlier scene, on a tiny untrained network: what is kept, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dyn3r
from dyn3r.alignment import AlignmentOptions
from dyn3r.errors import InputError
from dyn3r.network.model import Model, prepare_model
from dyn3r.scene.resume import go_on
from dyn3r.types import Clip, Priors
from tests.factories import tiny_network

OPTIONS = dyn3r.Options(
    motion="none", graph="swin-2-noncyclic", alignment=AlignmentOptions(window=4, pixels=200)
)


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


@pytest.fixture(scope="module")
def clip() -> Clip:
    random = np.random.default_rng(0)
    wall = random.integers(0, 256, (48, 100, 3), dtype=np.uint8)
    images = np.stack([wall[:, 2 * t : 2 * t + 64] for t in range(8)])
    return dyn3r.clip_from_images(images, size=64, fps=10.0)


@pytest.fixture(scope="module")
def earlier(model: Model, clip: Clip) -> dyn3r.Scene:
    return dyn3r.reconstruct(part(clip, 0, 5), model, OPTIONS)


def part(clip: Clip, first: int, end: int) -> Clip:
    rows = slice(first, end)
    return replace(
        clip, images=clip.images[rows], names=clip.names[rows], times_s=clip.times_s[rows]
    )


@pytest.mark.parametrize("first", [0, 3, 4])
def test_what_is_known_stays_and_what_is_new_follows(
    model: Model, clip: Clip, earlier: dyn3r.Scene, first: int, tmp_path: Path
) -> None:
    saved = dyn3r.Scene.load(earlier.save(tmp_path / "earlier.dyn3r"))
    calls: list[tuple[str, int]] = []
    scene = dyn3r.reconstruct(
        part(clip, first, 8), model, OPTIONS, continue_from=saved,
        progress=lambda stage, done, total: calls.append((stage, total)),
    )  # fmt: skip
    assert scene.names == clip.names
    assert scene.times_s.tolist() == clip.times_s.tolist()
    np.testing.assert_array_equal(scene.images, clip.images)
    for name in ("depth", "confidence", "K", "T_world_camera", "frame_quality", "uncertainty"):
        np.testing.assert_array_equal(getattr(scene, name)[:5], getattr(saved, name))
    assert (scene.K[5:] == saved.K[4]).all()
    assert (scene.depth > 0).all()
    # Half a window of 4 is used again: two frames (one, if only one is shared), and three new ones.
    assert max(total for stage, total in calls if stage == "encoding frames") == min(5, 8 - first)
    assert any("frames 5 to 7 were added" in note for note in scene.metadata["notes"])
    again = dyn3r.Scene.load(scene.save(tmp_path / "longer.dyn3r"))
    assert again.metadata["continued_from"]["frames"] == 5
    assert again.metadata["options"]["alignment"]["priors"]["K"] == "given"


def test_masks_are_for_the_whole_clip(model: Model, clip: Clip, earlier: dyn3r.Scene) -> None:
    masks = np.zeros((8, 48, 64), bool)
    masks[6, :16, :16] = True
    scene = dyn3r.reconstruct(clip, model, OPTIONS, masks=masks, continue_from=earlier)
    np.testing.assert_array_equal(scene.dynamic[5:], masks[5:])
    with pytest.raises(InputError, match="masks"):
        dyn3r.reconstruct(clip, model, OPTIONS, masks=masks[1:], continue_from=earlier)


def test_guessed_cameras_are_not_held(clip: Clip, earlier: dyn3r.Scene) -> None:
    quality = np.array([0.5, 0.5, 0.5, 0.5, 0.0])
    rest = go_on(clip, replace(earlier, frame_quality=quality), OPTIONS.alignment)
    known = rest.alignment.priors.T_world_camera
    assert known is not None
    assert np.isfinite(known[0]).all()
    assert np.isnan(known[1]).all()


def test_what_does_not_go_on_is_refused(clip: Clip, earlier: dyn3r.Scene) -> None:
    plain = AlignmentOptions()
    refused = {
        "its first frame": part(clip, 5, 8),
        "nothing to go on": part(clip, 2, 5),
        "frames are missing": replace(
            part(clip, 0, 4),
            images=clip.images[::2],
            names=clip.names[::2],
            times_s=clip.times_s[::2],
        ),
        "pictures differ": replace(clip, images=255 - clip.images),
        "must agree": replace(clip, mapping=replace(clip.mapping, crop_xy=(1, 0))),
    }
    for message, wrong in refused.items():
        with pytest.raises(InputError, match=message):
            go_on(wrong, earlier, plain)
    with pytest.raises(InputError, match="priors"):
        go_on(clip, earlier, replace(plain, priors=Priors(K=np.zeros((8, 3, 3)))))


def test_the_overlap_ties_new_frames_to_the_old_world(clip: Clip, earlier: dyn3r.Scene) -> None:
    # as sure of every frame as an untrained network can't be
    earlier = replace(earlier, frame_quality=np.full(5, 0.5))
    rest = go_on(clip, earlier, replace(OPTIONS.alignment, window=6))
    assert rest.shared == 3
    assert rest.clip.names == clip.names[2:]
    known = rest.alignment.priors
    assert known.T_world_camera is not None
    assert known.depth is not None
    np.testing.assert_array_equal(known.T_world_camera[:3], earlier.T_world_camera[2:])
    assert np.isnan(known.T_world_camera[3:]).all()
    unsure = earlier.confidence[2:] == 0
    np.testing.assert_array_equal(np.isnan(known.depth[:3]), unsure)
    own = go_on(clip, earlier, replace(OPTIONS.alignment, shared_focal=False)).alignment.priors.K
    assert own is not None
    assert np.isnan(own[-3:]).all()
