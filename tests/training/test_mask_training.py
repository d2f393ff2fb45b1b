"""Training of the mask network: cached clips, perturbed depth, optimisation."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

pytest.importorskip("numba")

from tests.training.quick_world import use_quick_worlds

import dyn3r.training.synthetic.world
from dyn3r.errors import CheckpointError, InputError
from dyn3r.motion.mask_network import MaskNetwork, load_mask_network, mask_probability
from dyn3r.training import mask_clips
from dyn3r.training import mask_training as masks
from dyn3r.training.clip_cache import load_clips
from dyn3r.training.mask_clips import MaskTraining, perturbed_inverse_depth, render_clips
from dyn3r.training.mask_training import evaluate_masks, train_masks

TINY = MaskTraining(clips=2, frames=3, sizes_hw=((48, 64), (64, 48)), steps=2, batch=2, seed=3)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    use_quick_worlds(monkeypatch)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both clips, rendered by one call."""
    folder = tmp_path_factory.mktemp("rendered")
    with pytest.MonkeyPatch.context() as patch:
        use_quick_worlds(patch)
        render_clips(folder, TINY)
    return folder


def content(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    out = {}
    for file in sorted((folder / "clips").iterdir()):
        with np.load(file) as stored:
            out[file.name] = {name: stored[name] for name in stored.files}
    return out


@pytest.mark.slow
def test_two_parts_render_what_one_does(rendered: Path, tmp_path: Path) -> None:
    render_clips(tmp_path, TINY, 1, 2)
    assert list(content(tmp_path)) == ["00001.npz"]
    render_clips(tmp_path, TINY, 0, 2)
    parts, whole = content(tmp_path), content(rendered)
    assert list(parts) == list(whole) == ["00000.npz", "00001.npz"]
    for name, clip in whole.items():
        for key in ("images", "parts", "moving"):
            np.testing.assert_array_equal(parts[name][key], clip[key])


@pytest.mark.slow
def test_a_clip_is_frames_evidence_and_truth(rendered: Path) -> None:
    for size, clip in zip(TINY.sizes_hw, content(rendered).values()):
        assert clip["images"].shape == (3, *size, 3)
        assert clip["images"].dtype == np.uint8
        assert clip["images"].std() > 5
        assert clip["parts"].shape == (3, 7, *size)
        assert np.isfinite(clip["parts"]).all()
        assert clip["parts"][:, :5].min() >= 0
        assert clip["parts"][:, :5].max() <= 1
        assert clip["moving"].shape == (3, *size)
        assert clip["moving"].dtype == bool


@pytest.mark.slow
def test_existing_clips_are_not_rendered_again(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "00000.npz").write_bytes(b"mine")
    requested: list[int] = []

    def render_clip(index: int, options: MaskTraining, world: object) -> dict[str, np.ndarray]:
        requested.append(index)
        return {"images": np.zeros(1)}

    monkeypatch.setattr(mask_clips, "render_clip", render_clip)
    monkeypatch.setattr(dyn3r.training.synthetic.world, "World", lambda settings, seed: None)
    render_clips(tmp_path, TINY)
    assert requested == [1]
    assert (tmp_path / "clips" / "00000.npz").read_bytes() == b"mine"
    render_clips(tmp_path, TINY)
    assert requested == [1]
    assert len(list((tmp_path / "clips").iterdir())) == 2  # nothing temporary is left


def test_half_written_clips_are_not_read_and_every_seventeenth_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for index in (0, 1, 16):
        images = np.full((1, 16, 32 if index == 1 else 16, 3), index, np.uint8)
        np.savez(tmp_path / "clips" / f"{index:05d}.npz", images=images)
    (tmp_path / "clips" / "00002.tmp.npz").write_bytes(b"PK half of a clip")
    train = load_clips(tmp_path, "images", held_out=False)
    assert {size: len(clips) for size, clips in train.items()} == {(16, 16): 1, (16, 32): 1}
    held_out = load_clips(tmp_path, "images", held_out=True)
    assert [int(clip["images"][0, 0, 0, 0]) for clip in held_out[16, 16]] == [16]


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Depth of a slope under a sky, with a near person; the person's mask."""
    depth = np.tile(np.linspace(9, 3, 60)[None, :, None], (3, 1, 80))
    depth[:, :12] = 0  # sky
    moving = np.zeros(depth.shape, bool)
    for t in range(3):
        moving[t, 15:55, 10 + 8 * t : 40 + 8 * t] = True
    depth[moving] = 0.7
    return depth, moving


@pytest.mark.parametrize("seed", range(5))
def test_perturbed_depth_does_not_depend_on_moving_objects(seed: int) -> None:
    depth, moving = scene()
    first = perturbed_inverse_depth(depth, moving, np.random.default_rng(seed))
    depth[moving] = 100.0
    second = perturbed_inverse_depth(depth, moving, np.random.default_rng(seed))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()
    assert (first > 0).all()
    assert np.median(first) == pytest.approx(1)


def test_perturbed_depth_is_roughly_that_of_the_static_scene() -> None:
    depth, moving = scene()
    inverse = perturbed_inverse_depth(depth, moving, np.random.default_rng(0))
    slope = np.tile(1 / np.linspace(9, 3, 60)[None, :, None], (3, 1, 80))[:, 20:]
    error = np.log(inverse[:, 20:] / slope)
    assert np.abs(error - np.median(error)).mean() < 0.35  # wrong by at most 30 %, and blurred
    assert np.corrcoef(inverse[:, 20:].ravel(), slope.ravel())[0, 1] > 0.7
    assert inverse[:, :6].mean() < inverse[:, 20:].mean()  # the sky is far


def test_a_frame_that_moves_everywhere_and_a_sky_alone_stay_finite() -> None:
    depth, moving = scene()
    moving[1] = True
    depth[2] = 0
    for all_of_it in (moving, np.ones_like(moving)):
        inverse = perturbed_inverse_depth(depth, all_of_it, np.random.default_rng(1))
        assert np.isfinite(inverse).all()
        assert (inverse > 0).all()


def loss_of(network: MaskNetwork, folder: Path) -> float:
    losses = []
    for clips in load_clips(folder, "images", held_out=False).values():
        for clip in clips:
            predicted = mask_probability(network.eval(), clip["images"], clip["parts"])
            truth = torch.from_numpy(clip["moving"].astype(np.float32))
            losses.append(binary_cross_entropy(torch.from_numpy(predicted), truth).item())
    return float(np.mean(losses))


@pytest.mark.slow
def test_a_few_steps_lower_the_loss_and_the_same_run_gives_the_same(
    rendered: Path, tmp_path: Path
) -> None:
    (tmp_path / "clips").symlink_to(rendered / "clips")
    options = replace(TINY, steps=20, learning_rate=1e-2)
    torch.manual_seed(options.seed)
    before = loss_of(MaskNetwork(), rendered)
    network = train_masks(tmp_path, options)
    assert loss_of(network, rendered) < 0.8 * before
    stored = load_mask_network(tmp_path / "motion-masks.safetensors")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(stored.state_dict()[name], value.half().float())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clips", "motion-masks.safetensors"]
    probe = tmp_path / "probe"
    probe.touch()
    assert (tmp_path / "motion-masks.safetensors").stat().st_mode == probe.stat().st_mode
    probe.unlink()
    first, second = (train_masks(tmp_path, TINY).state_dict() for _ in range(2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(rendered / "clips")
    earlier = train_masks(tmp_path, TINY)
    start = tmp_path / "earlier.safetensors"
    (tmp_path / "motion-masks.safetensors").rename(start)
    hardly = replace(TINY, steps=1, learning_rate=1e-9, start=str(start), seed=8)
    for name, value in train_masks(tmp_path, hardly).state_dict().items():
        torch.testing.assert_close(value, earlier.state_dict()[name], atol=1e-3, rtol=1e-3)
    moved = train_masks(tmp_path, replace(hardly, steps=20, learning_rate=1e-2)).state_dict()
    assert any((moved[k] - v).abs().max() > 1e-3 for k, v in earlier.state_dict().items())
    start.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="holds no mask network"):
        train_masks(tmp_path, hardly)


def test_scores_are_those_of_frames_with_motion() -> None:
    class Evidence(MaskNetwork):
        def forward(self, images: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
            return 10 * (parts[:, 0] - 0.5)

    moving = np.zeros((2, 16, 16), bool)
    moving[0, :8] = True
    parts = np.zeros((2, 7, 16, 16), np.float16)
    parts[0, 0, :4], parts[0, 0, 4:8] = 0.9, 0.4  # the default threshold takes both
    clip = {"images": np.zeros((2, 16, 16, 3), np.uint8), "parts": parts, "moving": moving}
    ours, plain = evaluate_masks(Evidence(), {(16, 16): [clip]})
    assert ours == pytest.approx(0.5)
    assert plain == pytest.approx(1.0)
    assert np.isnan(evaluate_masks(Evidence(), {})).all()


def test_without_clips_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no clips to train on"):
        train_masks(tmp_path, TINY)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["masks", *words])
    masks.main()


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(TINY, frames=2, sizes_hw=((48, 64),))

    def tiny(**given: object) -> MaskTraining:
        return replace(small, **given)  # type: ignore[arg-type]

    tiny.clips, tiny.steps, tiny.seed, tiny.learning_rate = 1, 1, 3, 1e-3  # type: ignore[attr-defined]
    monkeypatch.setattr(masks, "MaskTraining", tiny)
    folder, network = tmp_path / "new" / "run", "motion-masks.safetensors"
    words = (str(folder), "--clips", "2", "--steps", "2")
    run(monkeypatch, *words, "--part", "0/2")
    assert [file.name for file in (folder / "clips").iterdir()] == ["00000.npz"]
    assert not (folder / network).exists()  # a part renders and stops
    run(monkeypatch, *words)
    assert len(list((folder / "clips").iterdir())) == 2
    load_mask_network(folder / network)


@pytest.mark.parametrize("part", ["2/2", "0", "0/0", "a/b", "-1/2"])
def test_wrong_parts_are_refused(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, str(tmp_path), f"--part={part}")
    assert "--part is k/m with k below m" in capsys.readouterr().err
