"""`python -m tests.robustness.killed_run FOLDER MODEL FRAMES SEED`: runs that are ended at random.

A child process replaces the result in FOLDER/out again and again, and is sent a signal. Prints what
it found as JSON, one line for each moment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dyn3r.pipeline
from dyn3r.cli.main import main
from dyn3r.scene import Scene
from tests.factories import tiny_scene

MOMENTS = 20
LONGEST_S = 0.6


def run(folder: Path, model: str, frames: str, scene: Scene) -> int:
    """`dyn3r run` whose computation gives this scene at once."""
    given: Callable[..., Scene] = lambda *_, **__: scene  # noqa: E731
    dyn3r.pipeline.reconstruct = given  # type: ignore[assignment]
    out = str(folder / "out")
    return main(["run", frames, "-o", out, "--model", model, "--size", "64", "-q", "--overwrite"])


def endless(folder: Path, model: str, frames: str, ready: int) -> None:
    """The child: results of 4 and of 5 frames by turns. Says when the first one is there."""
    code = 0
    while not code:
        for n in (5, 4):
            code = code or run(folder, model, frames, tiny_scene(n))
            os.write(ready, b"x")
    os._exit(code)


def marks(out: Path) -> dict[str, float]:
    """What belongs together: files of one result by name, with the time they were written."""
    return {p.name: p.stat().st_mtime_ns / 1e9 for p in out.iterdir() if p.name != "mine.txt"}


def moment(folder: Path, model: str, frames: str, number: int, wait_s: float) -> dict[str, object]:
    heard, ready = os.pipe()
    child = os.fork()
    if child == 0:
        endless(folder, model, frames, ready)
    os.close(ready)
    os.read(heard, 1)
    os.close(heard)
    time.sleep(wait_s)
    os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    out = folder / "out"
    return {
        "signal": signal.Signals(number).name,
        "status": os.waitstatus_to_exitcode(status),
        "names": sorted(p.name for p in out.iterdir()),
        "frames": len(Scene.load(out)),
        "span_s": max(marks(out).values()) - min(marks(out).values()),
        "order": sorted(marks(out), key=marks(out).get),  # type: ignore[arg-type]
        "mine": (out / "mine.txt").read_text(),
        "left": sorted(p.name for p in folder.iterdir() if p.name != "out"),
    }


if __name__ == "__main__":
    place, tiny, images, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    assert run(place, tiny, images, tiny_scene(4)) == 0
    (place / "out" / "mine.txt").write_text("mine")
    rng = random.Random(seed)
    for k in range(MOMENTS):
        kind = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[k % 3]
        found = moment(place, tiny, images, kind, rng.uniform(0, LONGEST_S))
        print(json.dumps(found), flush=True)
    assert run(place, tiny, images, tiny_scene(4)) == 0
    print(json.dumps({"left": sorted(p.name for p in place.iterdir())}))
