"""Checkpoint files: the layouts round-trip, and what is hostile or damaged is one clear line."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import math
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._utils import _rebuild_tensor_v2

from dyn3r.errors import CheckpointError, OutputError
from dyn3r.network.checkpoints.constructor_text import parse_constructor, parse_json_config
from dyn3r.network.checkpoints.files import read_checkpoint, write_checkpoint

PUBLISHED = (
    "AsymmetricCroCo3DStereo(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', "
    "img_size=(512, 512), head_type='dpt', output_mode='pts3d', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, "
    "dec_embed_dim=768, dec_depth=12, dec_num_heads=12, landscape_only=False)"
)
KEYWORDS = {
    "pos_embed": "RoPE100",
    "patch_embed_cls": "ManyAR_PatchEmbed",
    "img_size": (512, 512),
    "head_type": "dpt",
    "output_mode": "pts3d",
    "depth_mode": ("exp", -math.inf, math.inf),
    "conf_mode": ("exp", 1, math.inf),
    "enc_embed_dim": 1024,
    "enc_depth": 24,
    "enc_num_heads": 16,
    "dec_embed_dim": 768,
    "dec_depth": 12,
    "dec_num_heads": 12,
    "landscape_only": False,
}


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(5, generator=generator)
    return {
        "a.weight": torch.randn(3, 4, generator=generator),
        "a.bias": torch.randn(3, generator=generator).half(),
        "one": shared,
        "same": shared,
    }


def save_pth(path, **changes) -> None:
    content = {
        "args": argparse.Namespace(model=PUBLISHED, lr=1e-4, tags=["a"]),
        "model": weights(),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 7,
        "best_so_far": 0.25,
    }
    torch.save({**content, **changes}, path)


def assert_weights(tensors) -> None:
    for name, expected in weights().items():
        assert tensors[name].dtype == expected.dtype
        assert torch.equal(tensors[name], expected)


def refused(path, words: str, **options) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


# --- layouts ---------------------------------------------------------------------------------


def test_published_pth(tmp_path):
    save_pth(tmp_path / "net.pth")
    content = read_checkpoint(tmp_path / "net.pth")
    assert content.origin == "published-pth"
    assert content.config == KEYWORDS
    assert content.extras == {"epoch": 7, "best_so_far": 0.25}
    assert set(content.tensors) == set(weights())
    assert_weights(content.tensors)


def test_the_name_of_the_file_does_not_matter(tmp_path):
    save_pth(tmp_path / "net.bin")
    assert read_checkpoint(str(tmp_path / "net.bin")).origin == "published-pth"
    write_checkpoint(tmp_path / "net.pth", {"w": torch.ones(2)}, {}, {})
    assert read_checkpoint(tmp_path / "net.pth").origin == "dyn3r-safetensors"
    save_pth(tmp_path / "net.safetensors")
    refused(tmp_path / "net.safetensors", "rename it")


def save_hub(folder, config=None) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.clone() for name, tensor in weights().items()}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(KEYWORDS if config is None else config))


def test_hub_folder_and_the_file_in_it(tmp_path):
    save_hub(tmp_path / "hub")
    assert "Infinity" in (tmp_path / "hub" / "config.json").read_text()
    for path in (tmp_path / "hub", tmp_path / "hub" / "model.safetensors"):
        content = read_checkpoint(path)
        assert content.origin == "hub-folder"
        assert content.config == KEYWORDS
        assert_weights(content.tensors)


def test_own_layout_round_trips(tmp_path):
    path, config = tmp_path / "sub" / "net.safetensors", {"enc_depth": 4, "dims": (1, 2), "x": 1.5}
    tensors = {name: tensor.clone() for name, tensor in weights().items()}
    write_checkpoint(path, tensors, config, {"licence": "Apache-2.0"})
    content = read_checkpoint(path, check_finite=True)
    assert content.origin == "dyn3r-safetensors"
    assert content.config == config
    assert content.extras == {"licence": "Apache-2.0"}
    assert_weights(content.tensors)
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_writing_over_a_file_needs_permission(tmp_path):
    path = tmp_path / "net.safetensors"
    write_checkpoint(path, {"w": torch.ones(2)}, {}, {})
    with pytest.raises(OutputError, match="exists"):
        write_checkpoint(path, {"w": torch.zeros(2)}, {}, {})
    assert read_checkpoint(path).tensors["w"].sum() == 2
    write_checkpoint(path, {"w": torch.zeros(2)}, {}, {}, overwrite=True)
    assert read_checkpoint(path).tensors["w"].sum() == 0


def test_a_failed_write_leaves_nothing(tmp_path):
    shared = torch.ones(4)
    with pytest.raises(RuntimeError):  # safetensors refuses tensors that share memory
        write_checkpoint(tmp_path / "net.safetensors", {"a": shared, "b": shared}, {}, {})
    with pytest.raises(CheckpointError):
        write_checkpoint(tmp_path / "net.safetensors", {"a": shared}, {"enc_depth": 10**6}, {})
    assert not list(tmp_path.iterdir())


def test_another_version_of_our_layout(tmp_path):
    from safetensors.torch import save_file

    metadata = {"dyn3r_format": "2", "dyn3r_config": "{}"}
    save_file({"w": torch.ones(2)}, tmp_path / "net.safetensors", metadata)
    refused(tmp_path / "net.safetensors", "version 2")


# --- code ------------------------------------------------------------------------------------


class RunsCode:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("place", ["model", "args", "epoch", "extra"])
def test_a_pth_with_code_is_refused_and_the_code_not_run(tmp_path, place):
    save_pth(tmp_path / "evil.pth", **{place: RunsCode(tmp_path / "ran")})
    refused(tmp_path / "evil.pth", "contains code")
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_is_refused_unread(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(RunsCode(tmp_path / "ran")))
    refused(tmp_path / "evil.pth", "may run code")
    torch.save({"model": weights()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    refused(tmp_path / "old.pth", "save it again")
    assert not (tmp_path / "ran").exists()


def test_the_allow_list_is_given_back(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    save_pth(tmp_path / "net.pth")
    read_checkpoint(tmp_path / "net.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "AsymmetricCroCo3DStereo(enc_depth=__import__('os').getpid())",
        "AsymmetricCroCo3DStereo(enc_depth=2**9)",
        "AsymmetricCroCo3DStereo(enc_depth=other)",
        "AsymmetricCroCo3DStereo(**{'enc_depth': 3})",
        "AsymmetricCroCo3DStereo(24)",
        "AsymmetricCroCo3DStereo(enc_depth=-'a')",
        "AsymmetricCroCo3DStereo(enc_depth=b'a')",
        "AsymmetricCroCo3DStereo(enc_depth=3, enc_depth=4)",
        "AsymmetricCroCo3DStereo",
        "AsymmetricCroCo3DStereo(",
        "SomethingElse(enc_depth=3)",
        "AsymmetricCroCo3DStereo(a=" + "(" * 3000 + ")" * 3000 + ")",
        "AsymmetricCroCo3DStereo(a=" + "-" * 9000 + "1)",
        "AsymmetricCroCo3DStereo(a=" + "9" * 8000 + ")",
        "A" * 10**6,
        "a\x00b",
        "",
    ],
)
def test_constructor_texts_that_are_refused(text):
    with pytest.raises(CheckpointError):
        parse_constructor(text)


def test_constructor_text_is_read_as_python_would():
    assert parse_constructor(PUBLISHED) == KEYWORDS
    assert parse_constructor(" AsymmetricCroCo3DStereo() ") == {}
    assert parse_constructor("AsymmetricCroCo3DStereo(a=[1, (True, None)], b=-1.5)") == {
        "a": (1, (True, None)),
        "b": -1.5,
    }


@settings(deadline=None, max_examples=50)
@given(
    values=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-200, 200)
            | st.text("ab'\"\\é", max_size=5)
            | st.floats(allow_nan=False),
            lambda inner: st.lists(inner, max_size=3).map(tuple),
            max_leaves=5,
        ),
        max_size=5,
    )
)
def test_keywords_survive_both_notations(values):
    import keyword

    values = {name: value for name, value in values.items() if not keyword.iskeyword(name)}
    text = ", ".join(f"{name}={value!r}" for name, value in values.items())
    assert parse_constructor(f"AsymmetricCroCo3DStereo({text})") == values
    assert parse_json_config(json.dumps(values)) == values


# --- implausible sizes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    ["enc_depth=1000000", "dec_num_heads=1000", "enc_embed_dim=10**0", "img_size=(1, 99999999)"],
)
def test_implausible_configurations(tmp_path, entry):
    text = f"AsymmetricCroCo3DStereo({entry})"
    save_pth(tmp_path / "net.pth", args=argparse.Namespace(model=text))
    refused(tmp_path / "net.pth", "implausible")


def test_implausible_hub_configurations(tmp_path):
    for config in ({"enc_depth": 10**6}, [1, 2], {"a": {"depth": [10**9]}}):
        save_hub(tmp_path / "hub", config)
        refused(tmp_path / "hub", "implausible|not a JSON object")
    (tmp_path / "hub" / "config.json").write_text("[" * 10_000)
    refused(tmp_path / "hub", "not valid JSON")
    (tmp_path / "hub" / "config.json").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "hub", "not text")
    (tmp_path / "hub" / "config.json").write_text(" " * (2 << 20))
    refused(tmp_path / "hub", "implausibly large")


class Claims:
    """A tensor that claims a shape which its ten stored numbers don't fill."""

    def __init__(self, shape, stride) -> None:
        self.shape, self.stride = shape, stride

    def __reduce__(self):
        stored = torch.storage.TypedStorage(
            wrap_storage=torch.zeros(10).untyped_storage(), dtype=torch.float32, _internal=True
        )
        arguments = (stored, 0, self.shape, self.stride, False, collections.OrderedDict())
        return (_rebuild_tensor_v2, arguments)


