"""Published checkpoints, simulated exactly: what they hold is loaded, anything else is refused.

The published weights themselves can't be had where this is tested. Their files are made here in
every detail that a reader meets, with the weights of the golden network, whose outputs are known
from the published programs.
"""

from __future__ import annotations

import argparse
import codecs
import functools
import json
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dyn3r.cli.models import Convert
from dyn3r.errors import CheckpointError, OutputError
from dyn3r.network.checkpoints.convert import convert_checkpoint
from dyn3r.network.checkpoints.files import read_checkpoint, write_checkpoint
from dyn3r.network.checkpoints.reader import describe_checkpoint, load_network, save_network
from dyn3r.network.config import NetworkConfig
from dyn3r.network.model import load_model
from dyn3r.network.network import PointmapNetwork
from dyn3r.network.options import InferenceOptions
from dyn3r.network.predict import predict_pairs
from tests.factories import tiny_network

from .golden_network import GOLDEN, SIZES, formula, golden_images

EDGES = np.array([[0, 1], [1, 0]])
NAMES = {"points1": "pts1", "conf1": "conf1", "points2": "pts2", "conf2": "conf2"}


def constructor(**changes: object) -> str:
    """`args.model` of the published files, with the golden network's sizes."""
    keywords = {
        "pos_embed": "'RoPE100'",
        "patch_embed_cls": "'ManyAR_PatchEmbed'",
        "img_size": "(512, 512)",
        "head_type": "'dpt'",
        "output_mode": "'pts3d'",
        "depth_mode": "('exp', -inf, inf)",
        "conf_mode": "('exp', 1, inf)",
        **SIZES,
        "landscape_only": False,
        **changes,
    }
    return f"AsymmetricCroCo3DStereo({', '.join(f'{k}={v}' for k, v in keywords.items())})"


@functools.cache
def published_weights(head: str) -> dict[str, torch.Tensor]:
    """Every name of the golden state dict with its own value. Make a new dictionary to change it.

    The published programs save one tensor under both names of `scratch`; here their values differ,
    so that it shows which of them is taken.
    """
    with torch.device("meta"):
        state = PointmapNetwork(NetworkConfig(**SIZES, head=head)).state_dict()
    return {name: formula(name, tuple(tensor.shape)) for name, tensor in state.items()}


def save_pth(path: Path, weights: dict[str, torch.Tensor], model: str, **changes: object) -> Path:
    """A published .pth: what the published training script puts into it."""
    args = argparse.Namespace(
        model=model,
        pretrained="checkpoints/CroCo_V2_ViTLarge_BaseDecoder.pth",
        train_criterion="ConfLoss(Regr3D(L21, norm_mode='avg_dis'), alpha=0.2)",
        train_dataset="10_000 @ Habitat512(1_000_000, split='train', aug_crop=16)",
        seed=0, batch_size=4, accum_iter=2, epochs=90, weight_decay=0.05, lr=1e-4, min_lr=1e-6,
        amp=1, num_workers=16, world_size=8, dist_url="env://", distributed=True, gpu=0,
        output_dir="checkpoints/dust3r_512dpt", fixed_eval_set=False, start_epoch=0,
    )  # fmt: skip
    content = {
        "args": args,
        "model": weights,
        "optimizer": {
            "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3, 4)}},
            "param_groups": [{"lr": 1e-6, "betas": (0.9, 0.95), "params": [0], "lr_scale": 1.0}],
        },
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
        "epoch": 90,
        "best_so_far": 0.0375,
    }
    torch.save({**content, **changes}, path)
    return path


