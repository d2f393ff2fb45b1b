"""Training runs: resuming, fine-tuning, batches, several processes."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.quick_world import use_quick_worlds

import dyn3r
from dyn3r.errors import InputError
from dyn3r.network.checkpoints.reader import load_network
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import grow, initialise
from dyn3r.network.model import prepare_model
from dyn3r.network.network import PointmapNetwork
from dyn3r.network.predict import predict_pairs
from dyn3r.training.batches import _Batches, _SceneGroups, batch_loader
from dyn3r.training.group import Group
from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import mirrored, sample_pairs
from dyn3r.training.run_state import restore
from dyn3r.training.synthetic.world import World, WorldOptions
from dyn3r.training.trainer import _step, train

TINY = NetworkConfig(
    enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=24, dec_depth=4,
    dec_num_heads=2, dpt_features=8, dpt_layer_dims=(8, 8, 8, 8), image_size=64,
)  # fmt: skip
OPTIONS = TrainOptions(
    network=TINY, steps=6, scenes_per_step=2, frames_per_scene=2, pairs_per_scene=2,
    sizes_hw=((48, 64),), coarse_sizes_hw=((32, 48), (48, 32)), coarse_share=0.5,
    warmup_steps=2, learning_rate=2e-3, data_workers=0, precision="float32", evaluate_every=3,
    matching_layers=(1, 2),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    use_quick_worlds(monkeypatch)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder / "model.safetensors")[0].state_dict()


@pytest.mark.slow
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    train(tmp_path / "whole", OPTIONS)
    seen: list[int] = []

    def interrupt(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", OPTIONS, progress=interrupt)
    train(tmp_path / "parts", OPTIONS, progress=lambda stage, done, total: seen.append(done))
    assert seen == [1, 2, 3, 4, 5, 6]
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-5, atol=1e-6)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert any("held_out_abs_rel" in entry for entry in log)


@pytest.mark.slow
def test_a_trained_model_recommends_what_the_embedded_one_does(tmp_path: Path) -> None:
    _, facts = load_network(train(tmp_path, replace(OPTIONS, steps=1)))
    _, embedded = load_network(Path(dyn3r.__file__).parent / "assets/weights/compact.safetensors")
    for fact in ("motion_cue", "bundle", "mover_depth", "refine"):
        assert facts[fact] == embedded[fact]


@pytest.mark.slow
def test_frozen_encoder_stays_as_it_was(tmp_path: Path) -> None:
    first = train(tmp_path / "first", replace(OPTIONS, steps=1))
    tuned = replace(OPTIONS, steps=2, model=str(first), freeze_encoder=True)
    train(tmp_path / "second", tuned)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    for name in before:
        if name.startswith(("patch_embed", "enc_blocks", "enc_position", "detail", "mask_token")):
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["enc_norm.weight"], after["enc_norm.weight"])  # as published
    assert not torch.equal(before["decoder_embed.weight"], after["decoder_embed.weight"])


@pytest.mark.slow
def test_another_network_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(tmp_path, replace(OPTIONS, steps=1))
    wider = replace(OPTIONS, network=replace(TINY, dec_embed_dim=32))
    with pytest.raises(InputError, match="does not fit"):
        train(tmp_path, wider)


@pytest.mark.slow
def test_the_result_runs(tmp_path: Path) -> None:
    network, facts = load_network(train(tmp_path, replace(OPTIONS, steps=2)))
    assert facts["steps"] == "2"
    assert facts["pairs"] == "8"
    model = prepare_model(network, "tiny", device="cpu")
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    out = predict_pairs(model, images, np.array([[0, 1], [1, 0]]))
    assert np.isfinite(out.points1).all()


@pytest.mark.slow
def test_a_mirrored_pair_still_projects_to_where_its_flow_says() -> None:
    world = World(WorldOptions(size_hw=(48, 64), frames=2, procedural_tiles=4), seed=5)
    sample = world.sample(2, 0)
    batch = sample_pairs(sample, 2, seed=0)
    other = mirrored(batch)
    assert torch.equal(other.images.flip(3), batch.images)
    _, h, w, _ = batch.points1.shape
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    views = sample.depth.shape[1]
    for k, pairs in [(k, pairs) for k in range(len(batch.first)) for pairs in (batch, other)]:
        K = sample.K[batch.first[k] // views, batch.first[k] % views].clone()
        if pairs is other:
            K[0, 2] = w - 1 - K[0, 2]
        known, points = pairs.valid1[k], pairs.points1[k]
        seen = (points / points[..., 2:]) @ K.T
        assert (seen[..., 0] - u)[known].abs().max() < 1e-3
        assert (seen[..., 1] - v)[known].abs().max() < 1e-3
        # where nothing moves, the flow ends at the same column of the other, equally mirrored frame
        back = batch.flow12[k, ..., 0] if pairs is batch else -batch.flow12[k, ..., 0].flip(1)
        assert torch.equal(pairs.flow12[k, ..., 0], back)
    twice = mirrored(other)
    for entry in fields(batch):
        assert torch.equal(getattr(twice, entry.name), getattr(batch, entry.name))


def test_growing_adds_the_new_parts_without_effect_and_nothing_else() -> None:
    old = PointmapNetwork(TINY).eval()
    initialise(old, 3)
    bigger = replace(TINY, position_code=True, detail_features=8)
    new = grow(old, bigger, seed=4).eval()
    assert new.config == bigger
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        a, b = (net.decode(net.encode(images[:1]), net.encode(images[1:])) for net in (old, new))
    torch.testing.assert_close(a.points2, b.points2)
    torch.testing.assert_close(a.conf1, b.conf1)
    assert grow(old, replace(bigger, enc_depth=3), seed=4) is old
    assert grow(new, TINY, seed=4) is new


@pytest.mark.slow
def test_the_same_scenes_serve_several_steps_with_other_pairs() -> None:
    batches = _Batches(replace(OPTIONS, reuse=2, frames_per_scene=3))
    first, second, third = (batches[step] for step in range(3))
    assert torch.equal(first.images, second.images.flip(3))
    assert first.images.shape != third.images.shape or not torch.equal(first.images, third.images)
    assert torch.equal(batches[1].points2, _Batches(batches.options)[1].points2)


@pytest.mark.slow
@pytest.mark.parametrize("first_step", [0, 1, 4])
def test_batches_come_in_order_from_any_step_for_any_workers(first_step: int) -> None:
    options = replace(OPTIONS, reuse=2, frames_per_scene=3, steps=5, coarse_share=0.6)
    loaded = list(batch_loader(options, first_step))
    alone = [_Batches(options)[step] for step in range(first_step, 5)]
    assert len(loaded) == len(alone)
    for ours, theirs in zip(loaded, alone):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.points2, theirs.points2)


@pytest.mark.slow
def test_steps_that_share_scenes_are_one_item_of_the_loader() -> None:
    options = replace(OPTIONS, reuse=3, frames_per_scene=3, steps=7)
    rounds = _SceneGroups(_Batches(options), first_batch=1)
    assert [len(rounds[group]) for group in range(3)] == [2, 3, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"scenes_per_step": 0}, {"frames_per_scene": 1}, {"data_workers": -1},
        {"coarse_share": 1.5}, {"learning_rate": float("nan")}, {"shape_weight": -1.0},
        {"precision": "float16"},
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        replace(OPTIONS, **wrong)


def test_a_run_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        train(tmp_path / "file", OPTIONS)
    assert (tmp_path / "file").read_text() == "mine"


class ExchangeByHand(Group):
    """Two processes played one after the other: the second call uses the first one's gradients."""

    kept: list[torch.Tensor] | None = None

    def average_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.kept is None:
            self.kept = [gradient.clone() for gradient in gradients]
            return
        for gradient, kept in zip(gradients, self.kept):
            gradient.add_(kept).div_(2)
        self.kept = None