@pytest.mark.parametrize(
    ("shape", "stride"), [((10**9,), (1,)), ((10**13,), (1,)), ((10**12,), (0,)), ((-5,), (1,))]
)
def test_shapes_that_are_not_in_the_file(tmp_path, shape, stride):
    save_pth(tmp_path / "net.pth", model={"w": Claims(shape, stride)})
    refused(tmp_path / "net.pth", "damaged|states the shape")


def repack(source, target, *, method=zipfile.ZIP_STORED, change=lambda name, content: content):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))


def test_archives_that_pytorch_does_not_write(tmp_path):
    save_pth(tmp_path / "net.pth")
    repack(tmp_path / "net.pth", tmp_path / "same.pth")
    assert_weights(read_checkpoint(tmp_path / "same.pth").tensors)
    repack(tmp_path / "net.pth", tmp_path / "bomb.pth", method=zipfile.ZIP_DEFLATED)
    refused(tmp_path / "bomb.pth", "compressed")
    short = tmp_path / "short.pth"
    repack(tmp_path / "net.pth", short, change=lambda n, c: c[:4] if "/data/0" in n else c)
    refused(short, "damaged")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "other.pth", "not a PyTorch checkpoint")


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.999, 0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("layout", ["pth", "ours"])
def test_truncated_files(tmp_path, layout, share):
    path = tmp_path / "net"
    if layout == "pth":
        save_pth(path)
    else:
        write_checkpoint(path, {"w": torch.ones(100)}, {"enc_depth": 2}, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "damaged|truncated|not a checkpoint")


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**9), layout=st.sampled_from(["pth", "ours"]))
def test_flipped_bytes_never_raise_anything_else(tmp_path_factory, seed, layout):
    folder = tmp_path_factory.mktemp("flipped")
    path, rng = folder / "net", np.random.default_rng(seed)
    if layout == "pth":
        save_pth(path)
    else:
        write_checkpoint(path, {"w": torch.ones(100)}, {"enc_depth": 2}, {})
    content = bytearray(path.read_bytes())
    for at in rng.integers(0, len(content), rng.integers(1, 8)):
        content[at] = rng.integers(256)
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):  # many flips hit a weight and can't be noticed
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, I am a text file", "not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a checkpoint"),
        (b"PK\x03\x04" + bytes(50), "damaged"),
        (struct.pack("<Q", 1 << 60) + b"{" + bytes(50), "damaged"),
        (struct.pack("<Q", 2) + b"{}", "no configuration|no weights"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, content, words):
    (tmp_path / "net.pth").write_bytes(content)
    refused(tmp_path / "net.pth", words)


