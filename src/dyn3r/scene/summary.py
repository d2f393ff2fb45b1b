"""A scene in a few lines of text, for `dyn3r info`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from dyn3r.errors import InputError
from dyn3r.scene.scene import Scene


def summarise(scene: Scene) -> list[str]:
    """Lines of text that describe a scene."""
    h, w = scene.size_hw
    sizes = {own.source_hw for own in scene.mapping.frame_mappings or (scene.mapping,)}
    source = f"{len(sizes)} sizes" if len(sizes) > 1 else "{1}x{0}".format(*min(sizes))
    length = float(scene.times_s[-1] - scene.times_s[0])
    known = scene.depth[scene.depth > 0]
    low, high = np.percentile(known, [5, 95]) if len(known) else (0.0, 0.0)
    fx = scene.K[:, 0, 0]
    fov = np.degrees(2 * np.arctan(w / 2 / np.median(fx)))
    steps = np.linalg.norm(np.diff(scene.T_world_camera[:, :3, 3], axis=0), axis=1)
    lines = [
        f"frames      {len(scene)} of {w}x{h} (source {source}), {length:.2f} s",
        f"depth       median {scene.median_depth:.3g}, 5..95 % {low:.3g}..{high:.3g}, {scene.unit}",
        f"camera      path length {steps.sum():.3g}, focal {np.median(fx):.1f} px "
        f"({fov:.0f} degrees wide)",
        f"motion      {100 * scene.dynamic.mean():.1f} % of the pixels are dynamic, "
        f"{int(scene.dynamic.any(axis=(1, 2)).sum())} of {len(scene)} frames have some",
        f"rejected    {100 * (scene.confidence == 0).mean():.1f} % of the pixels",
    ]
    verdict = [] if scene.verdict is None else scene.verdict.lines()
    judged = [f"verdict     {line}" for line in verdict]
    return lines + judged + _input(scene) + _about(scene.metadata)


def _input(scene: Scene) -> list[str]:
    """Notes on the input; a damaged report is left out, as other metadata is."""
    with suppress(InputError):
        return [
            f"{'warning' if note.warning else 'input':<11} {note}" for note in scene.report.notes
        ]
    return []


def _about(metadata: dict[str, Any]) -> list[str]:
    """Metadata of the run: plain values, name of the model, seconds, notes."""
    lines = []
    for key, value in metadata.items():
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            value = value["name"]
        if key == "seconds" and isinstance(value, dict):
            spent = [v for v in value.values() if isinstance(v, (int, float))]
            value = f"{sum(spent):.1f}, without reading and writing"
        if isinstance(value, (str, int, float)) and key != "unit":
            lines.append(f"{key:<11} {value}")
    for key in ("notes", "warnings"):
        texts = metadata.get(key)
        if isinstance(texts, list):
            lines += [f"{key[:-1]:<11} {text}" for text in texts]
    return lines
