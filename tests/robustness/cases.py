"""Command lines with one fault each: sources, options, known values, ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class Case:
    """A command line with one fault."""

    id: str
    words: tuple[str, ...]
    """Arguments; names in braces are filled in by `test_bad_inputs.check`."""
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
        ):
            yield Case(f"{command} {name}", folder, files, words)
        if command == "stream":  # frames of one size; `run` takes several
            files = (good, ("in/b.png", png((80, 48))))
            yield Case("stream folder with two sizes", folder, files, "b.png")
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
