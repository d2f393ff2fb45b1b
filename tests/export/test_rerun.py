"""Recordings for rerun, read back with its own reader."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dyn3r.export.camera_conventions import y_up
from tests.export.known_world import assert_points_are_those_of_the_frame, known_scene

chunks = pytest.importorskip("rerun.chunk", reason="needs rerun-sdk to read the recording")

Content = dict[str, dict[int, dict[str, Any]]]


def read(path: Path) -> Content:
    """content[entity][frame][component], frame -1 for what is the same at all times."""
    out: Content = defaultdict(lambda: defaultdict(dict))
    for chunk in chunks.RrdReader(str(path)).stream():
        batch = chunk.to_record_batch().to_pydict()
        rows = len(next(iter(batch.values())))
        for k in range(rows):
            frame = batch["frame"][k] if "frame" in batch else -1
            values = {name: column[k] for name, column in batch.items() if ":" in name}
            out[chunk.entity_path][frame] |= values
    return out


def transform(values: dict[str, Any]) -> np.ndarray:
    """Child to parent; rerun stores matrices column by column."""
    T = np.eye(4)
    T[:3, :3] = np.reshape(values["Transform3D:mat3x3"], (3, 3)).T
    T[:3, 3] = np.ravel(values["Transform3D:translation"])
    return T


def points(values: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    packed = np.array(values["Points3D:colors"], np.uint32)  # 0xRRGGBBAA
    colors = np.stack([packed >> shift & 255 for shift in (24, 16, 8)], axis=-1)
    return np.array(values["Points3D:positions"]), colors


def picture(values: dict[str, Any], kind: str, dtype: Any) -> np.ndarray:
    (about,) = values[f"{kind}:format"]
    buffer = np.array(values[f"{kind}:buffer"][0], np.uint8).view(dtype)
    return buffer.reshape(about["height"], about["width"])


def test_points_project_to_their_pixels_in_every_frame(tmp_path):
    scene = known_scene()
    scene.export("rerun", tmp_path / "a.rrd", drop=0.0)
    content = read(tmp_path / "a.rrd")
    assert sorted(content["/world/camera"]) == list(range(len(scene)))
    np.testing.assert_allclose(transform(content["/world"][-1]), y_up(scene), atol=1e-6)
    for t in range(len(scene)):
        camera = content["/world/camera"][t]
        K = np.reshape(camera["Pinhole:image_from_camera"], (3, 3)).T
        assert np.ravel(camera["Pinhole:resolution"]).tolist() == list(scene.size_hw[::-1])
        assert np.ravel(camera["Pinhole:camera_xyz"]).tolist() == [3, 2, 5]  # right, down, forward
        for entity in ("static", "moving"):
            row = content[f"/world/{entity}"][-1 if entity == "static" else t]
            xyz, colors = points(row)
            T_camera_world = np.linalg.inv(transform(camera))
            seen = xyz @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]
            corners = seen @ K.T
            xy = corners[:, :2] / corners[:, 2:]
            moving = entity == "moving"
            assert_points_are_those_of_the_frame(scene, t, xy, seen[:, 2], colors, moving=moving)


def test_images_depth_and_masks_are_those_of_the_frames(tmp_path):
    scene = known_scene()
    scene.export("rerun", tmp_path / "a.rrd")
    content = read(tmp_path / "a.rrd")
    for t in range(len(scene)):
        blob = bytes(content["/world/camera/rgb"][t]["EncodedImage:blob"][0])
        image = np.asarray(Image.open(io.BytesIO(blob)).convert("RGB"))
        assert np.abs(image.astype(float) - scene.images[t]).mean() < 4
        depth = content["/world/camera/depth"][t]
        values = picture(depth, "DepthImage", np.uint16) / depth["DepthImage:meter"][0]
        np.testing.assert_allclose(values, scene.depth[t], rtol=1e-4)
        mask = picture(content["/world/camera/motion"][t], "SegmentationImage", np.uint8)
        np.testing.assert_array_equal(mask > 0, scene.dynamic[t])
