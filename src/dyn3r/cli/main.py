"""Entry point of `dyn3r`: find the command, run it, turn known errors into one line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from dyn3r.cli.retired import retired_option
from dyn3r.cli.signals import ending_signals, exit_code
from dyn3r.cli.terminal import PrintableFormatter, say
from dyn3r.errors import Dyn3rError
from dyn3r.types import package_version

COMMANDS = {
    "run": ("Run", "turn a video into a 4D scene"),
    "stream": ("Stream", "the same frame by frame, as the frames come"),
    "batch": ("Batch", "run over many videos"),
    "app": ("App", "the same in the browser: drop a video, watch its scene appear"),
    "view": ("View", "show scenes in the browser, or write a page, image or video"),
    "export": ("Export", "write a scene for another program"),
    "eval": ("Eval", "measure a scene against ground truth"),
    "benchmark": ("Benchmark", "evaluate a model on a published data set"),
    "info": ("Info", "describe a scene, checkpoint or model"),
    "demo": ("Demo", "reconstruct the bundled clip and measure the result"),
    "models": ("Models", "list, download and convert models"),
    "datasets": ("Datasets", "list published data sets and fetch those that are open"),
    "train": ("Train", "train a network on the synthetic world or on data sets"),
}
"""Name -> class in `dyn3r.cli.NAME` and one line of help."""

HELP = """usage: dyn3r COMMAND [OPTIONS]

Video with moving objects in, 4D scene out.

  dyn3r demo                         # a minute: the bundled clip
  dyn3r app                          # in the browser: drop a video, watch its scene appear
  dyn3r run cat.mp4 -o cat           # scene, overview video, contact sheet
  dyn3r view cat                     # point clouds, cameras and a timeline in the browser

commands:
{commands}

  dyn3r COMMAND --help               # every option of a command
  dyn3r --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Exit code 0; 1 for a known error, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        say(f"dyn3r {package_version()}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {line}" for name, (_, line) in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        return 0 if arguments else 2
    name, *rest = arguments
    if arguments[:2] == ["train", "flow"]:  # a run in a folder of that name: ./flow
        name, rest = "train flow", rest[1:]
    elif name not in COMMANDS:
        say(f"dyn3r: unknown command {name!r}: {', '.join(COMMANDS)}", error=True)
        return 2
    if name == "run" and (line := retired_option(rest)) is not None:
        say(f"dyn3r: {line}", error=True)
        return 2
    # PyTorch's threads spin at their barriers by default: one busy neighbour then slows every step
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _limit_memory()
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    return _run(name, rest)


def _limit_memory() -> None:
    """Keep memory for as many threads as compute."""
    from dyn3r.io.workers import available_cores
    from dyn3r.types.free_memory import limit_arenas

    limit_arenas(available_cores())


def _run(name: str, arguments: list[str]) -> int:
    """Parse and carry out one command."""
    from dyn3r.cli.parse import parse

    commands = COMMANDS | {"train flow": ("TrainFlow", "")}
    module = f"dyn3r.cli.{name.replace(' ', '_')}"
    with ending_signals() as came:
        try:
            command = getattr(importlib.import_module(module), commands[name][0])
            parse(command, f"dyn3r {name}", arguments)()
        except KeyboardInterrupt:
            return _stopped(came)
        except Exception as problem:
            if came:  # a library has turned the interrupt into an error of its own
                return _stopped(came)
            return _failed(problem)
        # Python drops what is raised in a finaliser: then the command ends when it is done
        return _stopped(came) if came else 0


def _stopped(came: list[int]) -> int:
    say("dyn3r: stopped", error=True)
    return exit_code(came)


def _failed(problem: Exception) -> int:
    """Report what a user can cause in one line; anything else is a fault of ours and raised."""
    if isinstance(problem, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(problem, Dyn3rError):
        say(f"dyn3r: {problem}", error=True)
    elif isinstance(problem, MemoryError):
        say("dyn3r: out of memory: fewer or smaller frames need less", error=True)
    elif isinstance(problem, OSError):  # no permission, a device gone: what no module foresees
        where = f" ({problem.filename})" if problem.filename else ""
        say(f"dyn3r: {problem.strerror or problem}{where}", error=True)
    else:
        raise problem
    return 1


if __name__ == "__main__":
    sys.exit(main())