def _one_of_two(rank: int, port: int, folder: str) -> None:
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ.update({**environment, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    with pytest.MonkeyPatch.context() as patch:
        use_quick_worlds(patch)
        train(Path(folder), replace(OPTIONS, steps=3))
    # threads of PyTorch may still run: now and then a process that tears itself down aborts
    os._exit(0)


@pytest.mark.slow
def test_two_processes_train_one_network_on_different_scenes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_one_of_two, (port, str(tmp_path / "two")), nprocs=2)
    state = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    assert state["step"] == 3
    facts = load_network(tmp_path / "two" / "model.safetensors")[1]
    assert facts["pairs"] == str(2 * 3 * 2 * 2)

    # the same by hand: the mean of both processes' gradients, step by step
    options, alone = replace(OPTIONS, steps=3), ExchangeByHand("cpu")
    ours, other = (restore(tmp_path / "none", OPTIONS, alone) for _ in range(2))
    for step in range(3):
        for rank in (1, 0):
            turn = other if rank else ours
            turn.network.load_state_dict(ours.network.state_dict())
            turn.step = step
            _step(turn, [_Batches(options, rank)[step]], options, alone)
    for name, weight in ours.network.state_dict().items():
        torch.testing.assert_close(state["network"][name], weight, rtol=1e-4, atol=1e-5)
