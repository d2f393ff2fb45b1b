"""Images of the motion cues of a run (docs/explain.md).

As in Easi3R's figures: the four attention maps, the dynamic map, the clusters, the refined map; and
beside them optical flow, the flow of a static scene, and the residual.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from dyn3r.errors import InputError
from dyn3r.io.atomic import write_text
from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.multi_otsu import upsample
from dyn3r.motion.rigid_flow import fit_static_flow, nearest_static_flow
from dyn3r.motion.rigid_residual import NOISE_PX
from dyn3r.scene.drawing import (
    UNKNOWN,
    depth_picture,
    draw_text,
    motion_picture,
    write_picture,
    write_video,
)
from dyn3r.scene.findings import Findings
from dyn3r.scene.scene import Scene
from dyn3r.types import Progress, no_progress

Picture = UInt8[np.ndarray, "h w 3"]
COLUMNS = 4
_TITLES = {
    "mu1": "mean, view 1", "sd1": "deviation, view 1",
    "mu2": "mean, view 2", "sd2": "deviation, view 2",
}  # fmt: skip
_LONG_SIDE = 320  # pixels of a panel in the video


@dataclass(frozen=True)
class StaticFlow:
    """Flow from every frame to the next, beside the nearest flow of a static scene."""

    measured: Float[np.ndarray, "n h w 2"]
    """Pixels."""
    static: Float[np.ndarray, "n h w 2"]
    """Of all flow that a static scene can show, the nearest to the measured; NaN if none fits."""
    visible: Bool[np.ndarray, "n h w"]
    """False where the flow is not reliable."""

    @property
    def residual_px(self) -> Float[np.ndarray, "n h w"]:
        """Distance of the measured flow from the static scene's, in pixels; NaN if unknown."""
        distance = np.linalg.norm(self.measured - self.static, axis=-1)
        return np.where(self.visible, distance, np.nan).astype(np.float32)


def static_flow(found: Findings) -> StaticFlow | None:
    """The flow of a static scene as the robust flow cue fits it; None for one frame.

    One pair a frame; the cue itself takes the mean over all pairs of a frame.
    """
    if found.steps is None:
        return None
    measured = np.asarray(found.steps.flow, dtype=np.float32)
    visible = np.ones(measured.shape[:3], bool)
    if found.steps.visible is not None:
        visible = np.asarray(found.steps.visible, dtype=bool)
    field = torch.from_numpy(measured).permute(0, 3, 1, 2)
    inverse = torch.from_numpy(found.inverse_depth[: len(measured)].astype(np.float32))
    fits = fit_static_flow(field, torch.from_numpy(visible), inverse, NOISE_PX)
    nearest = nearest_static_flow(fits, field, inverse, depth_tolerance=found.depth_tolerance)
    static = nearest.permute(0, 2, 3, 1).numpy()
    return StaticFlow(measured, static, visible)


