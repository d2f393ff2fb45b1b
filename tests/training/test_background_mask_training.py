"""Training of the mask network for the second look."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from tests.training.test_masks import TINY, QuickWorld, _quick  # noqa: F401  # a fixture

import dyn3r.training.synthetic.world
from dyn3r.errors import InputError
from dyn3r.motion.mask_network import SECOND_PARTS, load_second_network
from dyn3r.training import background_mask_training as second_masks
from dyn3r.training import mask_training as masks
from dyn3r.training.background_mask_training import draw_second, train_second
from dyn3r.training.mask_training import MaskTraining, _batch, draw_clips

OPTIONS = replace(TINY, frames=5, steps=2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twice")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dyn3r.training.synthetic.world, "World", QuickWorld)
        draw_clips(folder, OPTIONS)
        draw_second(folder, OPTIONS)
    return folder


def test_a_clip_looked_at_twice(drawn: Path) -> None:
    for index, size in enumerate(OPTIONS.sizes_hw):
        with np.load(drawn / "second" / "clips" / f"{index:05d}.npz") as content:
            probability, unlike = content["probability"], content["unlike"]
            colour = content["colour"]
        assert probability.shape == unlike.shape == (5, *size)
        assert probability.min() >= 0
        assert probability.max() <= 1
        assert colour.shape == (5, *size, 3)
        known = np.isfinite(unlike)
        assert known.mean() > 0.05
        assert (unlike[known] >= 0).all()
        with np.load(drawn / "clips" / f"{index:05d}.npz") as content:
            still = known & ~content["moving"]
            off = np.abs(colour.astype(float) - content["images"])[still]
        assert np.median(unlike[still]) < 10  # cameras and depth are nearly right
        assert np.median(off) < 15


def test_a_few_steps_write_a_network(drawn: Path, tmp_path: Path) -> None:
    for name in ("clips", "second"):
        (tmp_path / name).symlink_to(drawn / name)
    train_second(tmp_path, OPTIONS)
    load_second_network(tmp_path / "motion-masks-second-look.safetensors")


def test_clips_of_another_seed_are_refused(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(drawn / "clips")
    with pytest.raises(InputError, match="drawn with other options"):
        draw_second(tmp_path, replace(OPTIONS, seed=4))


def test_clips_that_were_looked_at_once_only_are_refused(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").symlink_to(drawn / "clips")
    draw_second(tmp_path, OPTIONS, 0, 2)
    with pytest.raises(InputError, match="looked at once only"):
        train_second(tmp_path, OPTIONS)


def test_a_tenth_of_the_frames_knows_nothing_of_others_and_velocity_alone_is_stretched() -> None:
    parts = np.ones((1, SECOND_PARTS, 16, 16), np.float16)
    clip = {
        "images": np.zeros((1, 16, 16, 3), np.uint8),
        "parts": parts,
        "moving": np.zeros((1, 16, 16), bool),
    }
    _, read, _ = _batch([clip], 400, np.random.default_rng(0))
    blind = (read[:, 8:] == 0).all(dim=(1, 2, 3))
    assert 15 < blind.sum() < 80
    assert (read[~blind][:, 7:] == 1).all()
    assert (read[:, :5] == 1).all()
    assert (read[:, 7] == 1).all()


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(OPTIONS, sizes_hw=((48, 64),))

    def tiny(**given: object) -> MaskTraining:
        return replace(small, **given)  # type: ignore[arg-type]

    tiny.clips, tiny.steps, tiny.seed = 1, 1, 3  # type: ignore[attr-defined]
    monkeypatch.setattr(masks, "MaskTraining", tiny)
    words = [str(tmp_path), "--clips", "1"]
    monkeypatch.setattr(sys, "argv", ["second_masks", *words, "--part", "0/2"])
    second_masks.main()
    assert not list(tmp_path.glob("*.safetensors"))
    monkeypatch.setattr(sys, "argv", ["second_masks", *words])
    second_masks.main()
    load_second_network(tmp_path / "motion-masks-second-look.safetensors")