def save_hub(folder: Path, head: str) -> Path:
    """A published repository: shared tensors once only, infinities spelled as JSON never does."""
    folder.mkdir()
    weights = {k: v for k, v in published_weights(head).items() if ".scratch.layer_rn." not in k}
    for name in weights:  # the names that are left carry the values that are in force
        for level in range(4):
            if f"scratch.layer{level + 1}_rn" in name:
                last = name.replace(f"layer{level + 1}_rn", f"layer_rn.{level}")
                weights[name] = formula(last, tuple(weights[name].shape))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = {
        "pos_embed": "RoPE100", "patch_embed_cls": "ManyAR_PatchEmbed", "img_size": [512, 512],
        "head_type": head, "output_mode": "pts3d", "depth_mode": ["exp", -math.inf, math.inf],
        "conf_mode": ["exp", 1, math.inf], "landscape_only": False, **SIZES,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def assert_golden(path: Path, head: str, tolerance: float = 1e-4) -> None:
    """The whole way from the file's name to pointmaps gives the published programs' numbers."""
    golden, model = np.load(GOLDEN), load_model(path, device="cpu", precision="float32")
    assert model.network.config.head == head
    options = InferenceOptions(storage="full")
    predictions = predict_pairs(model, golden_images(), EDGES, options=options)
    for ours, theirs in NAMES.items():
        expected = golden[f"{head}_{theirs}"]
        error = np.abs(getattr(predictions, ours)[:, ::3, ::3] - expected).max()
        assert error / np.abs(expected).max() < tolerance
    if head == "linear":
        for ours, theirs in (("scores1", "cross_attn_stat1"), ("scores2", "cross_attn_stat2")):
            error = np.abs(getattr(predictions, ours) - golden[theirs]).max()
            assert error / np.abs(golden[theirs]).max() < tolerance


# --- what is published is loaded -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_published_pth_gives_the_published_numbers(tmp_path, head):
    model = constructor(head_type=f"'{head}'")
    path = save_pth(tmp_path / "checkpoint.pth", published_weights(head), model)
    assert_golden(path, head)
    _, facts = load_network(path)
    assert facts == {"epoch": "90", "best_so_far": "0.0375"}
    assert any("trained with a long side of 512" in line for line in describe_checkpoint(path))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_published_repository_gives_the_published_numbers(tmp_path, head):
    folder = save_hub(tmp_path / "hub", head)
    assert_golden(folder, head)
    assert_golden(folder / "model.safetensors", head)


@pytest.mark.slow
def test_the_later_of_two_names_is_in_force(tmp_path):
    weights = published_weights("dpt")
    first, last = (f"downstream_head1.dpt.scratch.{n}.weight" for n in ("layer1_rn", "layer_rn.0"))
    assert not torch.equal(weights[first], weights[last])
    network, _ = load_network(save_pth(tmp_path / "net.pth", weights, constructor()))
    assert torch.equal(network.get_parameter(first), weights[last])
    assert network.get_parameter(first) is network.get_parameter(last)
    for gone in ("layer_rn.", "_rn.weight"):
        some = {name: t for name, t in weights.items() if f"scratch.{gone}" not in name}
        path = save_pth(tmp_path / "some.pth", some, constructor())
        load_network(path)


@pytest.mark.slow
def test_a_missing_second_decoder_starts_as_the_first(tmp_path):
    weights = {k: v for k, v in published_weights("linear").items() if "dec_blocks2" not in k}
    path = save_pth(tmp_path / "net.pth", weights, constructor(head_type="'linear'"))
    state = load_network(path)[0].state_dict()
    names = [name for name in state if name.startswith("dec_blocks2.")]
    assert len(names) == 12 * 24
    for name in names:
        assert torch.equal(state[name], weights[name.replace("dec_blocks2.", "dec_blocks.")])
    weights["dec_blocks2.0.norm1.weight"] = torch.ones(96)  # a part of it is no published file
    path = save_pth(tmp_path / "part.pth", weights, constructor(head_type="'linear'"))
    refused(path, "weights are missing, e.g. dec_blocks2")


@pytest.mark.slow
def test_other_published_spellings(tmp_path):
    weights = published_weights("linear")
    for number, changes in enumerate([
        {"img_size": "(224, 224)", "patch_embed_cls": "'PatchEmbedDust3R'"},
        {"freeze": "'encoder'"},
        {"img_size": "[512, 512]", "depth_mode": "['exp', -inf, inf]"},
    ]):  # fmt: skip
        text = constructor(head_type="'linear'", **changes)
        network, _ = load_network(save_pth(tmp_path / f"{number}.pth", weights, text))
        assert network.config.image_size == (224 if number == 0 else 512)


# --- anything else is refused ----------------------------------------------------------------


def refused(path: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head_type": "'catmlp+dpt'"}, "unknown head"),
        ({"output_mode": "'pts3d+desc24'"}, "output_mode"),
        ({"depth_mode": "('linear', -inf, inf)"}, "depth_mode"),
        ({"conf_mode": "('sigmoid', 0, 1)"}, "conf_mode"),
        ({"pos_embed": "'cosine'"}, "position embedding"),
        ({"patch_size": 14}, "patch size"),
        ({"enc_depth": 10**6}, "implausible"),
        ({"dec_depth": 200}, "plausible"),
        ({"enc_embed_dim": 65535}, "out of range"),
        ({"enc_num_heads": 3}, "does not split"),
        ({"enc_num_heads": 0}, "does not split"),
        ({"dec_depth": -1}, "out of range"),
        ({"enc_depth": "True"}, "whole numbers"),
        ({"enc_depth": 2.0}, "whole numbers"),
        ({"enc_depth": 4}, "weights are missing"),
        ({"enc_depth": 2}, "unknown weights"),
        ({"dec_embed_dim": 192}, "has shape"),
        ({"img_size": "'abc'"}, "not a size"),
        ({"img_size": "()"}, "not a size"),
        ({"img_size": "inf"}, "not a size"),
        ({"img_size": "('a', 2)"}, "not a size"),
        ({"img_size": -5}, "out of range"),
        ({"pos_embed": "'RoPEnan'"}, "out of range"),
        ({"pos_embed": "'RoPE0'"}, "out of range"),
    ],
)
def test_other_networks(tmp_path, changes, words):
    weights = published_weights("linear")
    text = constructor(**{"head_type": "'linear'", **changes})
    refused(save_pth(tmp_path / "net.pth", weights, text), words)


