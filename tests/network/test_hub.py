"""Published weights by name, from a hub on this machine that serves random tiny ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import save

from dyn3r.cli.models import Download, ListModels
from dyn3r.errors import CheckpointError, InputError
from dyn3r.network.checkpoints import hub as hub_module
from dyn3r.network.checkpoints.catalogue import PUBLISHED, PublishedModel
from dyn3r.network.checkpoints.hub import cached_files, download, is_offline, licence_is_news
from dyn3r.network.checkpoints.locate import locate
from dyn3r.network.model import load_model
from tests.network.golden_network import SIZES, golden_network
from tests.network.local_hub import COMMIT, LocalHub, local_hub

NAME = "monst3r-512-dpt"
REPOSITORY = PUBLISHED[NAME].repository
WEIGHTS = f"{REPOSITORY}/model.safetensors"
CONFIG = {
    "pos_embed": "RoPE100",
    "patch_embed_cls": "ManyAR_PatchEmbed",
    "img_size": [512, 512],
    "head_type": "linear",
    "output_mode": "pts3d",
    "depth_mode": ["exp", float("-inf"), float("inf")],
    "conf_mode": ["exp", 1, float("inf")],
    **SIZES,
    "landscape_only": False,
}


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    """A repository in the published layout: the golden network instead of the large one."""
    weights = save(golden_network("linear").state_dict(), {"format": "pt"})
    return {
        f"{REPOSITORY}/config.json": json.dumps(CONFIG).encode(),
        WEIGHTS: weights,
        f"{REPOSITORY}/README.md": b"# a model",
    }


def set_endpoint(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What HF_ENDPOINT does when huggingface_hub is imported."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for module in (constants, file_download):  # the library's versions differ in who has it
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """The local hub as the one that huggingface_hub talks to, with an empty cache."""
    with local_hub() as server:
        server.files = dict(published)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        set_endpoint(monkeypatch, server.hub_url)
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # what a break may cost
        monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
        yield server


def refused(words: str, name: str = NAME, error: type = CheckpointError, **options) -> str:
    with pytest.raises(error, match=words) as caught:
        download(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def whole(folder: Path, hub: LocalHub) -> bool:
    return all(
        (folder / file).read_bytes() == hub.files[f"{REPOSITORY}/{file}"]
        for file in ("config.json", "model.safetensors")
    )


def leftovers(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*.part") if path.stat().st_size]


# --- it works --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_download_and_nothing_twice(hub, tmp_path):
    assert cached_files(NAME) is None
    seen: list[tuple[str, int, int]] = []
    folder = download(NAME, progress=lambda *step: seen.append(step))
    assert whole(folder, hub)
    assert folder.is_relative_to(tmp_path / "home" / "hub")  # HF_HOME
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert cached_files(NAME) == folder
    assert not leftovers(tmp_path)
    stages = {stage for stage, _, _ in seen}
    assert f"{NAME}: model.safetensors (MB)" in stages
    assert all(0 <= done <= total for _, done, total in seen)
    for stage in stages:
        assert [s for s in seen if s[0] == stage][-1][1:] == (seen[-1][2],) * 2 or "config" in stage

    hub.requests.clear()
    assert locate(NAME).path == folder  # what is there is used without asking anybody
    assert not hub.requests
    assert download(NAME) == folder  # asked for by hand, it is checked, and not fetched again
    assert not hub.transfers()


@pytest.mark.slow
def test_load_model_by_name(hub, published):
    model = load_model(NAME, device="cpu", precision="float32")
    expected = golden_network("linear").state_dict()
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert model.name == NAME
    assert model.facts["licence"].startswith("CC BY-NC-SA 4.0")
    assert "MonST3R" in model.facts["paper"]
    assert model.facts["repository"] == REPOSITORY
    assert model.facts["revision"] == COMMIT


@pytest.mark.slow
def test_the_licence_is_logged_once(hub, caplog):
    with caplog.at_level(logging.WARNING, "dyn3r"):
        download(NAME)
        assert "CC BY-NC-SA" not in caplog.text  # the command prints it
        locate(NAME)
        locate(NAME)
    logged = [record.message for record in caplog.records if "CC BY-NC-SA" in record.message]
    assert logged == [f"{NAME} is under {PUBLISHED[NAME].licence}"]


def test_models_whose_files_are_listed_by_the_server(hub):
    repository = PUBLISHED["sam2.1-tiny"].repository
    hub.files |= {
        f"{repository}/config.json": b"{}",
        f"{repository}/video_preprocessor_config.json": b"{ }",
        f"{repository}/model.safetensors": save({"w": torch.ones(2)}),
        f"{repository}/sam2.1.pt": b"another layout",
    }
    folder = download("sam2.1-tiny")
    names = {file.name for file in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "video_preprocessor_config.json"}
    assert cached_files("sam2.1-tiny") == folder


def test_a_single_file_that_is_not_on_the_hub(hub, tmp_path, monkeypatch):
    content = os.urandom(300_000)
    digits = hashlib.sha256(content).hexdigest()[:8]
    file = f"raft-{digits}.pth"
    model = PublishedModel(
        "flow", "licence", "paper", url=f"{hub.bytes_url}/bytes/files/{file}", files=(file,),
        sha256={file: digits}, use="flow",
    )  # fmt: skip
    monkeypatch.setitem(PUBLISHED, "raft", model)
    hub.files[f"files/{file}"] = content
    hub.break_after, hub.fail_with = [100_000], [410]
    refused("error 410", "raft")
    path = download("raft")
    assert hub.transfers()[-1] == "bytes=100000-"
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / file
    assert path.read_bytes() == content
    assert locate("raft", use="flow").path == path
    with pytest.raises(CheckpointError, match="for flow; one for geometry"):
        load_model("raft")

    path.unlink()
    hub.corrupt = True
    refused("not the published file", "raft")
    assert cached_files("raft") is None
    hub.corrupt, hub.plain = False, True
    hub.files = {f"mirror/{file}": content}
    assert download("raft", mirror=f"{hub.hub_url}/mirror/") == path


# --- it breaks -------------------------------------------------------------------------------


def test_a_broken_connection_is_taken_up_in_the_same_run(hub, tmp_path):
    hub.break_after = [100_000, 200_000]
    assert whole(download(NAME), hub)
    assert hub.transfers() == [None, "bytes=100000-", "bytes=300000-"]
    assert not leftovers(tmp_path)


def test_a_broken_run_goes_on_where_it_stopped(hub, tmp_path):
    hub.break_after, hub.fail_with = [150_000], [410]
    refused("error 410")
    assert cached_files(NAME) is None
    assert [path.stat().st_size for path in leftovers(tmp_path)] == [150_000]
    hub.requests.clear()
    assert whole(download(NAME), hub)
    assert hub.transfers() == ["bytes=150000-"]
    assert not leftovers(tmp_path)


def test_a_server_that_cannot_send_parts_starts_again(hub):
    hub.break_after, hub.fail_with = [150_000], [410]
    refused("error 410")
    hub.ignore_range = True
    assert whole(download(NAME), hub)


def test_a_file_that_changed_meanwhile_is_not_patched_together(hub):
    hub.break_after, hub.fail_with = [150_000], [410]
    refused("error 410")
    old = hub.files[WEIGHTS]
    hub.files[WEIGHTS] = old[:-4] + bytes([old[-4] ^ 1]) + old[-3:]
    hub.requests.clear()
    assert whole(download(NAME), hub)
    assert hub.transfers() == [None]


def test_a_damaged_cache_is_found_and_mended(hub, caplog):
    blob = (download(NAME) / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[5000] ^= 1
    blob.write_bytes(content)
    with caplog.at_level(logging.WARNING, "dyn3r"):
        assert whole(download(NAME), hub)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("way", ["bytes", "table", "small file"])
def test_a_wrong_checksum_is_refused(hub, tmp_path, monkeypatch, way):
    if way == "bytes":
        hub.corrupt = True
    elif way == "table":  # a mirror that agrees with itself is not enough
        from dataclasses import replace

        known = {"model.safetensors": "ab" * 32}
        monkeypatch.setitem(PUBLISHED, NAME, replace(PUBLISHED[NAME], sha256=known))
    else:
        hub.files[f"{REPOSITORY}/config.json"] = b"{}"
        monkeypatch.setattr(hub_module, "_stated_checksum", lambda etag: ["0" * 40])
    refused("not the published file .*deleted")
    assert cached_files(NAME) is None
    assert not leftovers(tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_server_that_sends_more_than_it_said(hub, tmp_path):
    hub.send_more = 20_000_000
    refused("more than the .* announced")
    assert cached_files(NAME) is None
    assert not leftovers(tmp_path)


# --- refusals --------------------------------------------------------------------------------


def test_a_server_without_a_length_is_cut_off_where_no_such_file_ends(hub, tmp_path, monkeypatch):
    """Neither metadata nor transfer state a length: the body ends with the connection."""
    from huggingface_hub import file_download as library

    original = library.get_hf_file_metadata

    def unknown(*arguments, **options):
        facts = original(*arguments, **options)
        return dataclasses.replace(facts, size=None)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unknown)
    hub.files[f"{REPOSITORY}/config.json"] = b" " * 5_000_000
    refused("more than the 1048576 bytes expected")
    assert cached_files(NAME) is None
    assert not leftovers(tmp_path)
    largest = max(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    assert largest < 1_000_000


def test_a_server_that_announces_an_implausible_length(hub, tmp_path):
    hub.files[f"{REPOSITORY}/config.json"] = b" " * 2_000_000
    refused("announces 2 MB, more than such a file has")
    assert not leftovers(tmp_path)


JUNK = {
    "no JSON": ("config.json", b"<html>"),
    "a list": ("config.json", b"[]"),
    "another network": (
        "config.json",
        json.dumps({**CONFIG, "enc_depth": SIZES["enc_depth"] + 1}).encode(),
    ),
    "no weights": ("model.safetensors", bytes(1_000_000)),
    "other weights": ("model.safetensors", save({"w": torch.ones(2)})),
}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_does_not_become_a_model(hub, tmp_path, kind):
    """The server's checksums agree with its files."""
    file, content = JUNK[kind]
    hub.files[f"{REPOSITORY}/{file}"] = content
    refused("was deleted: ")
    assert cached_files(NAME) is None
    assert not leftovers(tmp_path)


