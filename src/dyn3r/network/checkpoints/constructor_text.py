"""Configuration of a published checkpoint: a constructor call as text, or JSON.

Both come from untrusted files: nothing in them is executed, and every number is bounded before a
network is built (SPEC 1.1).
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from typing import Any

from dyn3r.errors import CheckpointError

CONSTRUCTOR = "AsymmetricCroCo3DStereo"
"""Class name in the checkpoints of DUSt3R and MonST3R."""

_LONGEST_TEXT = 20_000
_MOST_ENTRIES = 200
_LARGEST_INTEGER = 65_536
_LARGEST_BY_WORD = {"depth": 256, "heads": 256}
"""Smaller limits for integers whose keyword contains the word."""


def parse_constructor(text: str) -> dict[str, Any]:
    """Parse `AsymmetricCroCo3DStereo(enc_depth=24, depth_mode=('exp', -inf, inf))` to keywords.

    Values may be literals, tuples, lists, `inf` and `-inf`. Raises CheckpointError for any other
    class, for positional arguments, expressions, and implausible numbers.
    """
    if len(text) > _LONGEST_TEXT:
        raise CheckpointError("the checkpoint's description of its network is implausibly long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise CheckpointError(
                "the description of the network in the checkpoint is not a constructor"
            )
        if call.func.id != CONSTRUCTOR:
            raise CheckpointError(
                f"the checkpoint is for the class {call.func.id[:60]}, not {CONSTRUCTOR}"
            )
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise CheckpointError(
                "the checkpoint's description of its network has positional arguments"
            )
        if len({keyword.arg for keyword in call.keywords}) < len(call.keywords):
            raise CheckpointError("the checkpoint's description of its network repeats a keyword")
        keywords = {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CheckpointError(
            "the checkpoint's description of its network can't be read as a constructor call"
        ) from None
    return checked_config(keywords)


def parse_json_config(text: str) -> dict[str, Any]:
    """Parse JSON of the same keywords, with infinities as `Infinity`; lists become tuples.

    Raises CheckpointError if it is not a JSON object, and for implausible numbers.
    """
    if len(text) > _LONGEST_TEXT:
        raise CheckpointError("the checkpoint's configuration is implausibly long")
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise CheckpointError("the checkpoint's configuration is not a JSON object")
        return checked_config({name: _tuples(value) for name, value in values.items()})
    except (ValueError, RecursionError):
        raise CheckpointError("the checkpoint's configuration is not valid JSON") from None


def checked_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration itself. Raises CheckpointError for implausible numbers."""
    if len(config) > _MOST_ENTRIES:
        raise CheckpointError("the checkpoint's configuration has implausibly many entries")
    for name, value in config.items():
        _check_value(name, value)
    return config


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal. Raises ValueError for anything that needs evaluation."""
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
    """Convert lists to tuples at every depth."""
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return value


def _check_value(name: str, value: Any) -> None:
    """Raise CheckpointError for an implausibly large integer at any depth."""
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
                f"the checkpoint has {name[:60]}={shown}, which is implausible; not loaded"
            )
