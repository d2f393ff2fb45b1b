"""A hook of MkDocs: TeX in `$...$` and `$$...$$` becomes MathML when the site is built.

Every current browser shows MathML, so the pages need no script and no other server. On GitHub the
same Markdown is rendered by GitHub itself.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# what pymdownx.arithmatex writes in its generic form
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


TAG = re.compile(r"<[^>]+>")


def mathml(tex: str, display: str) -> str:
    """The MathML of a formula.

    Raises:
        ValueError: a command that the converter does not know, which it would print as text.
    """
    out = convert(html.unescape(tex), display=display)
    if "\\" in TAG.sub("", out):
        raise ValueError(f"docs/mathml.py: unknown command in the formula {tex.strip()}")
    return out


def on_page_content(content: str, **_context: Any) -> str:
    """The page's HTML with its formulas as MathML."""
    content = INLINE.sub(lambda match: mathml(match[1], "inline"), content)
    return BLOCK.sub(lambda match: f"<div>{mathml(match[1], 'block')}</div>", content)
