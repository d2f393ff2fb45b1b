"""Fine-tuning on data sets: the recipe, steps, resuming, several processes, results."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tests.datasets.plane_world import PlaneWorld, plane_world
from tests.datasets.training_trees import (
    write_pointodyssey,
    write_spring,
    write_tartanair,
    write_truth_folder,
    write_waymo,
)
from tests.training.quick_world import use_quick_worlds

from dyn3r.cli.main import main
from dyn3r.datasets import tartanair
from dyn3r.errors import CheckpointError, InputError, MissingExtraError
from dyn3r.network.checkpoints.convert import convert_checkpoint
from dyn3r.network.checkpoints.published_writer import save_published
from dyn3r.network.checkpoints.reader import load_network, load_two_view
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.network import PointmapNetwork
from dyn3r.training.batches import batch_loader, held_out
from dyn3r.training.dry_run import check_run
from dyn3r.training.group import Group
from dyn3r.training.options import RECIPES, TrainOptions
from dyn3r.training.run_log import plot_logs, read_log
from dyn3r.training.run_state import restore
from dyn3r.training.trainer import _rate, _step, train
from dyn3r.training.validation import evaluate_sets, write_validation_pictures

PUBLISHED = NetworkConfig(
    enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=24, dec_depth=4,
    dec_num_heads=2, head="linear", image_size=64,
)  # fmt: skip
"""A layout that the published programs can build, at reduced size."""
OPTIONS = TrainOptions(
    network=PUBLISHED, steps=4, scenes_per_step=1, accumulate=2, sizes_hw=((32, 48), (48, 48)),
    coarse_share=0, warmup_steps=1, learning_rate=1e-3, data_workers=0, precision="float32",
    matching_weight=0, shape_weight=0, ema_decay=0, evaluate_every=100, validation_pairs=3,
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
    """Random weights in the published layout."""
    network = PointmapNetwork(PUBLISHED)
    initialise(network, 1)
    path = tmp_path_factory.mktemp("weights") / "start.pth"
    save_published(path, network)
    return path


@pytest.fixture
def options(clips: Path, start: Path) -> TrainOptions:
    return replace(OPTIONS, data=(f"6@folder:{clips}",), model=str(start))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder / "model.safetensors")[0].state_dict()


def test_the_recipe_is_the_published_one() -> None:
    """Numbers of docs/design/DATASETS.md, 3.0."""
    names = ("pointodyssey", "tartanair", "spring", "waymo")
    recipe = replace(
        RECIPES["monst3r"], model="x", data=tuple(f"{name}:somewhere" for name in names)
    )
    one = recipe.for_run(1)
    assert (one.steps, one.warmup_steps) == (31_250, 1875)
    assert recipe.scenes_per_step * recipe.accumulate == 32
    two = replace(recipe, accumulate=4).for_run(2)  # 2 GPUs x 4 x 4
    assert (two.steps, two.warmup_steps) == (31_250, 1875)
    assert _rate(1874, one) == pytest.approx(5e-5)
    assert _rate(31_249, one) == pytest.approx(1e-6, rel=1e-3)
    assert _rate((1875 + 31_250) // 2, one) == pytest.approx((5e-5 + 1e-6) / 2, rel=1e-3)
    optimiser = restore(Path("none"), replace(OPTIONS, weight_decay=0.05), Group("cpu")).optimiser
    decays = {group["weight_decay"] for group in optimiser.param_groups}
    assert decays == {0.05, 0.0}
    assert optimiser.defaults["betas"] == (0.9, 0.95)


@pytest.mark.parametrize("option", ["epochs", "validation", "freeze_encoder", "synthetic_share"])
def test_options_that_need_data_or_a_model_say_so(option: str, tmp_path: Path) -> None:
    value = {
        "epochs": 2,
        "validation": ("folder:x",),
        "freeze_encoder": True,
        "synthetic_share": 0.5,
    }[option]
    with pytest.raises(InputError, match=f"{option} needs"):
        train(tmp_path / "run", replace(OPTIONS, **{option: value}))
    assert not (tmp_path / "run").exists()


def test_wrong_data_leaves_no_folder(options: TrainOptions, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        train(tmp_path / "run", replace(options, data=("folder:nowhere",)))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ema_decay", [0, 0.999])
def test_only_what_is_published_is_trained(
    ema_decay: float, options: TrainOptions, tmp_path: Path
) -> None:
    path = train(tmp_path, replace(options, freeze_encoder=True, ema_decay=ema_decay))
    network, facts = load_two_view(path)
    before = load_two_view(options.model or "")[0].state_dict()
    frozen = ("mask_token", "patch_embed.", "enc_blocks.")
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name]) == name.startswith(frozen), name
    assert facts["trained_on"] == "folder"
    assert facts["fine_tuned_from"] == "start.pth"
    assert facts["pairs"] == str(4 * 2 * 2)
    assert "motion_cue" not in facts  # the recommendations of the embedded model are not its own
    published = load_two_view(tmp_path / "model.pth")[0]
    assert published.config == PUBLISHED
    for name, weight in published.state_dict().items():
        assert torch.equal(weight, network.state_dict()[name]), name


@pytest.mark.slow
def test_facts_of_the_model_are_kept(clips: Path, tmp_path: Path) -> None:
    options = replace(
        OPTIONS, data=(f"2@folder:{clips}",), model="compact", steps=1, accumulate=1,
        freeze_encoder=True, validation_pairs=1,
    )  # fmt: skip
    facts = load_network(train(tmp_path, options))[1]
    assert facts["licence"] == "Apache-2.0"
    assert facts["motion_cue"] == "flow"
    assert facts["fine_tuned_from"] == "compact"
    assert not (tmp_path / "model.pth").exists()  # it has a position embedding


@pytest.mark.slow
def test_recomputed_activations_give_the_same_gradients(options: TrainOptions) -> None:
    head = NetworkConfig(
        enc_embed_dim=32, enc_depth=2, enc_num_heads=2, dec_embed_dim=24, dec_depth=4,
        dec_num_heads=2, dpt_features=8, dpt_layer_dims=(8, 8, 8, 8), image_size=64,
    )  # fmt: skip
    options = replace(options, model=None, network=head)
    batches = list(batch_loader(replace(options, steps=1), 0))
    found = []
    for checkpointing in (False, True):
        state = restore(Path("none"), replace(options, checkpointing=checkpointing), Group("cpu"))
        _step(state, batches, options, Group("cpu"))
        found.append(state.network.state_dict())
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-5, atol=1e-6)


def test_batches_do_not_depend_on_where_they_start(options: TrainOptions) -> None:
    whole, late = list(batch_loader(options, 0)), list(batch_loader(options, 3))
    assert (len(whole), len(late)) == (8, 2)
    assert torch.equal(whole[6].images, late[0].images)
    assert {tuple(batch.images.shape[-2:]) for batch in whole} == {(32, 48), (48, 48)}


@pytest.mark.slow
def test_batches_of_the_synthetic_world_are_spread_evenly(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_quick_worlds(monkeypatch)
    mixed = replace(options, synthetic_share=0.25, pairs_per_scene=1, frames_per_scene=2)
    batches, plain = list(batch_loader(mixed, 0)), list(batch_loader(options, 0))
    # a rendered scene has one directed pair here, a pair of data has two
    assert [len(batch.first) for batch in batches] == [2, 2, 2, 1, 2, 2, 2, 1]
    # no pair of the data is left out
    assert all(torch.equal(batches[k].images, plain[k].images) for k in range(3))
    whole = replace(RECIPES["monst3r"], model="x", data=("folder:y",), synthetic_share=0.5)
    assert whole.for_run(1).steps == 50 * 1000 / (32 * 0.5)


@pytest.mark.slow
def test_batches_do_not_depend_on_workers(options: TrainOptions) -> None:
    for ours, theirs in zip(
        batch_loader(replace(options, data_workers=2), 1), batch_loader(options, 1)
    ):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.points2, theirs.points2)


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_line(clips: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips/a/frames/00002.png").write_bytes(b"damaged")
    options = replace(OPTIONS, data=(f"folder:{tmp_path / 'clips'}",), steps=30, data_workers=1)
    with pytest.raises(InputError) as raised:
        list(batch_loader(options, 0))
    assert "00002.png" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_processes_take_the_batches_in_turn(options: TrainOptions) -> None:
    """Two processes without accumulation see what one sees with two batches a step."""
    alone = list(batch_loader(options, 0))
    both = [
        list(batch_loader(replace(options, accumulate=1), 0, rank, processes=2)) for rank in (0, 1)
    ]
    for step in range(options.steps):
        for rank in (0, 1):
            assert torch.equal(both[rank][step].images, alone[2 * step + rank].images)


def _one_of_two(rank: int, port: int, folder: str, options: TrainOptions) -> None:
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ.update({**environment, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    train(Path(folder), options)
    # threads of PyTorch may still run: now and then a process that tears itself down aborts
    os._exit(0)


@pytest.mark.slow
def test_two_processes_are_one_with_accumulation(options: TrainOptions, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    half = replace(options, accumulate=1)
    torch.multiprocessing.spawn(_one_of_two, (port, str(tmp_path / "two"), half), nprocs=2)
    train(tmp_path / "one", options)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    before = load_two_view(options.model or "")[0].state_dict()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(one["decoder_embed.weight"], before["decoder_embed.weight"])


KILLED_WHILE_WRITING = """
import os, signal, sys, torch
from pathlib import Path
from types import ModuleType
import dyn3r.network.checkpoints.files as files
from dyn3r.training.trainer import train
from tests.training.test_fine_tuning import OPTIONS, replace

