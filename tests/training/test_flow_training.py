"""Augmentation keeps flow exact; training lowers the loss, resumes exactly, and is measured."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training.quick_world import use_quick_worlds

from dyn3r.cli.main import main
from dyn3r.errors import InputError
from dyn3r.flow.network import FlowNetwork, opposite
from dyn3r.training import flow_augment
from dyn3r.training.flow_augment import FlowPair, augmented, motion_blur
from dyn3r.training.flow_batches import FlowTraining, batch_of, flow_pairs, flow_world
from dyn3r.training.flow_training import (
    evaluate_flow,
    flow_loss,
    matching_loss,
    predict,
    train_flow,
)

pytest.importorskip("numba")
QUICK = FlowTraining(
    steps=4, scenes=1, pairs=1, frames=2, sizes_hw=((32, 48),), coarse_sizes_hw=((32, 32),),
    data_workers=0, evaluate_every=100,
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    use_quick_worlds(monkeypatch)


@pytest.fixture
def pair() -> FlowPair:
    rng = random.Random(4)
    return flow_pairs(flow_world((64, 96), 3, None, 7).sample(1, 2), 1, rng)[0]


def smooth_pair(h: int = 64, w: int = 96) -> FlowPair:
    """A smooth picture and the same one moved by (3, -2) pixels."""
    picture = np.random.default_rng(1).uniform(0, 255, (h + 20, w + 20, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), 4)
    picture = 255 * (picture - picture.min()) / (picture.max() - picture.min())
    images = np.stack([picture[10 : 10 + h, 10 : 10 + w], picture[12 : 12 + h, 7 : 7 + w]])
    flow = np.zeros((2, h, w, 2), np.float32)
    flow[0], flow[1] = (3, -2), (-3, 2)
    y, x = np.mgrid[:h, :w]
    seen = [(x + u >= 0) & (x + u < w) & (y + v >= 0) & (y + v < h) for u, v in ((3, -2), (-3, 2))]
    known = np.ones((2, h, w), bool)
    return FlowPair(images.astype(np.uint8), flow, np.stack(seen), known)


def color_error(pair: FlowPair, k: int) -> float:
    """Median difference of the colours at both ends of the flow."""
    h, w = pair.flow.shape[1:3]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    there = cv2.remap(
        pair.images[1 - k], x + pair.flow[k, ..., 0], y + pair.flow[k, ..., 1], cv2.INTER_LINEAR
    )
    difference = np.abs(there.astype(float) - pair.images[k]).mean(-1)
    return float(np.median(difference[pair.visible[k] & pair.known[k]]))


@pytest.mark.parametrize("seed", range(6))
def test_turning_zooming_and_shifting_keep_flow_exact(seed: int) -> None:
    before = smooth_pair()
    moved = flow_augment._second_moved(before, random.Random(seed))
    assert not np.array_equal(moved.images[1], before.images[1])
    assert color_error(moved, 0) < 2.5
    assert color_error(moved, 1) < 2.5
    wrong = replace(moved, flow=before.flow)
    assert color_error(wrong, 0) > 2 * color_error(moved, 0)


def test_flow_there_and_back_returns(pair: FlowPair) -> None:
    moved = flow_augment._second_moved(pair, random.Random(3))
    h, w = moved.flow.shape[1:3]
    y, x = np.mgrid[:h, :w]
    at = np.rint(np.stack([x, y], -1) + moved.flow[0]).astype(int)
    inside = (at >= 0).all(-1) & (at[..., 0] < w) & (at[..., 1] < h)
    both = moved.visible[0] & moved.known[0] & inside
    u, v = at[both].T
    ok = moved.known[1, v, u] & moved.visible[1, v, u]
    back = moved.flow[0][both] + moved.flow[1, v, u]
    assert ok.sum() > 200
    assert np.median(np.linalg.norm(back[ok], axis=1)) < 0.6


def test_an_overlay_stays_put_and_hides() -> None:
    before = smooth_pair()
    colours, opacity = np.full((64, 96, 3), 200, np.uint8), np.zeros((64, 96), np.float32)
    opacity[20:30, 40:60] = 1
    after = flow_augment._overlaid(before, (colours, opacity))
    on = opacity > 0
    for k in range(2):
        assert (after.images[k][on] == 200).all()
        assert not after.flow[k][on].any()
        assert after.visible[k][on].all()
    # the point left of it and above by the flow moves behind it
    assert before.visible[0, 25, 38]
    assert not after.visible[0, 25, 38]
    assert after.visible[0, 50, 10]


def test_a_mirrored_pair_is_a_mirrored_scene() -> None:
    before = smooth_pair()
    after = flow_augment._mirrored(before)
    assert (after.flow[0] == (-3, -2)).all()
    assert color_error(after, 0) == pytest.approx(color_error(before, 0))


def test_motion_blur_is_along_its_direction_and_keeps_brightness() -> None:
    image = np.zeros((31, 31, 3), np.uint8)
    image[15, 15] = 255
    across = motion_blur(image, 9, 0.0)[..., 0]
    assert (across[15] > 0).sum() >= 8
    assert not across[:15].any()
    assert across.sum(dtype=int) == pytest.approx(255, abs=12)


def test_every_augmentation_gives_valid_pairs(pair: FlowPair) -> None:
    for seed in range(40):
        out = augmented(pair, random.Random(seed))
        assert out.images.dtype == np.uint8
        assert out.images.shape == pair.images.shape
        assert np.isfinite(out.flow).all()
        assert out.visible.dtype == out.known.dtype == np.bool_


def test_the_sky_moves_as_under_a_rotation() -> None:
    world = flow_world((64, 96), 3, None, 7)
    for step in range(12):
        sample = world.sample(1, step)
        sky = ~sample.valid[0, 0].numpy()
        if sky.mean() > 0.05:
            break
    rng = random.Random(0)
    rng.sample = lambda *_: [0, 1]  # type: ignore[method-assign,assignment]
    found = flow_pairs(sample, 1, rng)[0]
    y, x = np.nonzero(sky)
    K = sample.K[0, 0].numpy().astype(float)
    R = [sample.T_world_camera[0, k, :3, :3].numpy().astype(float) for k in (0, 1)]
    ray = R[1].T @ R[0] @ np.linalg.inv(K) @ np.stack([x, y, np.ones_like(x)])
    at = K @ ray
    expected = (at[:2] / at[2]).T - np.stack([x, y], 1)
    np.testing.assert_allclose(found.flow[0][sky], expected, atol=1e-2)


def test_the_perfect_prediction_has_the_least_loss(pair: FlowPair) -> None:
    batch = batch_of([pair])
    found = predict(FlowNetwork(), batch)
    right = found._replace(flow=batch.flow)
    worse = found._replace(flow=batch.flow + 2)
    losses = [float(flow_loss(x, batch)[0].detach()) for x in (right, worse)]
    assert losses[0] < losses[1]


def test_matching_is_best_at_the_true_cells(pair: FlowPair) -> None:
    batch = batch_of([pair])
    h, w = batch.flow.shape[2:]
    gh, gw = h // 8, w // 8
    y, x = np.mgrid[:gh, :gw]
    logits = torch.zeros(2, gh * gw, gh * gw)
    away = torch.zeros(2, gh * gw, gh * gw)
    for k in range(2):
        flow = batch.flow[k, :, 4::8, 4::8].numpy() / 8
        at = np.rint(y + flow[1]).clip(0, gh - 1) * gw + np.rint(x + flow[0]).clip(0, gw - 1)
        s = np.arange(gh * gw)
        logits[k, at.ravel().astype(int), s] = 6.0
        away[k, (at.ravel().astype(int) + gh * gw // 2) % (gh * gw), s] = 6.0
    chance = float(matching_loss(torch.zeros_like(logits), batch))
    assert chance == pytest.approx(np.log(gh * gw), rel=1e-4)
    assert float(matching_loss(logits, batch)) < chance < float(matching_loss(away, batch))


def test_the_opposite_direction() -> None:
    assert opposite(torch.arange(6)).tolist() == [3, 4, 5, 0, 1, 2]


@pytest.mark.slow
def test_training_resumes_exactly(tmp_path: Path) -> None:
    whole = load_file(train_flow(tmp_path / "whole", QUICK))
    train_flow(tmp_path / "parts", replace(QUICK, steps=4), minutes=0)  # one step
    state = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)
    assert state["step"] == 1
    parts = load_file(train_flow(tmp_path / "parts", QUICK))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-3, rtol=1e-2)
    lines = [json.loads(x) for x in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    assert 0 < lines[-1]["held out first_median"] < 50


def test_errors_are_measured_where_both_frames_show_a_point(pair: FlowPair) -> None:
    batch = batch_of([pair])
    scores = evaluate_flow(FlowNetwork().eval(), [batch])
    seen = batch.known & batch.visible
    away = (batch.first - batch.flow).norm(dim=1)[seen]
    assert scores["first_median"] == pytest.approx(float(away.median()), abs=1e-4)
    assert scores["first_outliers"] == pytest.approx(float((away > 3).float().mean()), abs=1e-6)
    assert 0 <= scores["visible"] <= 1


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        train_flow(tmp_path / "file", QUICK)
    run = tmp_path / "run"
    run.mkdir()
    torch.save({"network": {}, "optimiser": {}, "average": {}, "step": 0}, run / "state.pt")
    with pytest.raises(InputError, match="is damaged, or does not fit"):
        train_flow(run, QUICK)
    for change in ({"steps": 0}, {"frames": 1}, {"coarse_share": 2.0}, {"learning_rate": 0.0}):
        with pytest.raises(InputError):
            replace(QUICK, **change)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "flow", str(tmp_path / "run"), "--steps", "1", "--scenes", "1"]
    arguments += ["--pairs", "1", "--frames", "2", "--data-workers", "0"]
    assert main([*arguments, "--coarse-sizes-hw", "32", "32"]) == 0
    assert "flow.safetensors" in capsys.readouterr().out
    assert load_file(tmp_path / "run" / "flow.safetensors")
