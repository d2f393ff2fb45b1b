"""Bad inputs over all commands, in this process.

Each ends with exit code 1 (2 for wrong usage) and one line that names what is wrong, without a
traceback. Nothing is left on the disk, and nothing that was there is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dyn3r.cli.main import main
from tests.factories import tiny_scene
from tests.robustness.bad_files import (
    CAMERA_ARCHIVES,
    CAMERA_JSON,
    CAMERA_TEXT,
    IMAGES,
    MASK_ARCHIVES,
    VIDEOS,
    archives,
    lens,
    masks,
    npz,
    png,
    poses,
    zero_bomb,
)
from tests.robustness.bad_scenes import bad_checkpoints, bad_scenes
from tests.robustness.snapshot import snapshot


@dataclass(frozen=True)
class Case:
    """A command line with one fault."""

    id: str
    words: tuple[str, ...]
    """Arguments; see `Place.filled` for the names in braces."""
    files: tuple[tuple[str, bytes], ...] = ()
    """Files below the folder of the test: name and content."""
    names: str = ""
    """Text that the message must have; by default the name of the last file."""
    code: int = 1


def with_file(kind: str, faults: dict[str, bytes], file: str, *words: str) -> Iterator[Case]:
    """One case for each content of a file, which `words` name as {bad}."""
    names = "truth" if file.startswith("truth/") else ""  # a fault may be that of the whole folder
    for fault, content in faults.items():
        yield Case(f"{kind}: {fault}", words, ((file, content),), names)


RUN = ("run", "{frames}", "-o", "{out}", "--model", "{model}", "-q", "--size", "64")
STREAM = ("stream", "{frames}", "-o", "{out}", "--model", "{model}", "-q", "--size", "64")
EVAL = ("eval", "{scene}", "--truth", "{folder}/truth", "--json", "{folder}/result.json")


def source_cases() -> Iterator[Case]:
    for command in ("run", "stream"):
        tail = (command, "{bad}", "-o", "{out}", "--model", "{model}", "-q", "--size", "64")
        yield from with_file(f"{command} image", IMAGES, "in/bad.png", *tail)
        yield from with_file(f"{command} video", VIDEOS, "in/bad.mp4", *tail)
        folder = (command, "{folder}/in", *tail[2:])
        good = ("in/a.png", png())
        for name, files, words in (
            ("folder without images", (("in/notes.txt", b"hello"),), "has no images"),
            ("folder with a damaged image", (good, ("in/b.png", b"hello")), "b.png"),
            ("folder with two sizes", (good, ("in/b.png", png((80, 48)))), "b.png"),
        ):
            yield Case(f"{command} {name}", folder, files, words)
        yield Case(f"{command} nothing", (command, "nothing.mp4", *tail[2:]), (), "nothing.mp4")
        too_long = "x" * 300 + ".mp4"
        yield Case(f"{command} too long", (command, too_long, *tail[2:]), (), "xxx.mp4")
        yield Case(f"{command} pipe", (command, "{folder}/pipe.mp4", *tail[2:]), (), "pipe.mp4")
        yield Case(f"{command} device", (command, "/dev/null", *tail[2:]), (), "/dev/null")


def option_cases() -> Iterator[Case]:
    shared = {
        "--fps": ("nan", "inf", "-1", "1e300"),
        "--start": ("nan", "inf", "-1", "1e300"),
        "--num-frames": ("0", "-1", "9" * 20),
        "--device": ("meta", "nonsense", "cuda:99", ""),
        "--model": ("", "~nouser/x", "nothing.safetensors", "x" * 300, "/dev/null", "{folder}"),
    }
    of_run = {
        "--size": ("0", "-16", "63", "100000"),
        "--known.fov": ("0", "nan", "inf", "400"),
        "--inference.memory-gb": ("0", "-1", "nan", "inf"),
        "--inference.batch-pairs": ("-1", "9" * 20),
        "--alignment.flow-weight": ("nan", "inf", "-1"),
        "--pairs": ("swin-0", "nonsense"),
        "--motion.refine": ("nonsense",),
        "--flow.estimator": ("nonsense", "nothing.safetensors"),
        "--motion-model": ("nothing.safetensors",),
        "--resume": ("nothing",),
        "--known.masks": ("nothing",),
        "--known.cameras": ("nothing.json",),
    }
    for command, options in ((RUN, shared | of_run), (STREAM, shared)):
        for option, values in options.items():
            for value in values:
                words = (*command, option, value)
                yield Case(f"{command[0]} {option} {value[:20]}", words, (), " ")
    for words in (
        ("run",), (*RUN, "--fps", "fast"), (*RUN, "--no-such-option"), (*RUN, "--size"),
        (*STREAM, "--reference", "x"), ("export", "{scene}"), ("eval", "{scene}"),
        ("nonsense",), ("view", "{scene}", "--port", "x"), ("models", "nonsense"),
        ("train", "{folder}/t", "--steps", "many"), ("info",),
    ):  # fmt: skip
        yield Case(f"usage: {' '.join(words)[-40:]}", words, (), " ", code=2)


def known_cases() -> Iterator[Case]:
    camera = (*RUN, "--known.cameras", "{bad}")
    yield from with_file("cameras npz", CAMERA_ARCHIVES, "cams.npz", *camera)
    yield from with_file("cameras json", CAMERA_JSON, "cams.json", *camera)
    yield from with_file("cameras text", CAMERA_TEXT, "cams.txt", *camera)
    yield from with_file("masks", MASK_ARCHIVES, "masks.npz", *RUN, "--known.masks", "{bad}")
    for name, content in (("no masks", b"hello"), ("damaged", IMAGES["cut in the data"])):
        file = f"masks/{'a.txt' if name == 'no masks' else 'frame_0.png'}"
        words = (*RUN, "--known.masks", "{folder}/masks")
        yield Case(f"masks folder: {name}", words, ((file, content),), "masks")


def truth_cases() -> Iterator[Case]:
    hw = tiny_scene(3).mapping.source_hw
    depth = np.ones((3, *hw), np.float32)
    yield from with_file("truth depth", archives("depth", depth), "truth/depth.npz", *EVAL)
    yield from with_file("truth masks", archives("mask", masks(3, hw)), "truth/dynamic.npz", *EVAL)
    cameras = archives("cam2world", poses()) | {
        "singular": npz(cam2world=poses() * 0.0),
        "mirror": npz(cam2world=-poses()),
        "all unknown but K NaN": npz(cam2world=poses(), K=lens(f=float("nan"))),
        "focal length 0": npz(cam2world=poses(), K=lens(f=0.0)),
        "K of another shape": npz(cam2world=poses(), K=lens(7)),
        "zero bomb": zero_bomb("cam2world"),
    }
    yield from with_file("truth cameras", cameras, "truth/camera.npz", *EVAL)
    yield Case("truth: no folder", EVAL, (), "truth")
    yield Case("truth: nothing in it", EVAL, (("truth/a.txt", b"hello"),), "truth")
    bad = npz(depth=np.ones((3, hw[0] + 1, hw[1]), np.float32))
    yield Case("truth: another size", EVAL, (("truth/depth.npz", bad),), "truth")


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
        for name, content in STATES.items():
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