real, calls = torch.save, []

def save(content, stream):
    calls.append(1)
    if len(calls) == 2:  # the state after step 2: half of it, and then nothing
        real(content, stream)
        stream.truncate(stream.tell() // 2)
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(content, stream)

torch.save = save
torch.set_num_threads(1)
train(Path(sys.argv[1]), replace(OPTIONS, data=(sys.argv[2],), model=sys.argv[3], save_minutes=0))
"""


@pytest.mark.slow
def test_a_run_killed_while_it_writes_resumes_exactly(
    options: TrainOptions, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    words = [sys.executable, "-c", KILLED_WHILE_WRITING, str(killed), *options.data]
    done = subprocess.run([*words, str(options.model)], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    state = torch.load(killed / "state.pt", weights_only=True)
    assert state["step"] == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the killed run: sums depend on the number of threads
    try:
        train(killed, options)
        train(tmp_path / "whole", options)
    finally:
        torch.set_num_threads(threads)
    whole, parts = weights(tmp_path / "whole"), weights(killed)
    for name in whole:
        assert torch.equal(whole[name], parts[name]), name
    names = sorted(p.name for p in killed.iterdir())
    assert names == ["log.jsonl", "log.png", "model.pth", "model.safetensors", "options.json",
                     "state.pt", "validation"]  # fmt: skip


@pytest.mark.slow
def test_a_run_leaves_a_log_a_plot_and_pictures(options: TrainOptions, tmp_path: Path) -> None:
    from PIL import Image

    train(tmp_path, replace(options, evaluate_every=2))
    log = read_log(tmp_path)
    assert [row["step"] for row in log if "held_out_loss" in row] == [0, 2, 4]
    assert 0 <= log[-1].get("waiting", 0) <= 1
    with Image.open(tmp_path / "log.png") as plot:
        assert plot.size[0] > 300
    with Image.open(tmp_path / "validation/000004.png") as picture:
        assert picture.size == (6 * 48, 4 * 32)
    pictures = sorted(p.name for p in (tmp_path / "validation").iterdir())
    assert pictures == ["000000.png", "000002.png", "000004.png"]


def test_a_log_of_steps_taken_twice_keeps_the_later_ones(tmp_path: Path) -> None:
    rows = [
        {"step": 50, "lr": 1, "loss": 3.0}, {"step": 100, "lr": 1, "loss": 9.0},
        {"step": 100, "held_out_loss": 5.0}, {"step": 100, "lr": 1, "loss": 2.0},
    ]  # fmt: skip
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "log.jsonl").write_text(f"{lines}\n{{'cut off")
    log = read_log(tmp_path)
    assert [row.get("loss") for row in log] == [3.0, 2.0, None]
    plot_logs([tmp_path], tmp_path / "log.png")
    assert (tmp_path / "log.png").stat().st_size > 1000


def test_held_out_sets_and_their_scores(options: TrainOptions, clips: Path) -> None:
    (part,) = held_out(options)
    assert part.name == f"folder/{clips.name}"
    first, again = (next(iter(part.batches())) for _ in range(2))
    assert torch.equal(first.images, again.images)
    both = replace(options, validation=(f"folder:{clips / 'a'}", f"folder:{clips / 'b'}"))
    assert [part.name for part in held_out(both)] == ["folder/a", "folder/b"]
    mixed = held_out(replace(options, synthetic_share=0.5))
    assert [part.name for part in mixed] == [part.name, "synthetic"]


def test_scores_of_several_sets_and_of_one_without_depth(
    options: TrainOptions, clips: Path, world: PlaneWorld, tmp_path: Path
) -> None:
    empty = replace(world, depth=np.zeros_like(world.depth))
    write_truth_folder(tmp_path / "empty", empty)
    names = (f"folder:{clips / 'a'}", f"folder:{clips / 'b'}", f"folder:{tmp_path / 'empty'}")
    sets = held_out(replace(options, validation=names))
    network = load_two_view(options.model or "")[0].float()
    scores = evaluate_sets(network, sets, "cpu")
    for score in ("held_out_loss", "held_out_abs_rel", "held_out_point_error"):
        both = [scores[f"{score} folder/{name}"] for name in "ab"]
        assert scores[score] == pytest.approx(sum(both) / 2)
        assert f"{score} folder/empty" not in scores
    write_validation_pictures(network, sets, "cpu", tmp_path / "a.png")
    assert evaluate_sets(network, sets[2:], "cpu") == {}


def write_all(root: Path, world: PlaneWorld) -> tuple[str, ...]:
    write_pointodyssey(root / "po/train", "ani", world)
    write_tartanair(root / "ta/office/Hard/P000", world)
    write_spring(root / "sp/spring/train/0001", world, np.ones(len(world)))
    write_waymo(root / "wa/s.tfrecord", world)
    return (f"pointodyssey:{root / 'po'}", f"tartanair:{root / 'ta'}", f"spring:{root / 'sp'}",
            f"waymo:{root / 'wa'}")  # fmt: skip


def test_the_dry_run_draws_every_set_and_changes_nothing(
    world: PlaneWorld, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(tartanair, "K", world.K)
    data = write_all(tmp_path, world)
    options = replace(OPTIONS, data=data, model=str(start), epochs=1, freeze_encoder=True)
    lines = check_run(tmp_path / "run", options)
    assert [line.partition(":")[0] for line in lines] == [
        "pointodyssey", "tartanair", "spring", "waymo", "network", "step", "run", "picture",
    ]  # fmt: skip
    assert "1 sequences, 2 pairs, 10000 per epoch; frames 48x32, 100 % of the pixels" in lines[0]
    assert "run: 10000 steps" in lines[6]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["check.png"]
    with Image.open(tmp_path / "run/check.png") as picture:
        assert picture.size == (5 * 48, 8 * 36)


@pytest.mark.slow
def test_a_small_network_overfits_each_set(
    world: PlaneWorld, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tartanair, "K", world.K)
    folder = write_truth_folder(tmp_path / "f", world)
    for data in (*write_all(tmp_path, world), f"folder:{folder}"):
        name = data.partition(":")[0]
        options = replace(
            OPTIONS, data=(f"20@{data}",), validation=(data,), model=str(start), steps=60,
            scenes_per_step=2, accumulate=1, sizes_hw=((32, 48),), learning_rate=3e-3,
            warmup_steps=5, validation_pairs=4,
        )  # fmt: skip
        train(tmp_path / f"run_{name}", options)
        scores = [row for row in read_log(tmp_path / f"run_{name}") if "held_out_loss" in row]
        before, after = scores[0], scores[-1]
        for score in ("held_out_loss", "held_out_point_error"):
            assert after[score] < 0.5 * before[score], (name, score)


def test_published_weights_of_our_additions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no place for this network"):
        convert_checkpoint("compact", tmp_path / "compact.pth")
    assert not list(tmp_path.iterdir())


def test_conversion_to_the_published_layout_and_back(start: Path, tmp_path: Path) -> None:
    convert_checkpoint(start, tmp_path / "ours.safetensors")
    convert_checkpoint(tmp_path / "ours.safetensors", tmp_path / "back.pth")
    before, after = (load_two_view(p)[0] for p in (start, tmp_path / "back.pth"))
    assert before.config == after.config
    for name, weight in before.state_dict().items():
        assert torch.equal(weight, after.state_dict()[name])
    with pytest.raises(CheckpointError, match="leave out half"):
        convert_checkpoint(start, tmp_path / "half.pth", half=True)


def test_the_published_file_says_what_the_programs_read(start: Path) -> None:
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(start, weights_only=True)
    assert content["args"].model.startswith("AsymmetricCroCo3DStereo(pos_embed='RoPE100', ")
    for part in ("img_size=(64, 64)", "head_type='linear'", "enc_embed_dim=32", "dec_depth=4",
                 "depth_mode=('exp', -inf, inf)", "landscape_only=False"):  # fmt: skip
        assert part in content["args"].model


@pytest.mark.slow
def test_the_command_takes_the_recipe_and_what_changes_it(
    clips: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(tmp_path / "run"), "--recipe", "monst3r", "--freeze-encoder",
             "--model", str(start), "--data", f"4@folder:{clips}", "--device", "cpu",
             "--epochs", "2", "--accumulate", "1", "--sizes-hw", "32", "48",
             "--data-workers", "0"]  # fmt: skip
    assert main(words) == 0
    assert "model.safetensors" in capsys.readouterr().out
    options = json.loads((tmp_path / "run/options.json").read_text())
    assert (options["steps"], options["learning_rate"], options["ema_decay"]) == (2, 5e-5, 0)
    assert (options["scenes_per_step"], options["precision"]) == (4, "tf32")
    assert options["freeze_encoder"]
    words[1] = str(tmp_path / "check")
    assert main([*words, "--no-freeze-encoder", "--check"]) == 0
    assert "0.0 M frozen" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "check").iterdir()] == ["check.png"]


def test_tensorboard_is_an_extra(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dyn3r\[tensorboard\]'"):
        train(tmp_path / "run", replace(options, tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_log(
    options: TrainOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[int, list[str]] = {}

    class Writer:
        def __init__(self, log_dir: str, purge_step: int) -> None:
            assert log_dir == str(tmp_path / "tensorboard")
            assert purge_step == 0

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.setdefault(step, []).append(name)

        def flush(self) -> None: ...

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(tmp_path, replace(options, tensorboard=True, steps=1, accumulate=1))
    assert "held_out_loss" in written[0]
    assert {"loss", "lr", "held_out_abs_rel"} <= set(written[1])
