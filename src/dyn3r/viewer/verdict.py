"""Verdict of a scene as lights: how far cameras, focal length, depth and masks can be trusted."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

from dyn3r.scene import Scene

_PARTS = ("cameras", "focal length", "depth", "masks")
_COLORS = {"good": "#37b24d", "doubtful": "#f59f00", "poor": "#e03131"}


class VerdictLight(NamedTuple):
    """One part of the verdict."""

    part: str
    """cameras, focal length, depth or masks."""
    grade: str
    """good, doubtful or poor."""
    reason: str
    """Why."""


def read_verdict(metadata: dict[str, Any]) -> list[VerdictLight]:
    """Parts of the verdict that a scene's metadata holds; what is no verdict is left out."""
    stored = metadata.get("verdict")
    lights = []
    for part in _PARTS:
        entry = stored.get(part) if isinstance(stored, dict) else None
        if isinstance(entry, dict) and entry.get("grade") in _COLORS:
            lights.append(VerdictLight(part, str(entry["grade"]), str(entry.get("reason", ""))))
    return lights


def verdict_html(scene: Scene) -> str:
    """Lights with their reasons; empty for a scene without a verdict."""
    rows = [
        f'<div title="{html.escape(light.reason, quote=True)}" style="margin:2px 0">'
        f'<span style="color:{_COLORS[light.grade]}">&#9679;</span> {light.part}: '
        f'<b>{light.grade}</b> <span style="opacity:0.7">{html.escape(light.reason)}</span></div>'
        for light in read_verdict(scene.metadata)
    ]
    return f'<div style="font-size:12px;margin:4px 12px">{"".join(rows)}</div>' if rows else ""
