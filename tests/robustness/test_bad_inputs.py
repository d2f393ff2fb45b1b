"""Bad inputs over all commands, in this process.

Each ends with exit code 1 (2 for wrong usage) and one line that names what is wrong, without a
traceback. Nothing is left on the disk, and nothing that was there is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dyn3r.cli.main import main
from tests.factories import tiny_scene
from tests.robustness.bad_files import IMAGES
from tests.robustness.bad_scenes import bad_checkpoints, bad_scenes
from tests.robustness.cases import (
    RUN,
    Case,
    known_cases,
    option_cases,
    source_cases,
    truth_cases,
    with_file,
)
from tests.robustness.snapshot import snapshot


def scene_cases(folder: Path) -> Iterator[Case]:
    faults = bad_scenes(folder)
    yield from with_file("info scene", faults, "bad.dyn3r", "info", "{bad}")
    export = ("export", "{bad}", "--to", "ply", "-o", "{folder}/a.ply", "-q")
    yield from with_file("export scene", dict(list(faults.items())[::4]), "bad.dyn3r", *export)
    view = ("view", "{bad}", "--screenshot", "{folder}/a.png", "-q")
    yield from with_file("view scene", dict(list(faults.items())[1::8]), "bad.dyn3r", *view)
    resume = (*RUN, "--resume", "{bad}")
    yield from with_file("resume scene", dict(list(faults.items())[2::8]), "bad.dyn3r", *resume)
    cameras = (*RUN, "--known.cameras", "{bad}")
    yield from with_file("cameras scene", dict(list(faults.items())[3::8]), "bad.dyn3r", *cameras)


def output_cases() -> Iterator[Case]:
    keep = (("old/notes.txt", b"mine"),)
    yield Case("run into a full folder", (*RUN[:3], "{folder}/old", *RUN[4:]), keep, "old")
    yield Case("run into a file", (*RUN[:3], "{folder}/old/notes.txt", *RUN[4:]), keep, "notes.txt")
    yield Case("run below a file", (*RUN[:3], "{folder}/old/notes.txt/x", *RUN[4:]), keep, "notes")
    yield Case("run into the source", (*RUN[:3], "{frames}", *RUN[4:], "--overwrite"), (), "source")
    yield Case("run into a pipe", (*RUN[:3], "{folder}/pipe.mp4", *RUN[4:]), (), "pipe.mp4")
    export = ("export", "{scene}", "-q", "--to")
    for words, names in (
        (("nonsense",), "nonsense"),
        (("ply", "-o", "{folder}/a.xyz"), "a.xyz"),
        (("ply", "-o", "{folder}/old"), "old"),
        (("glb", "-o", "{folder}/old/notes.txt"), "notes.txt"),
        (("colmap", "-o", "{folder}/old"), "old"),
        (("masks", "--source", "nothing.mp4", "-o", "{folder}/m"), "nothing.mp4"),
        (("masks", "--source", "{frames}", "-o", "{frames}", "--overwrite"), "source"),
        (("ply", "--drop", "nan"), "drop"),
        (("ply", "--drop", "2"), "drop"),
        (("ply", "--max-points", "0"), "points"),
        (("tum", "-o", "/dev/null/x.txt"), "/dev/null"),
    ):
        yield Case(f"export {' '.join(words)}", (*export, *words), keep, names)
    view = ("view", "{scene}", "--no-browser")
    for words, names in (
        (("--turntable", "{folder}/x.xyz"), "x.xyz"),
        (("--screenshot", "{folder}/x.gif"), "x.gif"),
        (("--save", "{folder}/x.txt"), "x.txt"),
        (("--turntable", "{folder}/x.mp4", "--degrees", "nan"), "degrees"),
        (("--turntable", "{folder}/x.mp4", "--degrees", "inf"), "degrees"),
        (("--turntable", "{folder}/x.mp4", "--degrees", "0"), "degrees"),
        (("--screenshot", "{folder}/pipe.png", "--overwrite"), "pipe.png"),
        (("--port", "-1"), "port"),
        (("--port", "70000"), "port"),
        (("--host", "a" * 300), "host"),
        (("--host", "a..b"), "host"),
        (("--host", "300.1.1.1.1"), "host"),
    ):
        yield Case(f"view {' '.join(words)[:50]}", (*view, *words), (), names)
    for target in ("/dev/null", "{folder}/pipe.mp4", "{folder}"):
        words = ("eval", "{scene}", "--truth", "{folder}", "--json", target, "--overwrite")
        yield Case(f"eval --json {target}", words, (), target.rpartition("/")[2].strip("{}")[:4])


def checkpoint_cases(model: Path) -> Iterator[Case]:
    faults = bad_checkpoints(model.read_bytes())
    yield from with_file("info checkpoint", faults, "bad.safetensors", "info", "{bad}")
    convert = ("models", "convert", "{bad}", "{folder}/new.safetensors", "-q")
    yield from with_file("convert", faults, "bad.safetensors", *convert)
    tail = (*RUN[:5], "{bad}", *RUN[6:])
    yield from with_file("run checkpoint", dict(list(faults.items())[::3]), "b.safetensors", *tail)


def other_cases() -> Iterator[Case]:
    for address in ("", "hub", "ftp://hub.example", "http://", "http://[", "http://a b/",
                    "http://h:99999", "http://h?x=1", f"http://{'a' * 300}.example"):  # fmt: skip
        words = ("models", "download", "raft-small", "-q", "--from-mirror", address)
        yield Case(f"mirror {address[:30]}", words, (), " ")
    yield Case("download nothing", ("models", "download"), (), "name at least one")
    yield Case("download nonsense", ("models", "download", "nonsense"), (), "nonsense")
    yield Case("datasets get nonsense", ("datasets", "get", "nonsense"), (), "nonsense", code=2)
    for name, content in (("empty", b""), ("no UTF-8", b"\xff\xfe"), ("comments", b"# a\n")):
        words = ("batch", "{bad}", "-o", "{out}", "--model", "{model}", "-q")
        yield Case(f"batch list: {name}", words, (("list.txt", content),))
    yield Case("batch nothing", ("batch", "nothing", "-o", "{out}", "-q"), (), "nothing")
    for option, value in (
        ("--data", "kitchen:here"), ("--data", "folder:nothing"), ("--epochs", "3"),
        ("--validation", "folder:nothing"), ("--synthetic-share", "2"), ("--model", "nothing"),
        ("--sizes-hw", "100 100"),
    ):  # fmt: skip
        words = ("train", "{folder}/t", "-q", "--device", "cpu", option, *value.split())
        yield Case(f"train {option} {value}", words, (), option[2:6])
    for command in (("train",), ("train", "flow")):
        start = (*command, "{folder}/t", "-q", "--device", "cpu")
        for option, value in (
            ("--minutes", "nan"), ("--minutes", "-1"), ("--seed", "-1"), ("--seed", str(2**40)),
            ("--learning-rate", "nan"), ("--steps", "0"), ("--photos", "nothing"),
        ):  # fmt: skip
            words = (*start, option, value)
            yield Case(f"{' '.join(command)} {option} {value}", words, (), option[2:6])
        for device in ("meta", "nonsense"):
            words = (*start[:-1], device)
            yield Case(f"{' '.join(command)} --device {device}", words, (), device)
        for name, content in (
            ("bomb", IMAGES["bomb"]), ("one pixel", IMAGES["one pixel"]), ("text", b"hello"),
        ):  # fmt: skip
            words = (*start, "--photos", "{folder}/photos")
            yield Case(f"{' '.join(command)} photo: {name}", words, (("photos/a.png", content),))
        # the network of `train` is large: a third of the faults is enough
        for name, content in list(STATES.items())[:: 3 if len(command) == 1 else 1]:
            yield Case(f"{' '.join(command)} state: {name}", start, (("t/state.pt", content),))


def saved(value: object) -> bytes:
    import io

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


STATES = {
    "empty": b"",
    "text": b"hello",
    "pickle": b"\x80\x04}\x94.",
    "code": b"cposix\nsystem\n(S'true'\ntR.",
    "list": saved([1, 2]),
    "tensor": saved(torch.ones(3)),
    "empty dictionary": saved({}),
    "other weights": saved({"network": {"a": torch.ones(1)}, "average": {}, "optimiser": {}}),
    "numbers": saved({"network": 1, "average": 2, "optimiser": 3, "step": 4, "seconds": 5}),
}


@pytest.fixture(scope="module")
def place(tiny_model: Path, good_frames: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("scene")
    tiny_scene(3).save(folder)
    return {"model": str(tiny_model), "frames": str(good_frames), "scene": str(folder)}


def run(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:  # wrong usage
        return int(stop.code or 0)


def check(case: Case, place: dict[str, str], folder: Path, capfd: pytest.CaptureFixture) -> None:
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(folder / "pipe.png")
    bad = ""
    for name, content in case.files:
        bad = str(folder / name)
        Path(bad).parent.mkdir(parents=True, exist_ok=True)
        Path(bad).write_bytes(content)
    names = place | {"folder": str(folder), "bad": bad, "out": str(folder / "out")}
    others = [Path(place["frames"]), Path(place["scene"])]
    before = [snapshot(p) for p in (folder, *others)]
    code = run([word.format(**names) for word in case.words])
    said = capfd.readouterr()
    assert code == case.code, said.err
    assert "Traceback" not in said.err + said.out
    if case.code == 1:
        lines = [line for line in said.err.splitlines() if not line.startswith("WARNING")]
        assert len(lines) == 1, said.err
        assert lines[0].startswith("dyn3r: ")
        assert len(lines[0]) < 700
        assert (case.names or Path(bad).name) in lines[0]
    assert [snapshot(p) for p in (folder, *others)] == before


def ids(case: Case) -> str:
    return case.id


@pytest.mark.parametrize("case", [*source_cases(), *option_cases()], ids=ids)
def test_sources_and_options(case: Case, place: dict, tmp_path: Path, capfd) -> None:
    check(case, place, tmp_path, capfd)


@pytest.mark.parametrize("case", [*known_cases(), *truth_cases()], ids=ids)
def test_known_values_and_truth(case: Case, place: dict, tmp_path: Path, capfd) -> None:
    check(case, place, tmp_path, capfd)


@pytest.mark.parametrize("case", [*output_cases(), *other_cases()], ids=ids)
def test_outputs_and_other_commands(case: Case, place: dict, tmp_path: Path, capfd) -> None:
    check(case, place, tmp_path, capfd)


def test_scene_files(place: dict, tmp_path: Path, capfd) -> None:
    for number, case in enumerate(scene_cases(tmp_path)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            check(case, place, folder, capfd)
        except AssertionError as error:
            raise AssertionError(f"{case.id}: {error}") from error


def test_checkpoints(place: dict, tiny_model: Path, tmp_path: Path, capfd) -> None:
    for number, case in enumerate(checkpoint_cases(tiny_model)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            check(case, place, folder, capfd)
        except AssertionError as error:
            raise AssertionError(f"{case.id}: {error}") from error
