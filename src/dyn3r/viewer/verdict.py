"""Verdict of a scene as lights: how far cameras, focal length, depth and masks can be trusted."""

from __future__ import annotations

import html

from dyn3r.scene import Scene
from dyn3r.scene.verdict import Grade

_COLORS: dict[Grade, str] = {"good": "#37b24d", "doubtful": "#f59f00", "poor": "#e03131"}


def verdict_html(scene: Scene) -> str:
    """Lights with their reasons; empty for a scene without a verdict."""
    if scene.verdict is None:
        return ""
    rows = [
        f'<div title="{html.escape(part.reason, quote=True)}" style="margin:2px 0">'
        f'<span style="color:{_COLORS[part.grade]}">&#9679;</span> {name}: '
        f'<b>{part.grade}</b> <span style="opacity:0.7">{html.escape(part.reason)}</span></div>'
        for name, part in scene.verdict.parts.items()
    ]
    return f'<div style="font-size:12px;margin:4px 12px">{"".join(rows)}</div>' if rows else ""