@pytest.mark.parametrize(
    "config",
    [
        {"dpt_layer_dims": "abcd"},
        {"dpt_layer_dims": 3},
        {"dpt_layer_dims": [1, 2]},
        {"dpt_layer_dims": [-1, 2, 3, 4]},
        {"dpt_layer_dims": [65536] * 4},
        {"enc_num_heads": "4"},
        {"image_size": "a"},
        {"image_size": -3},
        {"rope_base": "x"},
        {"rope_base": -1},
        {"head": []},
    ],
)
def test_own_files_with_nonsense_in_the_configuration(tmp_path, config):
    path = tmp_path / "net.safetensors"
    metadata = {"dyn3r_format": "1", "dyn3r_config": json.dumps(config)}
    save_file({"w": torch.ones(2)}, path, metadata)
    refused(path, "network configuration")


def test_a_header_of_any_length(tmp_path):
    """Its length comes first in the file, and may begin like a pickle."""
    path, first = tmp_path / "net.safetensors", set()
    for length in range(0, 256, 8):
        facts = {"note": "x" * length}
        write_checkpoint(path, {"w": torch.ones(2)}, {}, facts, overwrite=True)
        assert read_checkpoint(path).extras == facts
        first.add(path.read_bytes()[:1])
    assert b"\x80" in first


def test_long_entries_are_no_facts(tmp_path):
    weights, text = published_weights("linear"), constructor(head_type="'linear'")
    path = save_pth(tmp_path / "net.pth", weights, text, log="x" * 10**6)
    assert "log" not in load_network(path)[1]


def test_another_family(tmp_path):
    text = constructor().replace("AsymmetricCroCo3DStereo", "AsymmetricMASt3R")
    refused(save_pth(tmp_path / "net.pth", {"w": torch.ones(1)}, text), "AsymmetricMASt3R")


# --- hostile files use no memory -------------------------------------------------------------


def peak_growth(action: Callable[[], None]) -> float:
    """Return the peak growth of the process in megabytes during a call (Linux)."""

    def status(entry: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = status("VmRSS")
    action()
    return status("VmHWM") - before


def huge_layers(path: Path) -> None:
    """A small file whose configuration asks for as much as any number may."""
    sizes = {"enc_embed_dim": 8192, "enc_depth": 96, "enc_num_heads": 16}
    sizes |= {"dec_embed_dim": 8192, "dec_depth": 96, "dec_num_heads": 16}
    save_pth(path, {"w": torch.ones(2)}, constructor(**sizes))


def million_layers(path: Path) -> None:
    save_pth(path, {"w": torch.ones(2)}, constructor(enc_depth=10**6))


def claimed_shape(path: Path) -> None:
    """safetensors: 4 TB in a file of a hundred bytes."""
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


def overflowing_shape(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2**32, 2**32, 2**32], "data_offsets": [0, 64]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


def long_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**40) + b'{"w":' + bytes(64))


def zip_bomb(path: Path) -> None:
    """A quarter of a gigabyte of zeros, deflated to 260 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("net/data.pkl", "w") as entry:
            for _ in range(256):
                entry.write(bytes(1 << 20))
        archive.writestr("net/version", "3")


def overlapping_zip(path: Path) -> None:
    """Entries that all stand for the same bytes."""
    save_pth(path, {"w": torch.ones(1 << 18)}, constructor())
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack("<HII", content[end + 10 : end + 20])
    directory = bytes(content[start : start + size])
    content[start:end] = directory * 200
    end = content.rfind(b"PK\x05\x06")
    content[end + 8 : end + 16] = struct.pack("<HHI", count * 200, count * 200, size * 200)
    path.write_bytes(content)


class Nested:
    """Doubling lists: ten levels are a thousand entries, sixty are more than memory."""

    def __reduce__(self) -> tuple:
        value: tuple = ("laugh",)
        for _ in range(60):
            value = (value, value)
        return (argparse.Namespace, (), {"model": value})


def doubled(path: Path) -> None:
    save_pth(path, {"w": torch.ones(2)}, constructor(), args=Nested())


def shared_million(path: Path) -> None:
    """One megabyte under 200 names, each claiming to be all of it in another order."""
    stored = torch.zeros(1 << 18)
    weights = {f"w{i}": stored.as_strided((1 << 18, 1 << 18), (0, 0)) for i in range(200)}
    save_pth(path, weights, constructor())


def large_bytes(path: Path) -> None:
    """A call that PyTorch's own list allows, for half a gigabyte."""
    save_pth(path, {"w": torch.ones(2)}, constructor(), extra=Calls(bytearray, 1 << 29))


