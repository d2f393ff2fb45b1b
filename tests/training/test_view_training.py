"""Training of many-view networks: samples, losses, steps, resuming, files, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.datasets.plane_world import PlaneWorld, plane_world
from tests.datasets.training_trees import write_truth_folder
from tests.network.golden_many_view import TINY, save_folder, tiny_weights
from tests.training.quick_world import use_quick_worlds

from dyn3r.cli.main import main
from dyn3r.errors import InputError
from dyn3r.geometry.cameras import invert, project, transform, unproject
from dyn3r.network.checkpoints.reader import load_network
from dyn3r.network.many_view.dual_dpt import ViewMaps
from dyn3r.network.many_view.many_view_network import ManyViewNetwork, Views
from dyn3r.network.many_view.ray_cameras import cameras_from_rays
from dyn3r.network.many_view.view_cameras import decode_cameras
from dyn3r.training.batches import _Batches, batch_loader
from dyn3r.training.group import Group
from dyn3r.training.options import RECIPES, TrainOptions
from dyn3r.training.run_log import read_log
from dyn3r.training.run_state import frozen_parts, restore
from dyn3r.training.sets.sources import load_set, parse_data
from dyn3r.training.trainer import _step, train
from dyn3r.training.validation import write_validation_pictures
from dyn3r.training.views.view_losses import code_error, true_rays, view_loss, view_truth
from dyn3r.training.views.view_samples import (
    ViewBatch,
    ViewSample,
    chosen_frames,
    held_out_views,
    patch_size,
)
from dyn3r.training.views.view_task import VIEWS, predict_sample
from dyn3r.training.views.view_validation import evaluate_views

OPTIONS = TrainOptions(
    steps=4, scenes_per_step=2, sizes_hw=((32, 48),), coarse_share=0, warmup_steps=1,
    learning_rate=1e-3, data_workers=0, precision="float32", ema_decay=0, evaluate_every=100,
    validation_pairs=3, views=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(5)


@pytest.fixture(scope="module")
def clips(world: PlaneWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for name in "ab":
        write_truth_folder(root / name, world)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published folder of the tiny network with random weights near an answer."""
    weights = tiny_weights()
    for name in [n for n in weights if n.endswith((".ls1.gamma", ".ls2.gamma"))]:
        weights = {**weights, name: 0.1 * weights[name]}
    return save_folder(tmp_path_factory.mktemp("weights") / "tiny", weights=weights)


@pytest.fixture
def options(clips: Path, start: Path) -> TrainOptions:
    return replace(OPTIONS, data=(f"6@folder:{clips}",), model=str(start))


@pytest.fixture(scope="module")
def sample(clips: Path) -> ViewSample:
    loaded = load_set(parse_data(f"folder:{clips}"))
    return held_out_views(loaded, [0], 3, (28, 42)).samples[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder / "model.safetensors")[0].state_dict()


def perfect(sample: ViewSample, ray_hw: tuple[int, int] = (16, 24)) -> Views:
    """A prediction without error, with confidence 1."""
    truth = view_truth(sample, ray_hw)
    ones = torch.ones_like(truth.depth)
    rays_ones = torch.ones(truth.rays.shape[:-1])
    return Views(ViewMaps(truth.depth, ones, truth.rays, rays_ones), truth.code, -1)


def test_the_loss_of_the_truth_is_zero_and_names_what_is_wrong(sample: ViewSample) -> None:
    right = perfect(sample)
    assert view_loss(right, sample)[0] < 1e-6
    maps = right.maps
    wrong = {
        "depth": replace(right, maps=replace(maps, depth=maps.depth * 1.1)),
        "rays": replace(right, maps=replace(maps, rays=maps.rays + 0.1)),
        "camera": replace(right, code=right.code + 0.1),
    }
    for name, views in wrong.items():
        loss, terms = view_loss(views, sample)
        assert terms[name] > 1e-2, name
        assert float(loss) == pytest.approx(sum(terms[n] for n in terms if n != "loss"), rel=1e-5)
    scaled = view_loss(wrong["depth"], sample)[1]
    truth = view_truth(sample, (16, 24))
    assert scaled["depth"] == pytest.approx(0.1 * float(truth.depth[truth.valid].mean()), rel=1e-4)
    assert scaled["points"] > 0
    assert view_loss(wrong["rays"], sample)[1]["rays"] == pytest.approx(0.1, rel=1e-4)


