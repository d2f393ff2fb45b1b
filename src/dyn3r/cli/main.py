"""The entry point of `dyn3r`: find the command, run it, turn known errors into one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from dyn3r.cli.demo import Demo
from dyn3r.cli.eval import Eval
from dyn3r.cli.export import Export
from dyn3r.cli.info import Info
from dyn3r.cli.models import Models
from dyn3r.cli.run import Run
from dyn3r.cli.train import Train
from dyn3r.cli.view import View
from dyn3r.errors import Dyn3rError
from dyn3r.types import package_version

COMMANDS: dict[str, Any] = {
    "run": Run,
    "view": View,
    "export": Export,
    "eval": Eval,
    "info": Info,
    "demo": Demo,
    "models": Models,
    "train": Train,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `dyn3r`. Exit code 0; 1 for an error we know, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"dyn3r {package_version()}")
        return 0
    # PyTorch's threads spin at their barriers by default: one busy neighbour then slows every step
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="dyn3r", args=arguments, sort_subcommands=False,
        description="Ordinary video with moving things in, 4D scene out.",
    )  # fmt: skip
    try:
        command()
    except Dyn3rError as problem:
        print(f"dyn3r: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dyn3r: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as problem:  # no space, no permission, a device gone: what no module foresees
        where = f" ({problem.filename})" if problem.filename else ""
        print(f"dyn3r: {problem.strerror or problem}{where}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
