"""Controls for the options of a dataclass, generated from its fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dyn3r.cli.parse import SWITCH

Value = TypeVar("Value")


def option_controls(gui: Any, value: Value, changed: Callable[[], None]) -> Callable[[], Value]:
    """Add a control for each simple field; returns a function that reads them all.

    Fields that are neither switches, numbers, texts nor choices stay as they are. The function
    raises the InputError of the dataclass for values that it refuses.
    """
    hints = get_type_hints(type(value))
    readers: dict[str, Callable[[], Any]] = {}
    for field in fields(value):  # type: ignore[arg-type]
        control = _control(gui, field.name, hints[field.name], getattr(value, field.name))
        if control is not None:
            handle, readers[field.name] = control
            handle.on_update(lambda _: changed())
    return lambda: replace(value, **{name: read() for name, read in readers.items()})  # type: ignore[type-var]


def _control(gui: Any, name: str, hint: Any, value: Any) -> tuple[Any, Callable[[], Any]] | None:
    label = name.replace("_", " ")
    if set(get_args(hint)) == {bool, NoneType}:
        names = {given: text for text, given in SWITCH.items()}
        choice = gui.add_dropdown(label, tuple(SWITCH), initial_value=names[value])
        return choice, lambda: SWITCH[choice.value]
    if hint is bool:
        box = gui.add_checkbox(label, initial_value=value)
        return box, lambda: bool(box.value)
    if hint in (int, float):
        number = gui.add_number(label, initial_value=hint(value))
        return number, lambda: hint(number.value)
    if get_origin(hint) is Literal:
        choice = gui.add_dropdown(label, tuple(map(str, get_args(hint))), initial_value=value)
        return choice, lambda: choice.value
    if hint is str:
        text = gui.add_text(label, initial_value=value)
        return text, lambda: str(text.value)
    return None
