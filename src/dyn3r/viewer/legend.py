"""Legends of the colours as HTML: what the ends of a colour map mean."""

from __future__ import annotations

import html

import numpy as np

from dyn3r.scene.drawing import confidence_picture, depth_picture
from dyn3r.scene.pictures import find_limits
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.scene_nodes import SceneNodes

_STEPS = 12


def legend_html(nodes: SceneNodes, appearance: Appearance) -> str:
    """Legend of the colours of a scene under an appearance; empty for the images' own colours."""
    scene, unit = nodes.scene, str(nodes.scene.metadata.get("unit", "arbitrary units"))
    ramp = np.linspace(0, 1, _STEPS)
    if appearance.color == "depth":
        low, high = find_limits(scene).inverse_depth
        colors = depth_picture((1 / (high + (low - high) * ramp))[None], (low, high))[0]
        return _bar("depth", colors, f"{1 / high:.3g}", f"{1 / low:.3g} {unit}")
    if appearance.color == "confidence":
        low, high = find_limits(scene).confidence
        colors = confidence_picture(
            (low + (high - low) * ramp)[None].astype(np.float32), (low, high)
        )
        ends = [f"{100 / x:.2g} %" if x > 0 else "unknown" for x in (low, high)]
        return _bar("depth error", colors[0], *ends)
    if appearance.color == "time":
        colors = depth_picture((1 / (1 + ramp))[None], (1.0, 2.0))[0]
        first, last = scene.times_s[0], scene.times_s[-1]
        return _bar("time", colors, f"{first:.2f} s", f"{last:.2f} s")
    if appearance.color == "motion":
        return _line('<b style="color:#ff5050">red</b>: moving')
    return ""


def _bar(title: str, colors: np.ndarray, low: str, high: str) -> str:
    stops = ",".join("#" + bytes(color).hex() for color in colors.astype(np.uint8))
    bar = (
        '<span style="display:inline-block;width:7em;height:0.8em;margin:0 0.4em;'
        f'background:linear-gradient(to right,{stops})"></span>'
    )
    return _line(f"{title} {html.escape(low)}{bar}{html.escape(high)}")


def _line(text: str) -> str:
    return f'<div style="font-size:12px;white-space:nowrap;margin:4px 12px">{text}</div>'
