"""From a clip to a scene with a tiny untrained many-view network: the plumbing, not the quality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from dyn3r.alignment.many_view import KeptStates, many_view_geometry
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.cli.run import Run
from dyn3r.errors import InputError
from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.options import MotionOptions
from dyn3r.network.model import Model, load_model, prepare_model
from dyn3r.options import FlowOptions, Options, RefinementOptions, resolve
from dyn3r.pipeline import reconstruct, resume
from dyn3r.scene.explanation import Explanation
from dyn3r.scene.findings import Recorder, collect_findings
from dyn3r.streaming import stream_scene
from dyn3r.types import Clip, Priors, RunContext
from tests.factories import moving_square, tiny_network
from tests.network.golden_many_view import golden_many_view, save_folder

FACTS = {"motion_cue": "flow", "bundle": "on", "refine": "edges"}


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(golden_many_view(), "views", device="cpu", facts=FACTS)


def run(model: Model, clip: Clip, options: Options | None = None, **more: Any) -> Any:
    seen: list[str] = []
    context = RunContext(progress=lambda stage, done, total: seen.append(stage))
    return reconstruct(clip, model, options, context=context, **more), seen


def whole(scene: Any, frames: int, hw: tuple[int, int]) -> None:
    assert scene.depth.shape == (frames, *hw)
    assert np.isfinite(scene.depth).all()
    assert (scene.depth > 0).all()
    assert np.isfinite(scene.T_world_camera).all()
    np.testing.assert_allclose(scene.T_world_camera[0], np.eye(4), atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_every_clip_length_gives_a_whole_scene(model: Model, frames: int) -> None:
    scene, seen = run(model, moving_square(frames))
    whole(scene, frames, (48, 64))
    assert scene.metadata["plan"]["method"] == "refined"
    assert "predicting views" in seen
    assert ("bundle adjustment" in seen) == (frames > 1)
    assert "first pass" in scene.metadata["seconds"]
    assert not {"encoding frames", "aligning: depth", "second pass"} & set(seen)


@pytest.mark.slow
def test_portrait_and_no_refinement(model: Model) -> None:
    options = Options(refinement=RefinementOptions(bundle_adjustment=False, multi_view_depth=False))
    scene, seen = run(model, moving_square(3, (64, 48)), options)
    whole(scene, 3, (64, 48))
    assert "bundle adjustment" not in seen
    assert "second pass" not in scene.metadata["seconds"]
    K = scene.K
    np.testing.assert_allclose(K[:, 0, 0], K[0, 0, 0])  # one camera
    np.testing.assert_array_equal(K[:, :2, 2], np.tile([24.0, 32.0], (3, 1)))


def test_windows_give_every_frame_once(model: Model) -> None:
    options = Options(
        method="refined", alignment=AlignmentOptions(window=3),
        motion=MotionOptions(cue="none"),
        refinement=RefinementOptions(bundle_adjustment=False, multi_view_depth=False),
    )  # fmt: skip
    scene, seen = run(model, moving_square(6), options)
    whole(scene, 6, (48, 64))
    assert "measuring flow" not in seen
    assert not scene.dynamic.any()


@pytest.mark.slow
def test_vggt4d_reads_attention_and_takes_cameras_from_a_second_pass(model: Model) -> None:
    recorder = Recorder()
    context, clip = RunContext(observe=recorder), moving_square(5)
    scene = reconstruct(clip, model, Options(method="vggt4d"), context=context)
    whole(scene, 5, (48, 64))
    assert scene.metadata["plan"]["second_pass"]
    assert "second pass" in scene.metadata["seconds"]
    motion = recorder.values["motion"]
    assert isinstance(motion.evidence, AttentionEvidence)
    assert scene.dynamic.any()
    once = reconstruct(
        clip, model, Options(method="vggt4d", motion=MotionOptions(second_pass=False))
    )
    assert any("clusters of moving points" in note for note in scene.metadata["notes"])
    margin = maximum_filter(once.dynamic, (1, 7, 7))
    assert not (scene.dynamic & ~margin).any()  # objects may go, none is added
    np.testing.assert_array_equal(once.depth, scene.depth)
    np.testing.assert_array_equal(once.K, scene.K)
    assert np.abs(once.T_world_camera - scene.T_world_camera).max() > 1e-3
    findings = collect_findings(recorder, context)
    titles = [title for title, _ in Explanation(findings, scene).panels(1)]
    assert "spread QK, shallow" in titles
    assert "residual" in " ".join(titles)


@pytest.mark.slow
@pytest.mark.parametrize("cue", ["flow", "both", "none"])
def test_every_cue_and_its_explanation(model: Model, cue: str) -> None:
    recorder, clip = Recorder(), moving_square(4)
    context = RunContext(observe=recorder)
    options = Options(motion=MotionOptions(cue=cue))  # type: ignore[arg-type]
    scene = reconstruct(clip, model, options, context=context)
    findings = collect_findings(recorder, context)
    assert (findings.attention is not None) == (cue == "both")
    explanation = Explanation(findings, scene)
    assert explanation.picture(0).ndim == 3
    assert ("attention: not read" in explanation.text()) == (cue != "both")


def test_given_masks_and_cameras_are_kept(model: Model) -> None:
    clip = moving_square(4)
    masks = np.zeros((4, 48, 64), bool)
    masks[:, 10:26, 10:30] = True
    K = np.tile(np.array([[60.0, 0, 31], [0, 61, 25], [0, 0, 1]]), (4, 1, 1))
    T = np.tile(np.eye(4), (4, 1, 1))
    T[:, 0, 3] = [0.0, 1.0, 2.5, 3.0]
    options = Options(priors=Priors(K=K, T_world_camera=T))
    scene, _ = run(model, clip, options, masks=masks)
    np.testing.assert_array_equal(scene.dynamic, masks)
    np.testing.assert_array_equal(scene.T_world_camera, T)
    np.testing.assert_array_equal(scene.K, K)


@pytest.mark.slow
def test_later_frames_continue_an_earlier_scene(model: Model) -> None:
    clip = moving_square(6)
    first = replace(clip, images=clip.images[:4], names=clip.names[:4], times_s=clip.times_s[:4])
    earlier = reconstruct(first, model)
    scene = resume(clip, earlier, model)
    assert len(scene) == 6
    np.testing.assert_array_equal(scene.depth[:4], earlier.depth)
    np.testing.assert_array_equal(scene.T_world_camera[:4], earlier.T_world_camera)
    np.testing.assert_array_equal(scene.K[4:, 0, 0], earlier.K[-1, 0, 0])


@pytest.mark.parametrize("method", ["dust3r", "monst3r", "easi3r"])
def test_methods_of_pairs_are_refused(model: Model, method: Any) -> None:
    with pytest.raises(InputError, match=f"method {method} needs a two-view network: views"):
        resolve(Options(method=method), model, moving_square(2))


def test_what_has_no_effect_is_refused(model: Model) -> None:
    pairs = prepare_model(tiny_network(), "pairs", device="cpu")
    clip = moving_square(2)
    with pytest.raises(InputError, match="vggt4d needs a many-view network, and pairs is none"):
        resolve(Options(method="vggt4d"), pairs, clip)
    for both in ((model, pairs), (pairs, model)):
        with pytest.raises(InputError, match="needs two-view networks"):
            resolve(Options(), both[0], clip, motion_model=both[1])
    with pytest.raises(InputError, match="no effect with a many-view"):
        resolve(Options(flow=FlowOptions(in_alignment=True)), model, clip)
    with pytest.raises(InputError, match="streaming needs a two-view network: views"):
        list(stream_scene(clip, model))


def test_without_a_recommendation_the_recipe_is_vggt4d() -> None:
    plain = prepare_model(golden_many_view(), "plain", device="cpu")
    decided = resolve(Options(), plain, moving_square(3))
    assert (decided.method, decided.cue, decided.second_pass) == ("vggt4d", "attention", True)
    assert not decided.measure_flow


@pytest.mark.slow
def test_the_command_takes_a_folder(tmp_path: Path) -> None:
    from PIL import Image

    frames = tmp_path / "frames"
    frames.mkdir()
    for t, image in enumerate(moving_square(3).images):
        Image.fromarray(image).save(frames / f"{t}.png")
    folder = save_folder(tmp_path / "hub")
    Run(frames, tmp_path / "out", model=str(folder), size=64, quiet=True, explain=True)()
    assert (tmp_path / "out" / "scene.dyn3r").is_file()
    assert (tmp_path / "out" / "explain" / "reasons.txt").is_file()
    assert load_model(folder, device="cpu").recommendation.cue == "flow"


def test_a_second_pass_from_kept_states_gives_the_same_cameras(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, options = moving_square(6), AlignmentOptions(window=4)
    dynamic = np.zeros((6, 48, 64), bool)
    dynamic[:, 10:26, 10:30] = True
    kept, none = KeptStates(), KeptStates(most_bytes=0)
    for states in (kept, none):
        many_view_geometry(model, clip, options=options, kept=states)
    assert (len(kept.by_window), len(none.by_window)) == (2, 0)
    whole, _ = many_view_geometry(model, clip, options=options, dynamic=dynamic, kept=none)
    encoded: list[int] = []
    network = model.many_view
    monkeypatch.setattr(network, "encode", lambda *_: encoded.append(1))
    second, _ = many_view_geometry(model, clip, options=options, dynamic=dynamic, kept=kept)
    assert not encoded
    np.testing.assert_array_equal(second.T_world_camera, whole.T_world_camera)
