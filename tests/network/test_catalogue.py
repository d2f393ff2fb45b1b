"""The tables of models, and finding a model by name or path."""

from __future__ import annotations

import shutil

import pytest
import torch

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.catalogue import (
    EMBEDDED,
    NON_COMMERCIAL,
    PUBLISHED,
    EmbeddedModel,
    published_model,
)
from dyn3r.network.checkpoints.locate import locate
from dyn3r.network.config import NetworkConfig
from dyn3r.network.network import PointmapNetwork


def test_the_names_that_people_know():
    names = ["da3-small", "da3-base"]
    names += ["dust3r-512-dpt", "dust3r-512-linear", "dust3r-224-linear", "monst3r-512-dpt"]
    names += [
        "raft",
        "raft-small",
        "sam2.1-tiny",
        "sam2.1-small",
        "sam2.1-base-plus",
        "sam2.1-large",
    ]
    assert list(PUBLISHED) == names
    assert "compact" in EMBEDDED
    assert not set(EMBEDDED) & set(PUBLISHED)


def test_every_entry_is_complete():
    for name, model in PUBLISHED.items():
        assert model.licence, name
        assert model.paper, name
        assert bool(model.repository) != bool(model.url), name
        assert all(set(digits) <= set("0123456789abcdef") for digits in model.sha256.values())
        assert set(model.sha256) <= set(model.files)
        if model.use == "geometry":
            assert model.licence == ("Apache-2.0" if name.startswith("da3") else NON_COMMERCIAL)
            assert model.files == ("config.json", "model.safetensors")


@pytest.mark.parametrize("name", ["dust3r-512-dpt", "dust3r-512-linear"])
def test_parameters_are_those_of_our_network(name):
    with torch.device("meta"):
        network = PointmapNetwork(NetworkConfig(head=name.rpartition("-")[2]))
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[name].parameters
    assert PUBLISHED[name].approximate_bytes == 4 * PUBLISHED[name].parameters
    assert PUBLISHED["sam2.1-tiny"].approximate_bytes is None


def test_raft_is_where_torchvision_looks():
    for name, digits in (("raft", "ff5fadd5"), ("raft-small", "01064c6d")):
        model = PUBLISHED[name]
        assert model.url.endswith("/" + model.files[0])
        assert model.sha256 == {model.files[0]: digits}
    assert PUBLISHED["raft"].approximate_bytes == 21_030_144


def test_an_embedded_model(monkeypatch, tmp_path):
    class Here(EmbeddedModel):
        path = tmp_path / "m.safetensors"

    monkeypatch.setitem(EMBEDDED, "made-up", Here("m.safetensors", "a model"))
    with pytest.raises(CheckpointError, match="missing from this installation"):
        locate("made-up")
    Here.path.touch()
    found = locate("made-up")
    assert (found.name, found.path) == ("made-up", Here.path)
    assert found.facts == {"licence": "Apache-2.0", "description": "a model"}
    assert EmbeddedModel("x.safetensors", "").path.parent.name == "weights"


def test_a_path(tmp_path, monkeypatch):
    path = tmp_path / "mine.pth"
    path.touch()
    found = locate(str(path))
    assert found.path == path
    assert found.facts == {"file": str(path)}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/mine.pth").path == path


def test_a_published_file_that_was_brought_by_hand_keeps_its_licence(tmp_path):
    path = tmp_path / "MonST3R_PO-TA-S-W_ViTLarge_BaseDecoder_512_dpt.pth"
    path.touch()
    assert locate(str(path)).facts["licence"] == NON_COMMERCIAL
    folder = tmp_path / "DUSt3R_ViTLarge_BaseDecoder_512_dpt"
    folder.mkdir()
    assert "DUSt3R" in locate(str(folder)).facts["paper"]
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("place", "known"),
    [
        ("DA3-SMALL/model.safetensors", True),
        ("models--depth-anything--DA3-BASE/snapshots/0123/model.safetensors", True),
        ("da3-base.safetensors", True),
        ("not-da3-small/model.safetensors", False),
        ("da3-small-experiments/dust3r.pth", False),
        ("da3-smaller.safetensors", False),
    ],
)
def test_a_licence_that_permits_needs_the_whole_name(tmp_path, place, known):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert (locate(str(path)).facts.get("licence") == "Apache-2.0") == known


def test_names_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match=r"no model or file named 'dust4r'.*dust3r-512-dpt"):
        locate("dust4r")
    with pytest.raises(CheckpointError) as caught:
        locate("raft", use="geometry")
    assert "one for geometry is needed here" in str(caught.value)
    with pytest.raises(CheckpointError, match="one for masks is needed here"):
        locate("compact", use="masks")
    with pytest.raises(CheckpointError, match="nothing to download"):
        published_model("compact")
    with pytest.raises(CheckpointError, match="no published model named 'x'"):
        published_model("x")
