"""Tables of options for the documentation, read from the dataclasses in the source.

MkDocs calls `on_page_markdown` as a hook. It replaces lines such as

    <!-- options: dyn3r.options.Options -->

by one table for the dataclass and one for each dataclass nested in it: flag, values, default, and
the docstring of the field. `options?` is left out silently where the class does not exist. A third
word names a group that is not expanded: `<!-- options: dyn3r.cli.run.Run flat -->`.

The source is parsed, not imported: neither dyn3r nor PyTorch has to be installed. On its own:

    python docs/generate_options.py dyn3r.options.Options
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"
MARKER = re.compile(r"^<!-- options(\??): ([\w.]+)( flat)? -->$", re.MULTILINE)
MAX_NESTING = 5


@dataclass(frozen=True)
class Found:
    """A definition and the module it stands in."""

    module: str
    node: ast.stmt


@dataclass(frozen=True)
class Field:
    """One field of a dataclass."""

    name: str
    type_text: str
    default: str
    text: str
    aliases: tuple[str, ...]
    positional: bool
    hidden: bool
    """No flag of the command line: arrays, functions, what tyro suppresses."""
    nested: Found | None
    inlined: bool
    """Whether the options of `nested` have no prefix of their own."""

    @property
    def is_switched_off(self) -> bool:
        """A switch that is on by default: its only flag is the negated one."""
        return self.type_text == "on, off" and self.default == "on" and not self.hidden


# --- finding definitions -------------------------------------------------------------------------


def module_path(module: str) -> Path | None:
    """The file of a module of this project; None for any other module."""
    base = SOURCE.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def statements(module: str) -> tuple[ast.stmt, ...]:
    """The top-level statements of a module, those under `if TYPE_CHECKING` included."""
    path = module_path(module)
    if path is None:
        return ()
    out: list[ast.stmt] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        out += node.body if isinstance(node, ast.If) else [node]
    return tuple(out)


def find(module: str, name: str, depth: int = 0) -> Found | None:
    """The definition behind a name in a module, imports followed."""
    if depth > 8:
        return None
    for node in statements(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Found(module, node)
        if isinstance(node, ast.Assign) and _assigns(node.targets, name):
            return Found(module, node)
        if isinstance(node, ast.AnnAssign) and _assigns([node.target], name):
            return Found(module, node)
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return find(node.module, alias.name, depth + 1)
    return None


def _assigns(targets: list[ast.expr], name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def is_dataclass(found: Found | None) -> bool:
    """Whether a definition is a class with the dataclass decorator."""
    if found is None or not isinstance(found.node, ast.ClassDef):
        return False
    return any("dataclass" in ast.unparse(decorator) for decorator in found.node.decorator_list)


# --- reading fields ------------------------------------------------------------------------------


def fields(found: Found) -> Iterator[Field]:
    """The fields of a dataclass, those of its base classes first."""
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        parent = find(found.module, base.id) if isinstance(base, ast.Name) else None
        if parent is not None and is_dataclass(parent):
            yield from fields(parent)
    body = found.node.body
    for index, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        following = body[index + 1] if index + 1 < len(body) else None
        field = _field(found.module, node, _docstring(following))
        if field is not None:
            yield field


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def _field(module: str, node: ast.AnnAssign, text: str) -> Field | None:
    assert isinstance(node.target, ast.Name)
    name = node.target.id
    written = ast.unparse(node.annotation)
    if name.startswith("_") or "ClassVar" in written or "init=False" in _source(node.value):
        return None
    type_node = node.annotation
    if isinstance(type_node, ast.Constant) and isinstance(type_node.value, str):
        type_node = ast.parse(type_node.value, mode="eval").body
    positional = "Positional" in written
    inner = _unwrap(type_node)
    nested = _nested(module, inner)
    switch = ast.unparse(inner) in ("bool | None", "Optional[bool]")  # auto, on or off
    type_text, default = _type_text(module, inner), _default(module, node.value)
    return Field(
        name=name,
        type_text="`auto`, `on`, `off`" if switch else type_text,
        default="`auto`" if switch and default == "none" else default,
        text=text,
        aliases=_aliases(type_node),
        positional=positional,
        hidden=any(word in written for word in ("Suppress", "ndarray", "Callable", "Tensor")),
        nested=nested,
        inlined=nested is not None and ("name=''" in written or "OmitArgPrefixes" in written),
    )


def _source(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


def _unwrap(node: ast.expr) -> ast.expr:
    """The type inside Annotated[...] and Positional[...]."""
    while isinstance(node, ast.Subscript):
        head = ast.unparse(node.value).split(".")[-1]
        if head == "Annotated" and isinstance(node.slice, ast.Tuple):
            node = node.slice.elts[0]
        elif head in ("Positional", "OmitArgPrefixes", "FlagCreatePairsOff"):
            node = node.slice
        else:
            break
    return node


def _aliases(node: ast.expr) -> tuple[str, ...]:
    for part in ast.walk(node):
        if isinstance(part, ast.keyword) and part.arg == "aliases":
            value = part.value
            if isinstance(value, ast.List | ast.Tuple):
                return tuple(e.value for e in value.elts if isinstance(e, ast.Constant))
    return ()


def _nested(module: str, node: ast.expr) -> Found | None:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found = find(module, part.id)
            if found is not None and is_dataclass(found):
                return found
    return None


def _type_text(module: str, node: ast.expr, depth: int = 0) -> str:
    """Values an option takes, for readers: `a`, `b` of a Literal, `number`, `path`, ..."""
    words = {
        "bool": "on, off", "int": "whole number", "float": "number", "str": "text",
        "Path": "path", "None": "none", "Flag": "on, off",
    }  # fmt: skip
    if isinstance(node, ast.Constant):
        return "none" if node.value is None else f"`{node.value}`"
    if isinstance(node, ast.BinOp):
        parts = (_type_text(module, side, depth) for side in (node.left, node.right))
        return ", ".join(dict.fromkeys(parts))
    if isinstance(node, ast.Subscript):
        head = ast.unparse(node.value).split(".")[-1]
        values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        texts = [_type_text(module, value, depth) for value in values]
        if head in ("Literal", "Optional", "Union"):
            return ", ".join(texts)
        kept = [text for text in texts if text != "Ellipsis" and text != "`Ellipsis`"]
        return f"{head} of {', '.join(kept)}"
    name = ast.unparse(node).split(".")[-1]
    if name in words:
        return words[name]
    found = find(module, name) if depth < 5 else None
    if found is not None and isinstance(found.node, ast.Assign):
        return _type_text(found.module, _unwrap(found.node.value), depth + 1)
    return name


def _default(module: str, node: ast.expr | None) -> str:
    if node is None:
        return "required"
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "field":
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "default" in given:
            return _default(module, given["default"])
        return _source(given.get("default_factory")) + "()"
    if isinstance(node, ast.Name):
        found = find(module, node.id)
        value = getattr(found.node, "value", None) if found is not None else None
        return _default(found.module, value) if found is not None and value else node.id
    if isinstance(node, ast.Constant):
        if node.value is None or node.value == "":
            return "none"
        if isinstance(node.value, bool):
            return "on" if node.value else "off"
        return f"`{node.value}`"
    return f"`{ast.unparse(node)}`"


# --- writing tables ------------------------------------------------------------------------------


def flag(field: Field, prefix: str) -> str:
    """How an option is named on the command line."""
    if field.positional:
        return f"`{field.name.upper()}`"
    path = ".".join([*prefix.split("."), field.name] if prefix else [field.name])
    if field.hidden:
        return f"`{path}` (Python only)"
    name = path.replace("_", "-")
    if field.is_switched_off:
        return f"`{name}`"
    return " ".join(f"`{option}`" for option in ("--" + name, *field.aliases))


def values(field: Field, prefix: str) -> str:
    """What an option takes."""
    if field.is_switched_off:
        *parents, last = flag(field, prefix).strip("`").split(".")
        return f"`--{'.'.join([*parents, 'no-' + last])}` switches it off"
    return "switch" if field.type_text == "on, off" else field.type_text


def plain_fields(found: Found) -> Iterator[Field]:
    """The fields that are options themselves, those of inlined groups included."""
    for field in fields(found):
        if field.nested is None:
            yield field
        elif field.inlined:
            yield from plain_fields(field.nested)


def table(found: Found, prefix: str = "") -> str:
    """One dataclass as a Markdown table, without the groups nested in it."""
    plain = list(plain_fields(found))
    if not plain:
        return ""
    lines = ["| option | values | default | meaning |", "| --- | --- | --- | --- |"]
    for field in plain:
        cells = (flag(field, prefix), values(field, prefix), field.default, field.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def summary(found: Found) -> str:
    """The first paragraph of a class's docstring."""
    assert isinstance(found.node, ast.ClassDef)
    text = ast.get_docstring(found.node) or ""
    return " ".join(text.partition("\n\n")[0].split())


