"""The motion head: absent where nobody asked for it, harmless when added, and able to learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.reader import describe_checkpoint, load_network, save_network
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import MOTION_PRIOR, grow, initialise
from dyn3r.network.network import Decoded, PointmapNetwork
from dyn3r.training import trainer
from dyn3r.training.group import Group
from dyn3r.training.losses import motion_loss
from dyn3r.training.options import COMPACT, TrainOptions
from dyn3r.training.pairs import PairBatch
from dyn3r.training.trainer import _restore, _step, evaluate, forward_pairs, train

PLAIN = NetworkConfig(
    enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=24, dec_depth=4,
    dec_num_heads=2, dpt_features=8, dpt_layer_dims=(8, 8, 8, 8), image_size=64,
)  # fmt: skip
WITH_HEAD = replace(PLAIN, motion_head=True)
OPTIONS = TrainOptions(
    network=WITH_HEAD, steps=100, warmup_steps=0, learning_rate=5e-3, precision="float32",
    matching_weight=0.0, shape_weight=0.0, scenes_per_step=1, frames_per_scene=2, pairs_per_scene=2,
    sizes_hw=((32, 48),), coarse_sizes_hw=((32, 48),), data_workers=0, evaluate_every=50,
)  # fmt: skip


def network_of(config: NetworkConfig, seed: int = 0) -> PointmapNetwork:
    network = PointmapNetwork(config)
    initialise(network, seed)
    return network


def decoded(network: PointmapNetwork, size_hw: tuple[int, int] = (32, 48), **how) -> Decoded:
    images = torch.rand(2, 3, *size_hw, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokens = network.encode(images)
    return network.decode(tokens[:1], tokens[1:], **how)


def batch_of(size_hw: tuple[int, int] = (32, 48)) -> PairBatch:
    """Two frames of noise, about a plane in truth, and a square that moves and is red."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, *size_hw, generator=generator) - 0.5
    moving = torch.zeros(2, *size_hw, dtype=torch.bool)
    moving[0, 8:24, 4:20] = True
    moving[1, 8:24, 20:36] = True
    images[:, 0][moving] = 1.0
    points = torch.rand(2, *size_hw, 3, generator=generator) * 0.1 + 1
    known, flow = torch.ones_like(moving), torch.zeros(2, *size_hw, 2)
    back = torch.tensor([1, 0])
    return PairBatch(
        images, torch.tensor([0, 1]), back, points, points[back], known, known,
        flow, known, flow, known, moving, moving[back],
    )  # fmt: skip


def test_published_networks_have_none() -> None:
    assert not NetworkConfig().motion_head
    assert not NetworkConfig.from_published({"head_type": "dpt"}).motion_head
    network = network_of(PLAIN)
    assert not [name for name in network.state_dict() if "motion" in name]
    out = decoded(network)
    assert out.motion1 is None
    assert out.motion2 is None
    # the head adds names and changes none
    more, fewer = network_of(WITH_HEAD).state_dict(), network.state_dict()
    new = [name for name in more if name not in fewer]
    assert [name for name in more if name in fewer] == list(fewer)
    layers = [f"dpt.motion.{layer}.{what}" for layer in (0, 2) for what in ("weight", "bias")]
    assert new == [f"downstream_head{view}.{layer}" for view in "12" for layer in layers]


@pytest.mark.parametrize("wrong", [{"head": "linear"}, {"motion_head": 1}, {"motion_head": "yes"}])
def test_it_needs_a_dpt_head(wrong: dict) -> None:
    with pytest.raises(CheckpointError, match="motion_head"):
        replace(WITH_HEAD, **wrong)
    assert NetworkConfig.from_dict(WITH_HEAD.to_dict()) == WITH_HEAD


@pytest.mark.parametrize("size_hw", [(32, 48), (48, 80), (16, 16), (112, 64)])
def test_one_logit_for_every_pixel_of_both_views(size_hw: tuple[int, int]) -> None:
    out = decoded(network_of(WITH_HEAD), size_hw)
    for logits in (out.motion1, out.motion2):
        assert logits.shape == (1, *size_hw)
        torch.testing.assert_close(logits, torch.full_like(logits, MOTION_PRIOR))
    assert decoded(network_of(WITH_HEAD), size_hw, heads=False).motion1 is None
    half = decoded(network_of(WITH_HEAD), size_hw, heads_autocast=True)
    assert half.motion1.dtype == torch.float32


