"""Training of the mask network of the second motion pass."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from tests.training.quick_world import use_quick_worlds
from tests.training.test_mask_training import TINY, _quick  # noqa: F401  # a fixture

from dyn3r.errors import InputError
from dyn3r.motion.mask_network import BACKGROUND_PARTS, load_background_mask_network
from dyn3r.training import background_mask_training as background_masks
from dyn3r.training import mask_training as masks
from dyn3r.training.background_mask_training import render_background, train_background_masks
from dyn3r.training.mask_clips import MaskTraining, render_clips
from dyn3r.training.mask_training import _batch

OPTIONS = replace(TINY, frames=5, steps=2)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twice")
    with pytest.MonkeyPatch.context() as patch:
        use_quick_worlds(patch)
        render_clips(folder, OPTIONS)
        render_background(folder, OPTIONS)
    return folder


@pytest.mark.slow
def test_the_background_model_of_a_clip(rendered: Path) -> None:
    for index, size in enumerate(OPTIONS.sizes_hw):
        with np.load(rendered / "background" / "clips" / f"{index:05d}.npz") as content:
            probability, difference = content["probability"], content["color_difference"]
            colour = content["colour"]
        assert probability.shape == difference.shape == (5, *size)
        assert probability.min() >= 0
        assert probability.max() <= 1
        assert colour.shape == (5, *size, 3)
        known = np.isfinite(difference)
        assert known.mean() > 0.05
        assert (difference[known] >= 0).all()
        with np.load(rendered / "clips" / f"{index:05d}.npz") as content:
            still = known & ~content["moving"]
            off = np.abs(colour.astype(float) - content["images"])[still]
        assert np.median(difference[still]) < 10  # cameras and depth are nearly right
        assert np.median(off) < 15


@pytest.mark.slow
def test_a_few_steps_write_a_network(rendered: Path, tmp_path: Path) -> None:
    for name in ("clips", "background"):
        (tmp_path / name).symlink_to(rendered / name)
    train_background_masks(tmp_path, OPTIONS)
    load_background_mask_network(tmp_path / "motion-masks-second-look.safetensors")


@pytest.mark.slow
def test_clips_of_another_seed_are_refused(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(rendered / "clips")
    with pytest.raises(InputError, match="rendered with other options"):
        render_background(tmp_path, replace(OPTIONS, seed=4))


@pytest.mark.slow
def test_clips_without_a_background_model_are_refused(rendered: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(rendered / "clips")
    render_background(tmp_path, OPTIONS, 0, 2)
    with pytest.raises(InputError, match="no background model"):
        train_background_masks(tmp_path, OPTIONS)


def test_a_tenth_of_the_frames_has_no_background_model_and_velocity_alone_is_scaled() -> None:
    parts = np.ones((1, BACKGROUND_PARTS, 16, 16), np.float16)
    clip = {
        "images": np.zeros((1, 16, 16, 3), np.uint8),
        "parts": parts,
        "moving": np.zeros((1, 16, 16), bool),
    }
    _, read, _ = _batch([clip], 400, np.random.default_rng(0))
    blind = (read[:, 8:] == 0).all(dim=(1, 2, 3))
    assert 15 < blind.sum() < 80
    one = torch.ones(())
    for kept in (read[~blind][:, 7:], read[:, :5], read[:, 7]):
        torch.testing.assert_close(kept, one.expand_as(kept))


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(OPTIONS, sizes_hw=((48, 64),))

    def tiny(**given: object) -> MaskTraining:
        return replace(small, **given)  # type: ignore[arg-type]

    tiny.clips, tiny.steps, tiny.seed, tiny.learning_rate = 1, 1, 3, 1e-3  # type: ignore[attr-defined]
    monkeypatch.setattr(masks, "MaskTraining", tiny)
    words = [str(tmp_path), "--clips", "1"]
    monkeypatch.setattr(sys, "argv", ["background_masks", *words, "--part", "0/2"])
    background_masks.main()
    assert not list(tmp_path.glob("*.safetensors"))
    monkeypatch.setattr(sys, "argv", ["background_masks", *words])
    background_masks.main()
    load_background_mask_network(tmp_path / "motion-masks-second-look.safetensors")
