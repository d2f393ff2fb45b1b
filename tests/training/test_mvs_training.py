"""Training of the depth network: cached clips, the truth in their units, optimisation."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from tests.factories import tiny_network
from tests.mvs.walls import SIZE, sideways, walls
from tests.training.quick_world import use_quick_worlds

import dyn3r.training.synthetic.world
from dyn3r.errors import GeometryError, InputError
from dyn3r.mvs.depth_network import (
    FRAME_CHANNELS,
    MIN_LOG_INVERSE,
    PRIOR_CHANNEL,
    DepthNetwork,
)
from dyn3r.mvs.estimate import WEIGHTS, load_depth_network
from dyn3r.mvs.plane_sweep import CHANNELS, Sweep
from dyn3r.network.model import Model, prepare_model
from dyn3r.training import mvs_clips
from dyn3r.training import mvs_training as training
from dyn3r.training.clip_cache import load_clips
from dyn3r.training.mvs_clips import (
    DepthTraining,
    render_clips,
    training_sample,
    units_per_metre,
)
from dyn3r.training.mvs_training import _batch, depth_loss, evaluate_depth, train_depth

TINY = DepthTraining(
    reconstructed=1, perturbed=1, frames=3, sizes_hw=((48, 64), (64, 48)), steps=2, batch=2, seed=3
)


@pytest.fixture(scope="module")
def model() -> Model:
    return prepare_model(tiny_network(), "tiny", device="cpu", facts={"bundle": "on"})


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Path:
    """Both clips, rendered by one call."""
    folder = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        use_quick_worlds(patch)
        render_clips(folder, TINY, model)
    return folder


@pytest.mark.slow
def test_a_clip_is_what_the_network_reads_and_what_it_should_say(rendered: Path) -> None:
    for index, (h, w) in enumerate(TINY.sizes_hw):
        with np.load(rendered / "clips" / f"{index:05d}.npz") as clip:
            assert clip["frame"].shape == (3, FRAME_CHANNELS, h, w)
            assert clip["frame"].dtype == clip["true"].dtype == np.float16
            assert clip["sweep"].shape == (3, CHANNELS, h // 2, w // 2)
            assert clip["sweep"].dtype == np.uint8
            assert clip["true"].shape == clip["moving"].shape == (3, h, w)
            assert np.isfinite(clip["frame"]).all()
            assert clip["true"].min() >= MIN_LOG_INVERSE
            assert clip["true"].max() <= 3


@pytest.mark.slow
def test_clips_without_geometry_are_left_out(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reconstructed_clip(index: int, *_: object) -> dict[str, np.ndarray]:
        if index == 0:
            raise GeometryError("nothing to hold on to")
        return {"true": np.zeros((1, 16, 16))}

    monkeypatch.setattr(mvs_clips, "reconstructed_clip", reconstructed_clip)
    monkeypatch.setattr(mvs_clips, "perturbed_clip", lambda *_: {"true": np.zeros((1, 16, 16))})
    monkeypatch.setattr(dyn3r.training.synthetic.world, "World", lambda settings, seed: None)
    render_clips(tmp_path, TINY, model)
    assert [file.name for file in (tmp_path / "clips").iterdir()] == ["00001.npz"]


def found_clip(unit: float = 1.0) -> dict[str, np.ndarray]:
    """Walls, reconstructed without an error in other units of length."""
    images, found = walls(sideways())
    T = found.T_world_camera.copy()
    T[:, :3, 3] *= unit
    return {
        "images": images, "depth": (found.depth * unit).astype(np.float32),
        "dynamic": np.zeros((5, *SIZE), bool), "K": found.K, "T": T,
        "true_depth": found.depth.astype(np.float32), "moving": np.zeros((5, *SIZE), bool),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1.0, 0.2, 30.0])
def test_the_truth_is_in_the_units_of_the_cameras_found(unit: float) -> None:
    clip = training_sample(found_clip(unit))
    # where the input depth is right it is the target
    np.testing.assert_allclose(clip["true"], clip["frame"][:, PRIOR_CHANNEL], atol=5e-3)


def test_the_unit_is_taken_where_the_sweep_confirms_the_depth() -> None:
    found = found_clip(2.0)
    found["depth"][:, :, :60] *= 1.6  # most of it is wrong
    assert units_per_metre(found, []) == pytest.approx(3.2)
    best = torch.from_numpy(1 / (2 * found["true_depth"][0, ::2, ::2])).float()
    channels = torch.stack([best, torch.zeros_like(best)])
    sweeps = [Sweep(channels, max_inverse_depth=1.0, plane_spacing_px=1.0)] * 5
    assert units_per_metre(found, sweeps) == pytest.approx(2.0, rel=0.02)
    blind = [Sweep(channels, max_inverse_depth=1.0, plane_spacing_px=0.01)] * 5
    assert units_per_metre(found, blind) == pytest.approx(3.2)


def test_the_sky_is_as_far_as_can_be_said() -> None:
    found = found_clip()
    found["true_depth"][:, :10] = 0
    clip = training_sample(found)
    assert (clip["true"][:, :10] == MIN_LOG_INVERSE).all()
    assert (clip["true"][:, 12:] > -2).all()


def test_the_loss_is_nothing_at_the_truth_and_grows_with_bumps() -> None:
    torch.manual_seed(0)
    true = torch.rand(2, 32, 48)
    assert float(depth_loss(true, true)) == 0
    flat = depth_loss(true + 0.1, true)
    assert float(flat) == pytest.approx(0.1, rel=1e-4)
    bumps = 0.1 * torch.where(torch.rand(2, 32, 48) > 0.5, 1.0, -1.0)
    assert float(depth_loss(true + bumps, true)) > 1.3 * float(flat)
    sky = torch.full((2, 32, 48), MIN_LOG_INVERSE)
    assert float(depth_loss(sky + 0.1, sky)) == pytest.approx(0.03, rel=1e-4)


def test_batches_mirror_everything_together() -> None:
    h, w = 16, 32
    frame = np.zeros((1, FRAME_CHANNELS, h, w), np.float16)
    frame[0, 5, :, :8] = 1  # moves on the left
    frame[0, 6] = np.linspace(-0.5, 0.5, w)
    sweep = np.zeros((1, CHANNELS, h // 2, w // 2), np.uint8)
    sweep[..., :4] = 255
    true = np.zeros((1, h, w), np.float16)
    true[..., :8] = -1
    clip = {"frame": frame, "sweep": sweep, "true": true}
    frames, sweeps, truth = _batch([clip], 40, np.random.default_rng(0))
    left = truth[:, 0, 0] < 0
    assert 5 < left.sum() < 35
    for k in range(40):
        where = truth[k] < 0
        assert where.sum() == h * 8
        assert (frames[k, 5][where] == 1).all()
        assert (sweeps[k][:, where[::2, ::2]] == 1).all()
        assert (frames[k, 6].diff(dim=1) > 0).all()  # bearings are those of the new columns
        torch.testing.assert_close(frames[k, PRIOR_CHANNEL], frames[k, PRIOR_CHANNEL + 1])
    assert frames[:, PRIOR_CHANNEL].std() > 0.01  # the depth before is disturbed
    assert frames[:, :3].abs().max() <= 1


def test_batches_have_more_or_less_relief_around_their_median() -> None:
    h, w = 16, 32
    frame = np.zeros((1, FRAME_CHANNELS, h, w), np.float16)
    frame[0, PRIOR_CHANNEL : PRIOR_CHANNEL + 2, :, : w // 2] = 1.0
    sweep = np.zeros((1, CHANNELS, h // 2, w // 2), np.uint8)
    clip = {"frame": frame, "sweep": sweep, "true": np.zeros((1, h, w), np.float16)}
    frames, _, truth = _batch([clip], 200, np.random.default_rng(0))
    before = frames[:, PRIOR_CHANNEL]
    sides = before[..., 4 : w // 2 - 4].mean((1, 2)), before[..., w // 2 + 4 : -4].mean((1, 2))
    step = (sides[0] - sides[1]).abs().log()  # 1 in the clip
    assert abs(float(step.median())) < 0.1
    assert float(step.quantile(0.84) - step.quantile(0.16)) / 2 > 0.2
    assert (truth == 0).all()


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(rendered: Path, tmp_path: Path) -> None:
    # every input depth is wrong by the same factor, which is quickly learnt; the true depth is set
    # here, because an untrained network's reconstruction differs between processors
    (tmp_path / "clips").mkdir()
    for file in (rendered / "clips").iterdir():
        with np.load(file) as stored:
            clip = {name: stored[name] for name in stored.files}
        clip["true"] = np.broadcast_to(
            np.linspace(-2, 0, clip["true"].shape[2], dtype=np.float16), clip["true"].shape
        )
        clip["frame"][:, PRIOR_CHANNEL : PRIOR_CHANNEL + 2] = clip["true"][:, None] + 0.5
        np.savez(tmp_path / "clips" / file.name, **clip)
    options = replace(TINY, steps=80, learning_rate=1e-2)

    def loss_of(network: DepthNetwork) -> float:
        losses = []
        for clips in load_clips(tmp_path, "true", held_out=False).values():
            for clip in clips:
                frame, sweep, true = (
                    torch.from_numpy(clip[name]).float() for name in ("frame", "sweep", "true")
                )
                with torch.inference_mode():
                    losses.append(float(depth_loss(network(frame, sweep / 255), true)))
        return float(np.mean(losses))

    torch.manual_seed(options.seed)
    before = loss_of(DepthNetwork())
    trained = train_depth(tmp_path, options)
    assert loss_of(trained) < 0.8 * before
    assert loss_of(load_depth_network(tmp_path / WEIGHTS)) < 0.9 * before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clips", WEIGHTS]


@pytest.mark.slow
def test_the_same_run_gives_the_same_weights(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(rendered / "clips")
    train_depth(tmp_path, TINY)
    weights = (tmp_path / WEIGHTS).read_bytes()
    train_depth(tmp_path, TINY)
    assert (tmp_path / WEIGHTS).read_bytes() == weights


def test_scores_tell_right_from_wrong_after_one_scale_per_clip() -> None:
    class Answer(DepthNetwork):
        """The second channel after the depth before is the answer."""

        def forward(self, frame: torch.Tensor, sweep: torch.Tensor) -> torch.Tensor:
            return frame[:, 0]

    clip = training_sample(found_clip())
    clip["moving"] = np.zeros((5, *SIZE), bool)
    clip["moving"][:, :, :30] = True
    clip["frame"][:, 0] = clip["true"] + 0.7  # right but for the scale
    clip["frame"][:, PRIOR_CHANNEL + 1] = clip["true"]
    clip["frame"][:, PRIOR_CHANNEL + 1, :, :30] -= np.log(1.5)  # half as far again
    scores = evaluate_depth(Answer(), {SIZE: [clip]})
    assert scores["after"] == pytest.approx(0, abs=2e-3)
    assert scores["moving before"] == pytest.approx(0.5, abs=5e-3)
    assert scores["before"] == pytest.approx(0.5 * 30 / 96, abs=5e-3)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no clips to train on"):
        train_depth(tmp_path, TINY)


@pytest.mark.parametrize("part", ["2/2", "x", "1/0"])
def test_a_part_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, part: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["depth", str(tmp_path), "--part", part])
    with pytest.raises(SystemExit):
        training.main()
    assert "--part is k/m" in capsys.readouterr().err
