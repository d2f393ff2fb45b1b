"""Published many-view folders: what they hold is loaded strictly, anything else is refused.

The published weights can't be had where this is tested. Their files are made here in every detail
that a reader meets: with the weights of the golden network, whose outputs are known from the
published program, and with random weights of the full sizes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from dyn3r.errors import CheckpointError, InputError, OutputError
from dyn3r.network.checkpoints.catalogue import PUBLISHED
from dyn3r.network.checkpoints.convert import convert_checkpoint
from dyn3r.network.checkpoints.files import write_checkpoint
from dyn3r.network.checkpoints.hub import download
from dyn3r.network.checkpoints.reader import describe_checkpoint, load_network
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.network.many_view.view_config import ManyViewConfig
from dyn3r.network.model import load_model, prepare_model
from tests.factories import tiny_network

from .golden_many_view import (
    SHARED,
    TINY,
    golden_views,
    listed,
    published_config,
    save_folder,
    tiny_config,
    tiny_weights,
)
from .test_hub import hub, published  # noqa: F401 (fixtures)
from .test_many_view import agrees
from .test_published_files import peak_growth

SMALL = ManyViewConfig()
BASE = ManyViewConfig(768, 12, 12, features=128, out_channels=(96, 192, 384, 768))
SIZES = {"small": (SMALL, "vits"), "base": (BASE, "vitb")}
COPIES = [SHARED.format(level, part) for level in (1, 2, 3) for part in ("weight", "bias")]


def published_json(size: str) -> bytes:
    config, name = SIZES[size]
    return json.dumps(published_config(config, f"da3-{size}", name=name), indent=2).encode()


# --- what is published -----------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "base"])
def test_names_and_shapes_are_the_published_ones(size: str) -> None:
    with torch.device("meta"):
        network = ManyViewNetwork(SIZES[size][0])
    ours = {f"model.{name}": tuple(t.shape) for name, t in network.state_dict().items()}
    theirs = listed(f"keys_{size}")
    assert len(theirs) == 437
    assert set(ours) - set(theirs) == set(COPIES)
    assert all(ours[name] == shape for name, shape in theirs.items())
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[f"da3-{size}"].parameters


@pytest.mark.parametrize("size", ["small", "base"])
def test_the_configuration_is_the_published_one_to_the_byte(size: str) -> None:
    text = published_json(size)
    stated = PUBLISHED[f"da3-{size}"].sha256["config.json"]
    assert hashlib.sha256(text).hexdigest() == stated
    config = ManyViewConfig.from_published(json.loads(text)["config"])
    assert config == SIZES[size][0]
    assert config.global_layers == (5, 7, 9, 11)


def test_a_published_folder_gives_the_published_numbers(tmp_path: Path) -> None:
    """From the name of the folder, or of the file in it, to depth, rays and cameras."""
    folder = save_folder(tmp_path / "hub")
    for path in (folder, folder / "model.safetensors"):
        model = load_model(path, device="cpu", precision="float32")
        agrees(model.many_view(golden_views(), rays=True), "v3", (70, 98))
    assert model.is_many_view
    assert model.recommendation == Recommendation("flow", True, False, False, "edges")
    text = "\n".join(describe_checkpoint(folder))
    assert "409 tensors" in text
    assert "blocks 3, 5, 7, 9 see all views" in text


def test_bfloat16_differs_within_bounds(tmp_path: Path) -> None:
    """0.5 to 1 % was seen in the published program; head and cameras stay in float32."""
    folder, images = save_folder(tmp_path / "hub"), golden_views()
    model = load_model(folder, device="cpu", precision="bfloat16")
    network = model.many_view
    assert network.backbone.pretrained.blocks[3].attn.qkv.weight.dtype == torch.bfloat16
    assert network.backbone.pretrained.blocks[3].attn.q_norm.weight.dtype == torch.float32
    assert network.head.projects[0].weight.dtype == torch.float32
    assert network.cam_dec.fc_t.weight.dtype == torch.float32
    with torch.inference_mode(), model.autocast():
        half = network(images, reference="middle").maps.depth
    exact = load_model(folder, device="cpu", precision="float32").many_view(
        images, reference="middle"
    )
    error = (half - exact.maps.depth).norm() / exact.maps.depth.norm()
    assert 1e-5 < error < 0.03


def test_all_names_are_accepted_if_the_copies_are_equal(tmp_path: Path) -> None:
    weights = dict(tiny_weights())
    for name in COPIES:
        weights[name] = weights[SHARED.format(0, name.rpartition(".")[2])].clone()
    load_network(save_folder(tmp_path / "all", weights=weights))
    weights[COPIES[-1]] = weights[COPIES[-1]] + 1
    refused(save_folder(tmp_path / "unequal", weights=weights), "they are one weight")
    del weights[COPIES[-1]]
    refused(save_folder(tmp_path / "part", weights=weights), "1 weights are missing")


# --- anything else is refused ----------------------------------------------------------------


def refused(path: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    "name", [SHARED.format(0, "weight"), "model.cam_enc.trunk_norm.bias", "model.head.norm.weight"]
)
def test_missing_weights(tmp_path: Path, name: str) -> None:
    weights = {n: t for n, t in tiny_weights().items() if n != name}
    refused(save_folder(tmp_path / "hub", weights=weights), "weights are missing")


@pytest.mark.parametrize("name", ["model.gs_head.w", "backbone.norm.weight", "x" * 1000])
def test_surplus_weights(tmp_path: Path, name: str) -> None:
    weights = {**tiny_weights(), name: torch.ones(3)}
    refused(save_folder(tmp_path / "hub", weights=weights), "1 unknown weights")


def test_misshapen_weights(tmp_path: Path) -> None:
    weights = {**tiny_weights(), "model.cam_dec.fc_t.bias": torch.ones(4)}
    refused(save_folder(tmp_path / "hub", weights=weights), r"fc_t.bias has shape \(4,\)")


def changed(part: str, entry: str, value: Any) -> dict[str, Any]:
    """The golden network's config.json with one entry changed; None: left out."""
    config = copy.deepcopy(tiny_config())
    place = config["config"] if part == "config" else config["config"][part]
    if value is None:
        place.pop(entry, None)
    else:
        place[entry] = value
    return config


