"""The configuration of a published checkpoint: a constructor call as text, or JSON.

Both come from files of strangers, so that nothing in them is executed and every number is bounded
before anybody builds a network of it (SPEC 1.1).
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from typing import Any

from dyn3r.errors import CheckpointError

CONSTRUCTOR = "AsymmetricCroCo3DStereo"
"""The class that the checkpoints of DUSt3R and MonST3R name."""

_LONGEST_TEXT = 20_000
_MOST_ENTRIES = 200
_LARGEST_INTEGER = 65_536
_LARGEST_BY_WORD = {"depth": 256, "heads": 256}
"""Integers whose keyword contains the word are held to the smaller limit."""


def parse_constructor(text: str) -> dict[str, Any]:
    """`AsymmetricCroCo3DStereo(enc_depth=24, depth_mode=('exp', -inf, inf))` -> keywords.

    Values may be literals, tuples, lists, `inf` and `-inf`. Raises CheckpointError for any other
    class, for positional arguments, expressions, and numbers that no network of ours has.
    """
    if len(text) > _LONGEST_TEXT:
        raise CheckpointError("the checkpoint's description of its network is implausibly long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise CheckpointError("the checkpoint's description of its network is no constructor")
        if call.func.id != CONSTRUCTOR:
            raise CheckpointError(
                f"the checkpoint is for the class {call.func.id[:60]}; only {CONSTRUCTOR} is known"
            )
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise CheckpointError(
                "the checkpoint's description of its network has arguments without a name"
            )
        if len({keyword.arg for keyword in call.keywords}) < len(call.keywords):
            raise CheckpointError("the checkpoint's description of its network repeats itself")
        keywords = {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CheckpointError(
            "the checkpoint's description of its network can't be read as a constructor call"
        ) from None
    return checked_config(keywords)


def parse_json_config(text: str) -> dict[str, Any]:
    """JSON of the same keywords, where infinities appear as `Infinity`; lists become tuples.

    Raises CheckpointError if it is no JSON object, or for numbers that no network of ours has.
    """
    if len(text) > _LONGEST_TEXT:
        raise CheckpointError("the checkpoint's configuration is implausibly long")
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise CheckpointError("the checkpoint's configuration is no JSON object")
        return checked_config({name: _tuples(value) for name, value in values.items()})
    except (ValueError, RecursionError):
        raise CheckpointError("the checkpoint's configuration is no valid JSON") from None


def checked_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration itself, if its numbers are plausible; otherwise CheckpointError."""
    if len(config) > _MOST_ENTRIES:
        raise CheckpointError("the checkpoint's configuration has implausibly many entries")
    for name, value in config.items():
        _check_value(name, value)
    return config


def _literal(node: ast.expr) -> Any:
    """The value of a literal; raises ValueError for everything that would have to be computed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_literal(entry) for entry in node.elts)
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    raise ValueError("not a literal")


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value


def _check_value(name: str, value: Any) -> None:
    if isinstance(value, tuple | list):
        for entry in value:
            _check_value(name, entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            _check_value(str(key), entry)
    elif isinstance(value, int) and not isinstance(value, bool):
        limits = [limit for word, limit in _LARGEST_BY_WORD.items() if word in name]
        if abs(value) > min(limits, default=_LARGEST_INTEGER):
            shown = str(value) if abs(value) < 10**12 else "a huge number"
            raise CheckpointError(
                f"the checkpoint asks for {name[:60]}={shown}, which is implausible; not loaded"
            )