def test_weights_that_are_not_finite_do_not_become_a_model(hub, tmp_path):
    weights = golden_network("linear").state_dict()
    next(iter(weights.values())).view(-1)[0] = float("nan")
    hub.files[WEIGHTS] = save(weights, {"format": "pt"})
    refused("not finite")
    assert cached_files(NAME) is None


def test_a_missing_file(hub):
    del hub.files[WEIGHTS]
    message = refused("lacks a required file")
    assert "model.safetensors" in message
    assert "by hand" in message


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, "RepoNotFound"), "no access .*HF_TOKEN"),
        ((401, ""), "no access .*HF_TOKEN"),
        ((403, ""), "no access .*HF_TOKEN"),
        ((403, "GatedRepo"), "gated: accept its terms"),
        ((401, "GatedRepo"), "gated: accept its terms"),
        ((404, "RevisionNotFound"), "no main branch"),
        ((500, ""), "error 500"),
        ((503, ""), "error 503"),
    ],
)
def test_a_server_that_refuses(hub, refusal, words):
    hub.refuse = refusal
    refused(words)


def test_a_repository_that_is_not_there(hub):
    hub.files.clear()
    refused("no access")
    refused("no access", "sam2.1-large")


def test_a_server_that_is_no_hub(hub):
    hub.plain = True
    refused("does not follow the hub's protocol")