def test_confidence_is_paid_for(sample: ViewSample) -> None:
    """c e - a log c: with e = 0.05 and a = 0.2 the best confidence is 4."""
    right = perfect(sample)

    def depth_term(confidence: float) -> float:
        maps = right.maps
        sure = replace(maps, depth=maps.depth + 0.05, confidence=confidence + 0 * maps.depth)
        return view_loss(replace(right, maps=sure), sample, alpha=0.2)[1]["depth"]

    assert depth_term(4) < min(depth_term(3.5), depth_term(4.5))


def test_the_unit_is_the_mean_distance_and_the_first_camera_the_world(sample: ViewSample) -> None:
    truth = view_truth(sample, (16, 24))
    T, K = decode_cameras(truth.code.double(), (28, 42))
    torch.testing.assert_close(T[0], torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)
    K[:, :2, 2] -= 0.5
    points = transform(T, unproject(truth.depth.double(), K).flatten(1, 2))
    known = truth.valid.flatten(1)
    # the principal point of the crops is off the centre by up to a pixel
    assert float(points.norm(dim=-1)[known].mean()) == pytest.approx(1, abs=0.02)
    bigger = replace(sample, depth=7 * sample.depth, T_world_camera=sample.T_world_camera.clone())
    bigger.T_world_camera[:, :3, 3] *= 7
    again = view_truth(bigger, (16, 24))
    for name in ("depth", "rays", "code"):
        torch.testing.assert_close(getattr(again, name), getattr(truth, name))


def test_true_rays_are_those_that_cameras_are_read_from() -> None:
    f, T = torch.tensor([60.0, 40.0]), torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    T[1, :3, :3] = torch.linalg.matrix_exp(
        torch.tensor([[0, -0.2, 0.1], [0.2, 0, -0.3], [-0.1, 0.3, 0]], dtype=torch.float64)
    )
    T[1, :3, 3] = torch.tensor([0.3, -0.2, 0.5])
    K = torch.zeros(2, 3, 3, dtype=torch.float64)
    K[:, 0, 0] = K[:, 1, 1] = f
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = 20.5, 13.5, 1
    rays = true_rays(T, K, (28, 42), (16, 24))
    found, focal = cameras_from_rays(rays, 2 + 0 * rays[..., 0], (28, 42))
    torch.testing.assert_close(found, T, atol=1e-6, rtol=0)
    torch.testing.assert_close(focal, f.double()[:, None].expand(2, 2), atol=1e-4, rtol=0)


def test_opposite_quaternions_are_one_rotation() -> None:
    code = torch.tensor([[0.1, 0.2, 0.3, 0.5, -0.5, 0.5, 0.5, 1.0, 1.2]])
    other = torch.cat([code[:, :3], -code[:, 3:7], code[:, 7:]], dim=-1)
    assert code_error(code, other) < 1e-7
    assert code_error(code + 0.1, other) == pytest.approx(0.1, rel=1e-4)


def test_frames_continue_the_pair_at_its_stride(clips: Path) -> None:
    loaded = load_set(parse_data(f"folder:{clips}"))
    rows = [list(map(int, row)) for row in loaded.pairs]
    assert chosen_frames(loaded, rows.index([0, 0, 0, 2]), 8) == [(0, 0), (0, 2), (0, 4)]
    assert chosen_frames(loaded, rows.index([1, 2, 1, 3]), 4) == [(1, 2), (1, 3), (1, 4), (1, 1)]
    assert chosen_frames(loaded, rows.index([0, 0, 0, 4]), 8) == [(0, 0), (0, 4)]


