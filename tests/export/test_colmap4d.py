"""colmap4d: dynamic points at their pixels and times, in files as its specification has them."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tests.factories import tiny_scene


def records(path, format_: str) -> list[tuple[int, int]]:
    """Pairs of a file: a count of 8 bytes, then records, all little-endian."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    size = struct.calcsize(format_)
    assert len(data) == 8 + count * size
    return [struct.unpack_from(format_, data, 8 + k * size) for k in range(count)]


def test_dynamic_points_have_the_time_of_their_frame_and_lie_at_their_pixel(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    scene = tiny_scene()
    scene.export("colmap4d", tmp_path / "out", drop=0.0, resolution="prepared")
    sparse = tmp_path / "out" / "sparse" / "0"
    times = dict(records(sparse / "times.bin", "<Iq"))
    assert times == {t + 1: round(1e9 * time) for t, time in enumerate(scene.times_s)}
    point_times = dict(records(sparse / "points_t.bin", "<Qq"))
    model = pycolmap.Reconstruction(sparse)
    frame_of = {time: t for t, time in times.items()}
    for number, time in point_times.items():
        point = model.points3D[number]
        (element,) = point.track.elements
        assert element.image_id == frame_of[time]
        image = model.images[element.image_id]
        u, v = image.project_point(point.xyz) - 0.5
        t = element.image_id - 1
        assert scene.dynamic[t, round(v), round(u)]
        np.testing.assert_allclose([u, v], np.round([u, v]), atol=1e-3)
        np.testing.assert_array_equal(point.color, scene.images[t, round(v), round(u)])
    assert set(point_times.values()) == set(times.values())
    static = set(model.points3D) - set(point_times)
    assert len(static) > 100
    assert max(static) < min(point_times)
    about = json.loads((sparse / "time_meta.json").read_text())
    assert about["colmap4d_spec"] == "1.0"


def test_a_still_scene_and_a_limit(tmp_path):
    still = tiny_scene(dynamic=np.zeros((4, 32, 48), bool))
    still.export("colmap4d", tmp_path / "still", drop=0.0)
    assert records(tmp_path / "still" / "sparse" / "0" / "points_t.bin", "<Qq") == []
    tiny_scene().export("colmap4d", tmp_path / "few", drop=0.0, max_points=40)
    few = records(tmp_path / "few" / "sparse" / "0" / "points_t.bin", "<Qq")
    assert 10 <= len(few) <= 60