def growing_text(path: Path) -> None:
    """Each step doubles the length: hexadecimal digits of hexadecimal digits."""
    value: object = b"0123456789abcdef"
    for _ in range(26):
        value = Calls(codecs.encode, value, "hex_codec")
    save_pth(path, {"w": torch.ones(2)}, constructor(), extra=value)


class Calls:
    """An entry that is the result of a call."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def many_entries(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2000):
            archive.writestr(f"net/data/{number}", b"")


HOSTILE = [
    huge_layers, million_layers, claimed_shape, overflowing_shape, long_header, zip_bomb,
    overlapping_zip, doubled, shared_million, many_entries, large_bytes,
    growing_text,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux")
def test_hostile_files_are_refused_without_using_memory(tmp_path):
    published = save_pth(tmp_path / "good.pth", published_weights("dpt"), constructor())
    load_network(published)  # whatever is imported on the way is imported now
    used = {}
    words = "implausib|plausible|damaged|compressed|states|missing|not a checkpoint"
    words += "|no description|not a PyTorch|no configuration|contains code"
    for make in HOSTILE:
        path = tmp_path / f"{make.__name__}.pth"
        make(path)
        used[make.__name__] = peak_growth(lambda path=path: refused(path, words))
    assert max(used.values()) < 64, used


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux")
def test_loading_holds_the_weights_once(tmp_path):
    """Built without allocating, mapped from the file: at most 1.5 times the file's size."""
    network = PointmapNetwork(NetworkConfig(enc_embed_dim=768, enc_depth=4, dec_depth=4))
    path = tmp_path / "net.safetensors"
    save_network(path, network, {})
    size = path.stat().st_size / 2**20
    assert size > 300
    del network
    model = []
    grown = peak_growth(lambda: model.append(load_model(path, device="cpu", precision="float32")))
    assert grown < 1.5 * size, (grown, size)
    half = peak_growth(lambda: model.append(load_model(path, device="cpu", precision="bfloat16")))
    assert half < 1.5 * size, (half, size)


# --- converting ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_converted_files_give_the_same_numbers(tmp_path, half):
    name = "MonST3R_PO-TA-S-W_ViTLarge_BaseDecoder_512_dpt"
    source = save_pth(tmp_path / f"{name}.pth", published_weights("dpt"), constructor())
    target = tmp_path / "ours.safetensors"
    facts = convert_checkpoint(source, target, half=half)
    assert facts["licence"].startswith("CC BY-NC-SA 4.0")
    assert facts["converted_from"] == f"{name}.pth"
    with safe_open(target, "pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert kinds == {torch.float16 if half else torch.float32}
    # points grow exponentially with the head output: 5e-4 per weight was 5.4e-3 of the largest
    assert_golden(target, "dpt", 1e-2 if half else 1e-4)
    model = load_model(target, device="cpu", precision="float32")
    assert model.facts["licence"] == facts["licence"]
    assert model.facts["repository"] == f"Junyi42/{name}"
    ratio = target.stat().st_size / sum(4 * p.numel() for p in model.network.parameters())
    assert abs(ratio - (0.5 if half else 1)) < 0.02


def test_convert_command(tmp_path, capsys):
    source = tmp_path / "tiny.safetensors"
    save_network(source, tiny_network(), {"licence": "Apache-2.0"})
    target = tmp_path / "sub" / "half.safetensors"
    Convert(str(source), target, half=True)()
    assert "Apache-2.0" in capsys.readouterr().out
    with pytest.raises(OutputError, match="exists"):
        Convert(str(source), target)()
    Convert(str(source), target, overwrite=True, quiet=True)()
    assert capsys.readouterr() == ("", "")
    expected = tiny_network().state_dict()
    for name, tensor in load_network(target)[0].state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.slow
@pytest.mark.parametrize(("value", "half"), [(1e6, True), (math.nan, False), (math.inf, False)])
def test_numbers_that_cannot_be_stored(tmp_path, value, half):
    network = tiny_network()
    network.enc_norm.weight.data[3] = value
    save_network(tmp_path / "a.safetensors", network, {})
    with pytest.raises(CheckpointError, match=r"enc_norm\.weight have values"):
        convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors", half=half)
    assert not (tmp_path / "b.safetensors").exists()


def test_converting_something_else(tmp_path):
    (tmp_path / "evil.pth").write_bytes(b"\x80\x02.")
    with pytest.raises(CheckpointError, match="may run code"):
        convert_checkpoint(tmp_path / "evil.pth", tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="no model or file"):
        convert_checkpoint("nonsense", tmp_path / "b.safetensors")
