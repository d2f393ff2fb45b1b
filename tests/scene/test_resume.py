"""Resuming an earlier scene: what is kept, what is computed, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyn3r.alignment.options import AlignmentOptions
from dyn3r.errors import InputError
from dyn3r.io.clip import clip_from_images
from dyn3r.motion.options import MotionOptions
from dyn3r.network.model import Model, prepare_model
from dyn3r.options import Options
from dyn3r.pipeline import reconstruct, resume
from dyn3r.scene import Scene
from dyn3r.scene.resume import Continuation, continuation
from dyn3r.types import Clip, Priors, RunContext
from tests.factories import tiny_network, tiny_scene

OPTIONS = Options(
    pairs="swin-2-noncyclic",
    motion=MotionOptions(cue="none"),
    alignment=AlignmentOptions(window=4, pixels=200),
)


@pytest.fixture(scope="module")
def clip() -> Clip:
    random = np.random.default_rng(0)
    wall = random.integers(0, 256, (48, 100, 3), dtype=np.uint8)
    images = np.stack([wall[:, 2 * t : 2 * t + 64] for t in range(8)])
    return clip_from_images(images, size=64, fps=10.0)


def part(clip: Clip, first: int, end: int) -> Clip:
    rows = slice(first, end)
    return replace(
        clip, images=clip.images[rows], names=clip.names[rows], times_s=clip.times_s[rows]
    )


def scene_of(clip: Clip, **changes: object) -> Scene:
    """Plain geometry for the frames of a clip."""
    fields = {
        "images": clip.images, "mapping": clip.mapping, "names": clip.names,
        "times_s": clip.times_s, "frame_quality": np.full(len(clip), 0.5),
    }  # fmt: skip
    return tiny_scene(len(clip), *clip.size_hw, **(fields | changes))


@pytest.fixture(scope="module")
def earlier(clip: Clip) -> Scene:
    return scene_of(part(clip, 0, 5))


def continued(
    clip: Clip, earlier: Scene, *, overlap_frames: int = 2, shared_focal: bool = True
) -> Continuation:
    return continuation(
        clip, earlier, Priors(), overlap_frames=overlap_frames, shared_focal=shared_focal
    )


@pytest.mark.parametrize(
    ("first", "overlap_frames", "skipped", "shared"),
    [(0, 2, 3, 2), (0, 3, 2, 3), (3, 2, 0, 2), (4, 2, 0, 1), (0, 9, 0, 5), (0, 0, 4, 1)],
)
def test_the_last_shared_frames_are_used_again(
    clip: Clip, earlier: Scene, first: int, overlap_frames: int, skipped: int, shared: int
) -> None:
    rest = continued(part(clip, first, 8), earlier, overlap_frames=overlap_frames)
    assert (rest.skipped, rest.shared) == (skipped, shared)
    assert rest.clip.names == clip.names[5 - shared :]


def test_shared_frames_are_priors_of_the_new_ones(clip: Clip, earlier: Scene) -> None:
    rest = continued(clip, earlier, overlap_frames=3)
    known = rest.priors
    assert known.T_world_camera is not None
    assert known.depth is not None
    assert known.K is not None
    np.testing.assert_array_equal(known.T_world_camera[:3], earlier.T_world_camera[2:])
    assert np.isnan(known.T_world_camera[3:]).all()
    rejected = (earlier.confidence[2:] == 0) | (earlier.depth[2:] == 0)
    assert rejected.any()
    np.testing.assert_array_equal(np.isnan(known.depth[:3]), rejected)
    assert np.isnan(known.depth[3:]).all()
    np.testing.assert_array_equal(known.K, np.tile(earlier.K[4], (6, 1, 1)))
    own = continued(clip, earlier, overlap_frames=3, shared_focal=False).priors.K
    assert own is not None
    assert np.isnan(own[-3:]).all()


def test_guessed_cameras_are_no_priors(clip: Clip, earlier: Scene) -> None:
    quality = np.array([0.5, 0.5, 0.5, 0.5, 0.0])
    known = continued(clip, replace(earlier, frame_quality=quality)).priors.T_world_camera
    assert known is not None
    assert np.isfinite(known[0]).all()
    assert np.isnan(known[1]).all()


def test_appending_keeps_the_earlier_scene_exactly(clip: Clip, earlier: Scene) -> None:
    rest = continued(clip, earlier)
    later = scene_of(rest.clip, metadata={"notes": ["frame 3 is dark"], "model": "other"})
    scene = rest.append(later)
    assert scene.names == clip.names
    assert scene.times_s.tolist() == clip.times_s.tolist()
    np.testing.assert_array_equal(scene.images, clip.images)
    for name in ("depth", "confidence", "K", "T_world_camera", "frame_quality", "dynamic"):
        np.testing.assert_array_equal(getattr(scene, name)[:5], getattr(earlier, name))
        np.testing.assert_array_equal(getattr(scene, name)[5:], getattr(later, name)[2:])
    assert scene.metadata["model"] == "other"
    assert scene.metadata["continued_from"]["frames"] == 5
    assert scene.metadata["notes"] == [
        "frames 5 to 7 were added later; the notes that follow count frames from frame 3",
        "frame 3 is dark",
    ]


@pytest.mark.parametrize("unit", [None, "the unit of the known cameras"])
def test_the_unit_is_that_of_the_earlier_scene(clip: Clip, unit: str | None) -> None:
    about = {} if unit is None else {"unit": unit}
    rest = continued(clip, scene_of(part(clip, 0, 5), metadata=about))
    later = scene_of(rest.clip, metadata={"unit": "the unit of the known cameras"})
    assert rest.append(later).unit == (unit or "arbitrary units")


def test_maps_that_only_one_scene_has_are_left_out(clip: Clip, earlier: Scene) -> None:
    rest = continued(clip, replace(earlier, dynamic_map=np.zeros((5, 3, 4), np.float32)))
    assert rest.append(scene_of(rest.clip)).dynamic_map is None


def test_what_cannot_be_resumed_is_refused(clip: Clip, earlier: Scene) -> None:
    refused = {
        "its first frame": part(clip, 5, 8),
        "nothing to add": part(clip, 2, 5),
        "frames are missing": replace(
            part(clip, 0, 4),
            images=clip.images[::2],
            names=clip.names[::2],
            times_s=clip.times_s[::2],
        ),
        "differ from those": replace(clip, images=255 - clip.images),
        "must agree": replace(clip, mapping=replace(clip.mapping, crop_xy=(1, 0))),
    }
    for message, wrong in refused.items():
        with pytest.raises(InputError, match=message):
            continued(wrong, earlier)
    given = Priors(K=np.tile(np.eye(3), (8, 1, 1)))
    with pytest.raises(InputError, match="can't be combined"):
        continuation(clip, earlier, given, overlap_frames=2, shared_focal=True)


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu")


@pytest.mark.slow
def test_only_new_frames_are_computed(model: Model, clip: Clip, tmp_path: Path) -> None:
    first = reconstruct(part(clip, 0, 5), model, OPTIONS)
    saved = Scene.load(first.save(tmp_path / "earlier.dyn3r"))
    totals: list[tuple[str, int]] = []
    masks = np.zeros((8, 48, 64), bool)
    masks[6, :16, :16] = True
    context = RunContext(progress=lambda stage, done, total: totals.append((stage, total)))
    scene = resume(clip, saved, model, OPTIONS, masks=masks, context=context)
    assert scene.names == clip.names
    np.testing.assert_array_equal(scene.depth[:5], saved.depth)
    np.testing.assert_array_equal(scene.T_world_camera[:5], saved.T_world_camera)
    np.testing.assert_array_equal(scene.dynamic[5:], masks[5:])  # masks are for the whole clip
    assert (scene.K[5:] == saved.K[4]).all()
    assert (scene.depth > 0).all()
    # half a window of 4 is used again: two shared frames, and three new ones
    assert max(total for stage, total in totals if stage == "encoding frames") == 5
    again = Scene.load(scene.save(tmp_path / "longer.dyn3r"))
    assert again.metadata["continued_from"]["frames"] == 5
    assert again.metadata["plan"]["priors"]["K"] == "given"
    with pytest.raises(InputError, match="masks"):
        resume(clip, saved, model, OPTIONS, masks=masks[1:])