def test_growing_changes_no_point_and_starts_at_the_prior() -> None:
    old = network_of(PLAIN, seed=3)
    new = grow(old, WITH_HEAD, seed=4)
    assert new.config == WITH_HEAD
    before, after = decoded(old), decoded(new)
    for name in ("points1", "conf1", "points2", "conf2", "scores1", "scores2"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    torch.testing.assert_close(after.motion1, torch.full((1, 32, 48), MOTION_PRIOR))
    heads = new.downstream_head1.dpt.motion, new.downstream_head2.dpt.motion
    for one, two in zip(*(head.parameters() for head in heads)):
        assert torch.equal(one, two)
        assert one is not two
    assert new.downstream_head1.dpt.motion[0].weight.abs().max() > 0
    # one that has it keeps what it learned, whatever else is added
    torch.nn.init.constant_(new.downstream_head2.dpt.motion[2].bias, 1.5)
    grown = grow(new, replace(WITH_HEAD, position_code=True), seed=5)
    torch.testing.assert_close(decoded(grown).motion2, torch.full((1, 32, 48), 1.5))
    assert grow(new, PLAIN, seed=4) is new


def test_a_compact_checkpoint_from_before_can_be_trained_on() -> None:
    """What `--start-from` does, on the meta device: only the size matters here."""
    with torch.device("meta"):
        old = PointmapNetwork(replace(COMPACT, motion_head=False))
    assert COMPACT.motion_head
    names = set(old.state_dict())
    with torch.device("meta"):
        assert names < set(PointmapNetwork(COMPACT).state_dict())
    linear = network_of(replace(PLAIN, head="linear"))
    assert grow(linear, COMPACT, seed=0) is linear  # keeps its own size


def test_a_file_keeps_the_head_and_older_files_load(tmp_path: Path) -> None:
    network = network_of(WITH_HEAD)
    torch.nn.init.normal_(
        network.downstream_head2.dpt.motion[2].weight, generator=torch.Generator().manual_seed(2)
    )
    save_network(tmp_path / "new.safetensors", network, {})
    loaded, _ = load_network(tmp_path / "new.safetensors")
    assert loaded.config == WITH_HEAD
    torch.testing.assert_close(decoded(loaded).motion2, decoded(network).motion2.detach())
    assert any("what moves" in line for line in describe_checkpoint(tmp_path / "new.safetensors"))

    # a file from before the motion head: its configuration does not mention it
    old = network_of(PLAIN)
    save_network(tmp_path / "old.safetensors", old, {})
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(tmp_path / "old.safetensors", "pt") as file:
        tensors, facts = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()  # noqa: SIM118
    forgotten = {k: v.replace(', "motion_head": false', "") for k, v in facts.items()}
    assert forgotten != facts
    save_file(tensors, tmp_path / "older.safetensors", forgotten)
    assert load_network(tmp_path / "older.safetensors")[0].config == PLAIN


def test_the_loss_is_the_cross_entropy_of_all_valid_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = tuple(torch.randn(2, 4, 6, generator=generator) * 3 for _ in range(2))
    moving = tuple(torch.rand(2, 4, 6, generator=generator) > 0.7 for _ in range(2))
    valid = tuple(torch.rand(2, 4, 6, generator=generator) > share for share in (0.2, 0.9))
    total, count = 0.0, 0
    for said, true, known in zip(logits, moving, valid):
        for s, t, k in zip(said.flatten(), true.flatten(), known.flatten()):
            if k:
                total -= float(logsigmoid(s if t else -s))
                count += 1
    assert float(motion_loss(logits, moving, valid)) == pytest.approx(total / count, rel=1e-5)
    wild = tuple(torch.where(known, said, 1e6) for said, known in zip(logits, valid))
    assert float(motion_loss(wild, moving, valid)) == pytest.approx(total / count, rel=1e-5)
    nothing = tuple(torch.zeros_like(known) for known in valid)
    assert float(motion_loss(logits, moving, nothing)) == 0


def test_the_gradient_of_the_loss_is_the_numerical_one() -> None:
    logits = tuple(torch.randn(1, 3, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    moving = tuple(torch.rand(1, 3, 4) > 0.5 for _ in range(2))
    valid = tuple(torch.rand(1, 3, 4) > 0.3 for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda a, b: motion_loss((a, b), moving, valid).double(), logits, eps=1e-3, atol=1e-2
    )


def only_motion(out: Decoded, batch: PairBatch) -> Tensor:
    return motion_loss(
        (out.motion1, out.motion2), (batch.moving1, batch.moving2), (batch.valid1, batch.valid2)
    )


def test_the_gradient_reaches_the_decoder_and_the_encoder() -> None:
    network, batch = network_of(WITH_HEAD), batch_of()
    for head in (network.downstream_head1, network.downstream_head2):
        torch.nn.init.constant_(head.dpt.motion[2].weight, 0.1)  # at zero nothing flows yet
    only_motion(forward_pairs(network, batch), batch).backward()
    for name in ("dec_blocks.3.attn.qkv", "dec_blocks2.0.cross_attn.projq", "enc_blocks.0.mlp.fc1"):
        assert network.get_parameter(f"{name}.weight").grad.abs().max() > 0, name
    assert network.downstream_head1.dpt.head[0].weight.grad is None


def test_a_network_learns_what_moves_and_the_log_says_so(tmp_path: Path) -> None:
    options, group = replace(OPTIONS, motion_weight=10.0), Group("cpu")
    state, batch = _restore(tmp_path, options, group), batch_of()
    losses = []
    for state.step in range(70):
        losses.append(_step(state, batch, options, group)["motion"])
    share = float(batch.moving1.float().mean())
    guess = -share * logsigmoid(torch.tensor(MOTION_PRIOR))
    guess -= (1 - share) * logsigmoid(torch.tensor(-MOTION_PRIOR))
    assert losses[0] == pytest.approx(float(guess), rel=1e-4)
    assert losses[-1] < 0.4 * losses[0]
    assert evaluate(state.network, [batch], "cpu")["held_out_motion_J"] > 0.7
    nothing = replace(batch, moving1=batch.moving2, moving2=batch.moving1)
    assert evaluate(state.network, [nothing], "cpu")["held_out_motion_J"] < 0.2


def test_the_loss_counts_only_where_something_may_move(tmp_path: Path) -> None:
    batch, group = batch_of(), Group("cpu")
    for options, learns in (
        (OPTIONS, True),
        (replace(OPTIONS, dynamic_share=0.0), False),
        (replace(OPTIONS, motion_weight=0.0), False),
        (replace(OPTIONS, network=PLAIN), False),
        (replace(OPTIONS, freeze_encoder=True), True),
    ):
        state = _restore(tmp_path, options, group)
        assert ("motion" in _step(state, batch, options, group)) == learns
        if options.network.motion_head:
            bias = state.network.downstream_head1.dpt.motion[2].bias
            assert (float(bias.detach()) != MOTION_PRIOR) == learns


def test_a_run_from_an_older_checkpoint(tmp_path: Path, monkeypatch) -> None:
    """The whole way: train without the head, go on with it, read the log and the file."""
    batch = batch_of()
    monkeypatch.setattr(trainer, "batch_loader", lambda options, *_: iter([batch] * options.steps))
    monkeypatch.setattr(trainer, "held_out_batches", lambda options: [batch])
    first = train(tmp_path / "old", replace(OPTIONS, steps=1, network=PLAIN))
    assert load_network(first)[0].config == PLAIN
    tuned = train(tmp_path / "new", replace(OPTIONS, steps=2, start_from=str(first)))
    assert load_network(tuned)[0].config == WITH_HEAD
    log = [json.loads(line) for line in (tmp_path / "new" / "log.jsonl").open()]
    assert any(entry.get("motion", 0) > 0 for entry in log)
    assert any(0 <= entry.get("held_out_motion_J", -1) <= 1 for entry in log)
    old = [json.loads(line) for line in (tmp_path / "old" / "log.jsonl").open()]
    assert not any("motion" in key for entry in old for key in entry)
