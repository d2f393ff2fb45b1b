"""Images of the motion cues: what they show, and where they are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import dyn3r
from dyn3r.errors import InputError
from dyn3r.motion.attention_cue import AttentionEvidence
from dyn3r.motion.masks import motion_from_masks
from dyn3r.scene.drawing import UNKNOWN
from dyn3r.scene.explanation import (
    Explanation,
    cluster_colours,
    flow_picture,
    heat_picture,
    static_flow,
    write_explanation,
)
from dyn3r.scene.findings import Findings
from dyn3r.types import FlowFields
from tests.factories import tiny_scene


def simple_findings(scene: dyn3r.Scene, steps: FlowFields | None) -> Findings:
    """Findings that know the scene's masks from the start."""
    motion = motion_from_masks(scene.dynamic)
    n, (h, w) = len(scene), scene.size_hw
    grid = np.zeros((n, h // 16, w // 16), np.float32)
    maps = {name: grid + k / 4 for k, name in enumerate(("mu1", "sd1", "mu2", "sd2"))}
    evidence = AttentionEvidence(grid, np.zeros(grid.shape, int), 0.5, maps)
    attention = replace(motion, evidence=evidence, reason="attention says so")
    depth = np.where(scene.depth > 0, scene.depth, 6).astype(np.float32)
    return Findings(
        cue="both", motion=motion, attention=attention, flow=replace(motion, reason="flow does"),
        steps=steps, inverse_depth=np.median(depth) / depth,
    )  # fmt: skip


def sliding_flow(n: int, h: int, w: int) -> FlowFields:
    """Flow of 3 px to the right, in a block also 9 px down; a corner is not visible."""
    edges = np.array([[t, t + 1] for t in range(n - 1)] + [[n - 1, n - 2]])
    flow = np.zeros((n, h, w, 2), np.float16)
    flow[..., 0] = 3
    flow[:, 8:24, 16:32, 1] = 9
    visible = np.ones((n, h, w), bool)
    visible[:, :4, :4] = False
    return FlowFields(edges, flow, visible)


def test_the_residual_is_what_a_static_scene_cannot_show() -> None:
    scene = tiny_scene(3, 48, 64, depth=np.full((3, 48, 64), 4, np.float32))
    flow = static_flow(simple_findings(scene, sliding_flow(3, 48, 64)))
    assert flow is not None
    moving = np.zeros((3, 48, 64), bool)
    moving[:, 8:24, 16:32] = True
    np.testing.assert_allclose(flow.residual_px[moving], 9, atol=0.3)
    rest = flow.residual_px[~moving]
    assert np.isnan(rest).sum() == 3 * 16
    assert np.nanmax(rest) < 0.3
    np.testing.assert_allclose(flow.static[~moving], np.tile([3, 0], (len(rest), 1)), atol=0.3)


def test_panels_show_what_they_say() -> None:
    scene = tiny_scene(3, 48, 64, depth=np.full((3, 48, 64), 4, np.float32))
    drawing = Explanation(simple_findings(scene, sliding_flow(3, 48, 64)), scene)
    panels = dict(drawing.panels(1))
    assert len(panels) == 16
    assert all(panel.shape == (48, 64, 3) for panel in panels.values())
    np.testing.assert_array_equal(panels["frame"], scene.images[1])
    tinted = panels["dynamic: both"].astype(int)
    reds = tinted[..., 0] - tinted[..., 1]
    assert reds[scene.dynamic[1]].min() > 0
    residual = next(panel for title, panel in panels.items() if title.startswith("residual"))
    assert residual[10:20, 20:30].mean() > 5 * residual[30:].mean()
    np.testing.assert_array_equal(residual[:4, :4], np.tile(UNKNOWN, (4, 4, 1)))
    brightness = [panels[title].mean() for title in ("mean, view 1", "deviation, view 1")]
    assert brightness[0] < brightness[1]
    assert "flow to the next" in panels
    assert "flow to the one before" in dict(drawing.panels(2))


def test_one_frame_has_no_flow_and_findings_must_fit() -> None:
    scene = tiny_scene(1, 48, 64)
    panels = dict(Explanation(simple_findings(scene, None), scene).panels(0))
    np.testing.assert_array_equal(panels["flow"], np.full((48, 64, 3), UNKNOWN))
    with pytest.raises(InputError, match="same clip"):
        Explanation(simple_findings(tiny_scene(3, 48, 64), None), scene)
    with pytest.raises(InputError, match="same clip"):
        Explanation(simple_findings(scene, None), tiny_scene(1, 32, 64))


def test_after_resuming_only_the_new_frames_are_explained(tmp_path: Path) -> None:
    whole, last = tiny_scene(5, 48, 64), {}
    for name in ("images", "depth", "confidence", "dynamic", "K", "T_world_camera"):
        last[name] = getattr(whole, name)[3:]
    part = replace(whole, **last, names=whole.names[3:], times_s=whole.times_s[3:])
    found = simple_findings(part, sliding_flow(2, 48, 64))
    np.testing.assert_array_equal(
        dict(Explanation(found, whole).panels(0))["frame"], whole.images[3]
    )
    names = write_explanation(found, whole, tmp_path)
    assert names[:2] == ["frame_0003.png", "frame_0004.png"]


def test_files(tmp_path: Path) -> None:
    scene = tiny_scene(4, 48, 64)
    found = simple_findings(scene, sliding_flow(4, 48, 64))
    names = write_explanation(found, scene, tmp_path, frames=2)
    assert names == ["frame_0000.png", "frame_0003.png", "explanation.mp4", "reasons.txt"]
    assert sorted(names) == sorted(file.name for file in tmp_path.iterdir())
    with Image.open(tmp_path / names[0]) as picture:
        assert picture.size == (4 * 68, 4 * 70)
    with av.open(str(tmp_path / "explanation.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 4
    said = (tmp_path / "reasons.txt").read_text()
    assert "attention says so" in said
    assert "flow does" in said


def test_colours() -> None:
    flow = np.zeros((1, 5, 2), np.float32)
    flow[0, 1:4] = [[10, 0], [-10, 0], [5, 0]]
    flow[0, 4] = np.nan
    still, right, left, half, unknown = flow_picture(flow, 10.0)[0].tolist()
    assert still == [255, 255, 255]
    assert right == [255, 0, 0]
    assert left == [0, 255, 255]
    assert half[0] == 255
    assert 100 < half[1] < 155
    assert tuple(unknown) == UNKNOWN
    dark, bright, unknown = heat_picture(np.array([[0, 1, np.nan]]))[0].tolist()
    assert sum(dark) < 30 < 500 < sum(bright)
    assert tuple(unknown) == UNKNOWN
    colours = cluster_colours(np.arange(64).reshape(8, 8)).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == 64