def test_missing_files_and_incomplete_folders(tmp_path):
    refused(tmp_path / "nothing.pth", "no such")
    refused(tmp_path, "config.json")
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": 3}, "no weights"),
        ({"model": {}}, "no weights"),
        ({"model": {"w": "text"}}, "not a weight"),
        ({"model": {3: torch.ones(2)}}, "not a weight"),
        ({"model": {"w": torch.ones(2, dtype=torch.int64)}}, "whole numbers"),
        ({"model": {"w": torch.ones(3, 3).to_sparse()}}, "unsupported kind"),
        ({"model": {"w": torch.ones(3, device="meta")}}, "unsupported kind"),
        ({"args": None}, "no description"),
        ({"args": argparse.Namespace(model=None)}, "no description"),
    ],
)
def test_pth_with_something_else_inside(tmp_path, changes, words):
    save_pth(tmp_path / "net.pth", **changes)
    refused(tmp_path / "net.pth", words)


def test_a_pth_that_is_no_dictionary(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "net.pth")
    refused(tmp_path / "net.pth", "not a checkpoint")


def test_weights_that_are_not_finite(tmp_path):
    save_pth(tmp_path / "net.pth", model={"w": torch.tensor([1.0, math.nan])})
    assert read_checkpoint(tmp_path / "net.pth").tensors["w"].isnan().any()
    refused(tmp_path / "net.pth", "not finite", check_finite=True)


def test_weights_of_eight_bits_are_converted(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from dyn3r.network.checkpoints.convert import convert_checkpoint
    from dyn3r.network.checkpoints.reader import save_network
    from tests.factories import tiny_network

    save_network(tmp_path / "a.safetensors", tiny_network(), {})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    coarse = {
        name: tensor.to(torch.float8_e4m3fn)
        for name, tensor in load_file(tmp_path / "a.safetensors").items()
    }
    save_file(coarse, tmp_path / "b.safetensors", metadata)
    convert_checkpoint(tmp_path / "b.safetensors", tmp_path / "c.safetensors")
    found = load_file(tmp_path / "c.safetensors")
    for name, tensor in coarse.items():
        assert torch.equal(found[name], tensor.float())