@pytest.mark.parametrize("etag", ["../../../../escaped", "/etc/escaped", ".hidden"])
def test_a_server_cannot_choose_where_files_go(hub, tmp_path, etag):
    hub.etag = etag
    refused("does not follow the hub's protocol")
    assert not list(tmp_path.rglob("*escaped*"))


def test_no_connection(hub, monkeypatch):
    with local_hub() as gone:
        address = gone.hub_url
    set_endpoint(monkeypatch, address)
    message = refused("no connection")
    assert f"config.json and model.safetensors of {REPOSITORY}" in message
    assert "--model FOLDER" in message
    assert "raft" in refused("no connection", "raft", mirror=address)


def test_the_offline_flag(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert is_offline()
    assert "by hand" in refused("offline flag .HF_HUB_OFFLINE")
    with pytest.raises(CheckpointError, match="offline flag"):
        load_model(NAME)
    assert not hub.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = download(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert download(NAME) == folder == locate(NAME).path
    assert not hub.requests


def test_no_room(hub, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr("dyn3r.io.download.shutil.disk_usage", lambda path: usage)
    refused("GB left")


# --- mirrors and tokens ----------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download(NAME)
    assert hub.authorisations("/resolve/") == {"Bearer hf_secret"}
    assert hub.authorisations("/bytes/") == {None}


def test_a_mirror_gets_no_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    set_endpoint(monkeypatch, "http://127.0.0.1:1")
    assert whole(download(NAME, mirror=hub.hub_url + "/"), hub)
    assert hub.authorisations("/") == {None}


@pytest.mark.parametrize(
    "mirror",
    ["hub.example.org", "file:///etc", "ftp://x", "https://", "", "http://a b", "http://a:b"],
)
def test_addresses_that_are_none(hub, mirror):
    refused("--from-mirror needs an address", error=InputError, mirror=mirror)


# --- the command -----------------------------------------------------------------------------


def test_an_environment_without_an_address(monkeypatch):
    for address in ("http://[", "nonsense", "http://" + "a" * 300):
        monkeypatch.setenv("HF_ENDPOINT", address)
        for ask in (download, cached_files):
            with pytest.raises(InputError, match="HF_ENDPOINT needs an address"):
                ask(NAME)


def test_the_list(hub, capsys):
    ListModels()()
    before = capsys.readouterr().out
    lines = {line.split()[0]: line for line in before.splitlines() if line}
    for name in ("dust3r-512-dpt", "dust3r-512-linear", "dust3r-224-linear", NAME):
        assert "CC BY-NC-SA 4.0" in lines[name]
        assert " no " in lines[name]
    assert "~2.3 GB" in lines[NAME]
    download(NAME)
    ListModels()()
    after = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert " cached " in after[NAME]
    assert f"{len(hub.files[WEIGHTS]) / 1e6:.1f} MB" in after[NAME]


def test_download_command(hub, capsys):
    Download((NAME,))()
    assert not licence_is_news(NAME)
    captured = capsys.readouterr()
    assert "CC BY-NC-SA 4.0" in captured.out
    assert "MonST3R" in captured.out
    assert "model.safetensors (MB)" in captured.err
    Download((NAME,), from_mirror=hub.hub_url, quiet=True)()
    assert capsys.readouterr() == ("", "")
    for names in ((), ("nonsense",), (NAME, "compact")):
        with pytest.raises((InputError, CheckpointError)):
            Download(names)()


@pytest.mark.slow
def test_the_environment_is_respected(hub, tmp_path):
    """In a process of its own, because huggingface_hub reads its variables when it is imported."""
    script = f"from dyn3r.cli.models import Download; Download(({NAME!r},), quiet=True)()"
    home = tmp_path / "elsewhere"
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.hub_url}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", script]
    subprocess.run(command, env={**environment, "HF_HUB_OFFLINE": "0"}, check=True)
    assert list(home.rglob("model.safetensors"))
    hub.requests.clear()
    offline = {**environment, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "third")}
    result = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert "offline flag" in result.stderr
    assert not hub.requests
