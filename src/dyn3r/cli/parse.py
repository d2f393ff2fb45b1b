"""Parsers generated from the dataclasses of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

Command = TypeVar("Command", bound=Callable[[], None])
SWITCH = {"auto": None, "on": True, "off": False}
"""How a switch is written; auto only where None is allowed."""


def parse(command: type[Command], prog: str, arguments: Sequence[str]) -> Command:
    """The command with its options. Exits with 0 after --help and 2 for wrong usage.

    A command may have a class method `defaults(arguments)`, whose result has the default values.
    Its switches then have both forms, `--name` and `--no-name`, whatever the default is.
    """
    registry = ConstructorRegistry()
    registry.primitive_rule(_switch)
    defaults = getattr(command, "defaults", None)
    parsed: Any = tyro.cli(
        command,
        default=None if defaults is None else defaults(arguments),
        prog=prog,
        description=inspect.cleandoc(command.__doc__ or ""),
        args=arguments,
        config=() if defaults is not None else (tyro.conf.FlagCreatePairsOff,),
        registry=registry,
    )
    return cast(Command, parsed)


def _switch(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[bool | None] | None:
    """`bool` as on or off, and `bool | None` as auto, on or off."""
    if info.type not in (bool, bool | None):
        return None
    choices = tuple(name for name in SWITCH if info.type is not bool or name != "auto")
    names = {value: name for name, value in SWITCH.items()}
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}",
        instance_from_str=lambda strings: SWITCH[strings[0]],
        is_instance=lambda instance: instance is None or isinstance(instance, bool),
        str_from_instance=lambda instance: [names[instance]],
        choices=choices,
    )