class Explanation:
    """Drawings of the findings about a clip, with the same colour scales in all frames."""

    def __init__(self, found: Findings, scene: Scene) -> None:
        """Raise InputError for findings of another clip."""
        n = len(found.inverse_depth)
        self.frames = np.flatnonzero(scene.depth.any(axis=(1, 2)))[-n:]
        """Frames of the scene that the findings are about: without those that were there before
        this run (`resume`), and without those that have no texture."""
        if len(self.frames) < n or scene.size_hw != found.inverse_depth.shape[1:]:
            raise InputError("these findings and this scene are not of the same clip")
        self.found = found
        self.images, self.masks = scene.images[self.frames], scene.dynamic[self.frames]
        self.flow = static_flow(found)
        self.residual: np.ndarray | None = None
        self.flow_limit = self.residual_limit = 1.0
        if self.flow is not None:
            self.residual = self.flow.residual_px
            lengths = np.linalg.norm(self.flow.measured, axis=-1)
            self.flow_limit = max(1.0, float(np.percentile(lengths, 99)))
            known = self.residual[np.isfinite(self.residual)]
            least = 4 * NOISE_PX  # noise alone is dark
            self.residual_limit = max(least, float(np.percentile(known, 99)) if len(known) else 0)
        low, high = np.percentile(found.inverse_depth, [2, 98])
        self.depth_limits = (float(low), float(max(high, low + 1e-3)))

    def __len__(self) -> int:
        """Number of frames that are explained."""
        return len(self.images)

    def panels(self, t: int) -> list[tuple[str, Picture]]:
        """Titles and images of the findings about frame t, in rows of four."""
        image, flow = self.images[t], self.found.flow
        depth = depth_picture(1 / self.found.inverse_depth[t], self.depth_limits)
        decided = "not estimated" if self.found.cue == "none" else self.found.cue
        out = [
            ("frame", image),
            ("depth used for residuals", depth),
            ("dynamic, by flow", motion_picture(image, flow.masks[t])),
            (f"dynamic: {decided}", motion_picture(image, self.masks[t])),
        ]
        return out + self._attention_panels(t) + self._flow_panels(t)

    def _attention_panels(self, t: int) -> list[tuple[str, Picture]]:
        attention = self.found.attention
        if attention is None:
            return []
        evidence = attention.evidence
        assert isinstance(evidence, AttentionEvidence)
        out = [
            (_TITLES.get(name, name), self._heat(values[t]))
            for name, values in evidence.statistics.items()
        ]
        clusters = self._large(cluster_colours(evidence.clusters[t]))
        return [
            *out,
            ("dynamic map", self._heat(evidence.raw_map[t])),
            ("clusters", clusters),
            ("refined map", self._heat(attention.dynamic_map[t])),
            ("dynamic, by attention", motion_picture(self.images[t], attention.masks[t])),
        ]

    def _flow_panels(self, t: int) -> list[tuple[str, Picture]]:
        grey = np.full(self.images[t].shape, UNKNOWN, np.uint8)
        if self.flow is None or self.residual is None:
            titles = ("flow", "flow of a static scene", "residual", "evidence")
            return [(title, grey) for title in titles]
        step = "to the next" if t + 1 < len(self) else "to the one before"
        return [
            (f"flow {step}", flow_picture(self.flow.measured[t], self.flow_limit)),
            ("flow of a static scene", flow_picture(self.flow.static[t], self.flow_limit)),
            (
                f"residual, to {self.residual_limit:.1f} px",
                heat_picture(self.residual[t] / self.residual_limit),
            ),
            ("evidence of flow", self._heat(self.found.flow.dynamic_map[t])),
        ]

    def picture(self, t: int, long_side: int | None = None) -> Picture:
        """All panels of frame t with their titles; panels at most `long_side` pixels long."""
        from PIL import Image

        height, width = self.images.shape[1:3]
        scale = 1.0 if long_side is None else min(1.0, long_side / max(height, width))
        size = (max(2, round(width * scale)), max(2, round(height * scale)))
        head, gap = 18, 4
        panels = self.panels(t)
        rows = -(-len(panels) // COLUMNS)
        cell = (size[0] + gap, size[1] + head + gap)
        sheet = np.full((rows * cell[1], COLUMNS * cell[0], 3), 32, np.uint8)
        for k, (title, panel) in enumerate(panels):
            left, top = (k % COLUMNS) * cell[0], (k // COLUMNS) * cell[1]
            small = Image.fromarray(panel).resize(size, Image.Resampling.BOX)
            draw_text(sheet, title, (left + 3, top + 13), max_width=size[0] - 3)
            sheet[top + head : top + head + size[1], left : left + size[0]] = np.asarray(small)
        return sheet

    def text(self) -> str:
        """The decision about motion and its reasons."""
        found = self.found
        lines = [f"cue: {found.cue}"]
        lines.append(f"decided: {found.motion.reason}")
        attention = "not read" if found.attention is None else found.attention.reason
        lines += [f"attention: {attention}", f"flow: {found.flow.reason}"]
        return "\n".join(lines) + "\n"

    def _heat(self, grid: Float[np.ndarray, "gh gw"]) -> Picture:
        """Map on the patch grid, upsampled as by the method."""
        size_hw = (int(self.images.shape[1]), int(self.images.shape[2]))
        return heat_picture(upsample(grid[None].astype(np.float32), size_hw)[0])

    def _large(self, patches: UInt8[np.ndarray, "gh gw 3"]) -> Picture:
        """Every patch as a block of pixels."""
        rows, cols = (
            np.arange(side) * cells // side
            for side, cells in zip(self.images.shape[1:3], patches.shape[:2])
        )
        return patches[rows][:, cols]


def write_explanation(
    found: Findings,
    scene: Scene,
    folder: Path,
    *,
    frames: int = 6,
    progress: Progress = no_progress,
) -> list[str]:
    """Write the drawings of a run into a folder and return their names.

    `explanation.mp4` has every frame, `frame_0004.png` and so on are about `frames` of them at full
    size (numbered as in the scene), `reasons.txt` says what was decided and why.

    Raises:
        InputError: findings and scene of different clips.
        OutputError: a file exists, or can't be written.
    """
    drawing = Explanation(found, scene)
    chosen = np.unique(np.linspace(0, len(drawing) - 1, min(frames, len(drawing))).round())
    names = []
    for t in chosen.astype(int):
        names.append(f"frame_{drawing.frames[t]:04d}.png")
        write_picture(drawing.picture(int(t)), folder / names[-1])

    def pictures() -> Iterator[Picture]:
        for t in range(len(drawing)):
            progress("drawing the explanation", t, len(drawing))
            yield drawing.picture(t, _LONG_SIDE)
        progress("drawing the explanation", len(drawing), len(drawing))

    write_video(pictures(), folder / "explanation.mp4", fps=scene.fps or 10.0)
    write_text(folder / "reasons.txt", drawing.text())
    return [*names, "explanation.mp4", "reasons.txt"]


def heat_picture(values: Float[np.ndarray, "h w"]) -> Picture:
    """Values 0..1 in the colour map inferno, dark to bright; grey is not finite."""
    import cv2

    known = np.isfinite(values)
    scaled = np.where(known, values, 0).clip(0, 1)
    bgr = cv2.applyColorMap((255 * scaled).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    out = np.ascontiguousarray(bgr[..., ::-1])
    out[~known] = UNKNOWN
    return out


def flow_picture(flow: Float[np.ndarray, "h w 2"], longest: float) -> Picture:
    """Direction as hue (right red, down yellow-green, left cyan), length as saturation.

    White is no motion; the colour is full from `longest` pixels on. Grey is not finite.
    """
    import cv2

    known = np.isfinite(flow).all(-1)
    u, v = (np.where(known, flow[..., k], 0) for k in (0, 1))
    hsv = np.empty((*known.shape, 3), np.float32)
    hsv[..., 0] = np.degrees(np.arctan2(v, u)) % 360
    hsv[..., 1] = (np.hypot(u, v) / longest).clip(0, 1)
    hsv[..., 2] = 1
    out = (255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).round().astype(np.uint8)
    out[~known] = UNKNOWN
    return out


def cluster_colours(clusters: Int[np.ndarray, "gh gw"]) -> UInt8[np.ndarray, "gh gw 3"]:
    """A colour for every cluster; hues of neighbouring numbers are far apart (golden ratio)."""
    count = int(clusters.max(initial=0)) + 1
    table = [
        colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.45 + 0.35 * (k % 2), 0.65 + 0.3 * (k % 3) / 2)
        for k in range(count)
    ]
    return (255 * np.array(table)).round().astype(np.uint8)[clusters]