def test_samples_agree_with_their_cameras(options: TrainOptions) -> None:
    """Points of one view, drawn into another, have its depth where nothing moves or hides."""
    batches = list(batch_loader(options, 0, task=VIEWS))
    assert {len(s.images) for b in batches for s in b.samples} <= {2, 3, 4}
    for sample in (s for b in batches for s in b.samples):
        for one in (sample, sample.mirrored()):
            h, w = one.depth.shape[1:]
            assert (h, w) == (28, 42)
            there = transform(
                invert(one.T_world_camera[1]) @ one.T_world_camera[0],
                unproject(one.depth[0].double(), one.K[0]).flatten(0, 1),
            )
            u, v = project(there, one.K[1]).round().long().unbind(-1)
            inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)
            still = inside & ~one.moving[0].flatten()
            still[still.clone()] &= ~one.moving[1][v[still], u[still]]
            assert still.sum() > 100
            error = (there[still, 2] / one.depth[1][v[still], u[still]].double()).log().abs()
            assert error.median() < 0.01


def test_batches_are_the_same_for_any_workers(options: TrainOptions) -> None:
    alone, again = (list(batch_loader(options, first, task=VIEWS)) for first in (0, 2))
    for one, two in zip(alone[2:], again, strict=True):
        for a, b in zip(one.samples, two.samples, strict=True):
            assert torch.equal(a.images, b.images)
            assert a.given == b.given


def test_checkpointing_changes_nothing(start: Path, sample: ViewSample) -> None:
    network, _ = load_network(start)
    assert isinstance(network, ManyViewNetwork)
    network.requires_grad_(True)
    gradients = []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        network.zero_grad()
        view_loss(predict_sample(network, sample), sample)[0].backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, rtol=1e-3, atol=1e-5)


def test_every_weight_is_trained_or_named_as_unused(start: Path, sample: ViewSample) -> None:
    network, _ = load_network(start)
    assert isinstance(network, ManyViewNetwork)
    network.requires_grad_(True)
    for given in (False, True):
        view_loss(predict_sample(network, replace(sample, given=given)), sample)[0].backward()
    unused = frozen_parts(network, freeze_encoder=False)
    idle = {n for n, p in network.named_parameters() if p.grad is None}
    assert idle == {n for n, _ in network.named_parameters() if n.startswith(unused)}
    assert "head.scratch.output_conv2_aux.0.2.weight" not in idle  # the shared norm


@pytest.mark.slow
def test_a_run_freezes_resumes_and_gives_files_of_both_layouts(
    options: TrainOptions, start: Path, tmp_path: Path
) -> None:
    options = replace(options, freeze_encoder=True, accumulate=2, seed=1)
    given = [s.given for batch in batch_loader(options, 0, task=VIEWS) for s in batch.samples]
    assert {True, False} == set(given)
    train(tmp_path / "whole", options)
    train(tmp_path / "parts", options, minutes=0)
    train(tmp_path / "parts", options)
    before, after = load_network(start)[0].state_dict(), weights(tmp_path / "whole")
    encoder = frozen_parts(load_network(start)[0], freeze_encoder=True)  # type: ignore[arg-type]
    frozen = [name for name in before if name.startswith(encoder)]
    assert len(frozen) > 30
    for name in before:
        assert torch.equal(before[name], after[name]) == (name in frozen) or "fc_fov" in name, name
    for name, weight in weights(tmp_path / "parts").items():
        assert torch.equal(weight, after[name]), name
    network, facts = load_network(tmp_path / "whole/model.safetensors")
    assert (facts["steps"], facts["samples"], facts["stereo"]) == ("4", "16", "off")
    published, _ = load_network(tmp_path / "whole/published")
    assert published.config == network.config
    for name, weight in published.state_dict().items():
        assert torch.equal(weight, after[name]), name
    config = json.loads((tmp_path / "whole/published/config.json").read_text())
    assert config["config"]["__object__"]["name"] == "DepthAnything3Net"