def sections(found: Found, prefix: str = "", level: int = 3, depth: int = 0) -> Iterator[str]:
    """The table of a dataclass, then a section for each dataclass nested in it."""
    own = table(found, prefix)
    if own:
        yield own
    for field in fields(found):
        if field.nested is None or field.inlined or field.hidden or depth >= MAX_NESTING:
            continue
        path = f"{prefix}.{field.name}" if prefix else field.name
        title = path.replace("_", " ").replace(".", ": ")
        yield f"{'#' * level} {title[0].upper() + title[1:]}"
        yield f"`{path}`: {summary(field.nested)}"
        if field.text:
            yield field.text
        yield from sections(field.nested, path, min(level + 1, 6), depth + 1)


def render(class_path: str, *, flat: bool = False) -> str | None:
    """The Markdown of a class; None if there is no such dataclass."""
    module, _, name = class_path.rpartition(".")
    found = find(module, name)
    if found is None or not is_dataclass(found):
        return None
    return table(found) if flat else "\n\n".join(sections(found))


def replace_markers(markdown: str) -> str:
    """A page with its markers replaced by tables.

    Raises:
        LookupError: a marker without `?` names a class that does not exist.
    """

    def tables(match: re.Match[str]) -> str:
        optional, class_path, flat = match.groups()
        text = render(class_path, flat=bool(flat))
        if text is None and not optional:
            raise LookupError(f"docs/generate_options.py: there is no dataclass {class_path}")
        return text or ""

    return MARKER.sub(tables, markdown)


def on_page_markdown(markdown: str, **_context: Any) -> str:
    """The hook of MkDocs."""
    return replace_markers(markdown)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["dyn3r.options.Options"]:
        sys.stdout.write((render(wanted) or f"no dataclass {wanted}") + "\n")