@pytest.mark.parametrize(
    ("part", "entry", "value", "words"),
    [
        ("config", "__object__", {"name": "NestedDepthAnything3Net"}, "NestedDepthAnything3Net"),
        ("config", "__object__", "os.system", "class None"),
        ("config", "__object__", None, "class None"),
        ("config", "gs_head", {"dim": 3}, "gs_head"),
        ("config", "cam_dec", None, "cam_dec is missing"),
        ("net", "__object__", {"name": "Eval"}, "the class Eval"),
        ("head", "__object__", {"name": "DPT"}, "the class DPT"),
        ("net", "name", "vitg", "vitg"),
        ("net", "name", ["vits"], "backbone"),
        ("net", "alt_start", None, "net has no alt_start"),
        ("net", "ffn_layer", "swiglu", "unknown entry ffn_layer"),
        ("net", "cat_token", False, "cat_token"),
        ("net", "cat_token", 1, "cat_token"),
        ("net", "embed_dim", 10**9, "implausible"),
        ("net", "embed_dim", 60000, "out of range"),
        ("net", "embed_dim", "64", "whole number"),
        ("net", "embed_dim", 60, "does not split"),
        ("net", "embed_dim", 128, "dim_in=128 is not supported, only 256"),
        ("net", "depth", 200, "out of range"),
        ("net", "depth", 10.0, "whole number"),
        ("net", "depth", 12, "weights are missing"),
        ("net", "num_heads", 5, "does not split"),
        ("net", "num_heads", 0, "out of range"),
        ("net", "num_heads", 2, "has shape"),
        ("net", "out_layers", [3, 5, 7], "four whole numbers"),
        ("net", "out_layers", [3, 5, 7, 10], "not four blocks"),
        ("net", "out_layers", [5, 3, 7, 9], "not four blocks"),
        ("net", "out_layers", {"a": 1}, "four whole numbers"),
        ("net", "alt_start", True, "whole number"),
        ("net", "alt_start", 1, "starting block"),
        ("net", "qknorm_start", 3, "weights are missing|unknown weights"),
        ("net", "rope_start", -1, "starting block"),
        ("head", "output_dim", 3, "output_dim"),
        ("head", "features", 0, "out of range"),
        ("head", "features", 30, "does not split"),
        ("head", "out_channels", [12, 24, 48, 98], "does not split"),
        ("head", "out_channels", "abcd", "four whole numbers"),
        ("cam_enc", "dim_out", 63, "dim_out"),
        ("cam_dec", "dim_in", [], "dim_in"),
    ],
)
def test_other_configurations(
    tmp_path: Path, part: str, entry: str, value: Any, words: str
) -> None:
    refused(save_folder(tmp_path / "hub", changed(part, entry, value)), words)