@pytest.mark.slow
def test_synthetic_scenes_give_samples(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_quick_worlds(monkeypatch)
    options = replace(OPTIONS, model=str(start), views=3, steps=1)
    (first, second) = (_Batches(options, task=VIEWS)[k] for k in (0, 1))
    assert len(first.samples) == 2
    assert first.samples[0].images.shape[2:] == patch_size((32, 48))
    assert not torch.equal(first.samples[0].images, second.samples[0].images)
    state = restore(Path("none"), options, Group("cpu"))
    losses = _step(state, [first], options, Group("cpu"))
    assert np.isfinite(list(losses.values())).all()


def test_pictures_and_scores_without_depth(
    options: TrainOptions, start: Path, clips: Path, sample: ViewSample, tmp_path: Path
) -> None:
    from dyn3r.training.batches import held_out

    network, _ = load_network(start)
    assert isinstance(network, ManyViewNetwork)
    write_validation_pictures(network, held_out(options, VIEWS), "cpu", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    blank = replace(sample, depth=torch.zeros_like(sample.depth))
    assert evaluate_views(network, [ViewBatch((blank,))], "cpu") == {}
    loss, _ = view_loss(predict_sample(network, blank), blank)
    assert torch.isfinite(loss)


def test_the_recipe_says_what_the_paper_does() -> None:
    """2 to 18 views, frames of 504 pixels, gradient weight 1 (Depth Anything 3, 3.3 and 4)."""
    recipe = RECIPES["da3"]
    assert (recipe.views, recipe.shape_weight, recipe.nearness) == (18, 1, 0)
    assert {patch_size(size)[1] for size in recipe.sizes_hw} == {504}
    VIEWS.check(recipe)


def test_options_of_pairs_are_refused(options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nearness"):
        train(tmp_path / "run", replace(options, nearness=0.5))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="views"):
        replace(options, views=1)


@pytest.mark.slow
def test_a_tiny_network_overfits_and_the_held_out_error_falls(
    options: TrainOptions, clips: Path, tmp_path: Path
) -> None:
    names = tuple(f"20@folder:{clips / name}" for name in "ab")
    options = replace(
        options, data=names[:1], validation=names[1:], steps=60, learning_rate=3e-3,
        warmup_steps=5, validation_pairs=2, views=3,
    )  # fmt: skip
    train(tmp_path, options)
    log = read_log(tmp_path)
    scores = [row for row in log if "held_out_loss" in row]
    before, after = scores[0], scores[-1]
    for score in ("held_out_loss", "held_out_point_error", "held_out_abs_rel"):
        assert after[score] < 0.5 * before[score], score


@pytest.mark.slow
def test_the_command_checks_trains_and_the_result_runs(
    clips: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(tmp_path / "run"), "--model", str(start), "--freeze-encoder",
             "--data", f"4@folder:{clips}", "--device", "cpu", "--steps", "2", "--views", "3",
             "--scenes-per-step", "2", "--sizes-hw", "32", "48", "--coarse-share", "0",
             "--data-workers", "0", "--precision", "float32"]  # fmt: skip
    assert main([*words, "--check"]) == 0
    said = capsys.readouterr().out
    assert "step: 1 x (3 + 3) views" in said
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["check.png"]
    assert main(words) == 0
    capsys.readouterr()
    result = tmp_path / "run/model.safetensors"
    assert main(["models", "convert", str(result), str(tmp_path / "folder")]) == 0
    assert "a folder" in capsys.readouterr().out
    for name, weight in load_network(tmp_path / "folder")[0].state_dict().items():
        assert torch.equal(weight, weights(tmp_path / "run")[name])
    assert load_network(result)[0].config == TINY