def test_a_small_file_that_asks_for_much_uses_no_memory(tmp_path: Path) -> None:
    sizes = {"embed_dim": 4096, "depth": 96, "num_heads": 16, "out_layers": [1, 2, 3, 95]}
    config = tiny_config()
    config["config"]["net"] |= sizes
    config["config"]["head"] |= {"features": 4096, "out_channels": [4096] * 4, "dim_in": 8192}
    config["config"]["cam_enc"]["dim_out"], config["config"]["cam_dec"]["dim_in"] = 4096, 8192
    folder = save_folder(tmp_path / "hub", config, {"model.w": torch.ones(2)})
    assert peak_growth(lambda: refused(folder, "weights are missing")) < 64


def test_conversion_to_one_file_and_back_to_the_published_folder(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "hub")
    ours, back = tmp_path / "out.safetensors", tmp_path / "back"
    convert_checkpoint(folder, ours)
    convert_checkpoint(ours, back)
    before = load_network(folder)[0]
    assert load_network(ours)[0].config == before.config
    for place in (ours, back):
        for name, weight in load_network(place)[0].state_dict().items():
            assert torch.equal(weight, before.state_dict()[name]), name
    assert json.loads((back / "config.json").read_text())["config"] == tiny_config()["config"]
    assert load_network(ours)[1].items() >= {"stereo": "off", "converted_from": "hub"}.items()
    convert_checkpoint(folder, tmp_path / "half.safetensors", half=True)
    half = load_network(tmp_path / "half.safetensors")[0].state_dict()
    assert {weight.dtype for weight in half.values()} == {torch.float16}
    for target, message in (("x.pth", "is a folder"), ("half", "leave out half")):
        with pytest.raises(CheckpointError, match=message):
            convert_checkpoint(folder, tmp_path / target, half=True)
        assert not (tmp_path / target).exists()
    with pytest.raises(OutputError, match="exists"):
        convert_checkpoint(ours, back)


@pytest.mark.parametrize("size", ["small", "base"])
def test_our_published_configuration_has_the_published_text(size: str) -> None:
    text = json.dumps(SIZES[size][0].to_published(f"da3-{size}"), indent=2).encode()
    assert hashlib.sha256(text).hexdigest() == PUBLISHED[f"da3-{size}"].sha256["config.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown entries surprise"),
        ({"depth": 97}, "out of range"),
        ({"image_size": 5000}, "size of the frames"),
        ({"out_layers": "abcd"}, "not four whole numbers"),
        ({"features": 0.5}, "no whole number"),
    ],
)
def test_our_own_files_with_hostile_sizes_are_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    config = {**TINY.to_dict(), **change}
    write_checkpoint(tmp_path / "a.safetensors", {"w": torch.ones(2)}, config, {})
    with pytest.raises(CheckpointError, match=message):
        load_network(tmp_path / "a.safetensors")


def test_nothing_that_needs_pairs_takes_it(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "hub")
    with pytest.raises(InputError, match="no pointmaps of pairs"):
        _ = load_model(folder, device="cpu").two_view
    with pytest.raises(InputError, match="it sees pairs of frames only"):
        _ = prepare_model(tiny_network(), "tiny", device="cpu").many_view


# --- downloads, at full size -----------------------------------------------------------------


def random_weights(size: str) -> bytes:
    """A weights file of the published size with small random numbers."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.02 * torch.randn(shape, generator=generator)
        for name, shape in listed(f"keys_{size}").items()
    }
    return save(weights, {name: SHARED.format(0, name.rpartition(".")[2]) for name in COPIES})


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
def test_a_download_at_full_size(hub: Any, monkeypatch: Any, size: str) -> None:  # noqa: F811
    """From the name to the network; a file with another checksum than ours is refused."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000_000)
    name, content = f"da3-{size}", random_weights(size)
    entry = PUBLISHED[name]
    sizes = {"small": 137_248_940, "base": 541_518_028}
    assert abs(len(content) - sizes[size]) < 4000  # the header's spaces and metadata
    hub.files = {
        f"{entry.repository}/config.json": published_json(size),
        f"{entry.repository}/model.safetensors": content,
    }
    with pytest.raises(CheckpointError, match="checksum"):
        download(name)
    known = {**entry.sha256, "model.safetensors": hashlib.sha256(content).hexdigest()}
    monkeypatch.setitem(PUBLISHED, name, replace(entry, sha256=known))
    model = load_model(name, device="cpu")
    assert (model.name, model.facts["licence"]) == (name, "Apache-2.0")
    assert model.facts["repository"] == f"depth-anything/DA3-{size.upper()}"
    assert sum(p.numel() for p in model.network.parameters()) == entry.parameters
