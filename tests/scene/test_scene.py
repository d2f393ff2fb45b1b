from __future__ import annotations

import inspect
import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from dyn3r.errors import InputError, OutputError
from dyn3r.scene import Scene, static_points, summarise
from dyn3r.scene import file as scene_file
from dyn3r.scene.background import depth_edges, grow, most_confident_per_voxel
from tests.factories import tiny_scene

EXACT = ("images", "dynamic", "K", "T_world_camera", "times_s")


def full_scene() -> Scene:
    scene = tiny_scene()
    n, (h, w) = len(scene), scene.size_hw
    rng = np.random.default_rng(1)
    return tiny_scene(
        sigma_log_depth=rng.random((n, h, w)),
        up_world=np.array([0.0, -1.0, 0.0]),
        ground_height=-1.5,
        frame_quality=rng.random(n),
        dynamic_map=rng.random((n, 2, 3)),
        metadata={"model": "x", "options": {"size": 512, "list": [1, 2.5, None, "é"]}},
    )


def assert_same(a: Scene, b: Scene, exact_maps: bool) -> None:
    for name in EXACT:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("depth", "confidence", "sigma_log_depth", "dynamic_map"):
        x, y = getattr(a, name), getattr(b, name)
        if exact_maps or x is None:
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(y, x, rtol=2.0**-11, atol=0)
            np.testing.assert_array_equal(x > 0, y > 0)
    np.testing.assert_array_equal(a.frame_quality, b.frame_quality)
    np.testing.assert_array_equal(a.up_world, b.up_world)
    assert a.ground_height == b.ground_height
    assert (a.mapping, a.names, a.fps, a.metadata) == (b.mapping, b.names, b.fps, b.metadata)


# --- points -------------------------------------------------------------------------------------


def test_points_agree_with_unprojection_by_hand():
    scene = tiny_scene()
    # World rotated by 90 degrees about y: camera z is world x, camera x is world -z.
    T = scene.T_world_camera.copy()
    T[1, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    T[1, :3, 3] = [10, 20, 30]
    scene = tiny_scene(T_world_camera=T)
    row, column = 25, 7
    z, f = float(scene.depth[1, row, column]), scene.K[1, 0, 0]
    x, y = (column - 24) / f * z, (row - 16) / f * z
    expected = [z + 10, y + 20, -x + 30]
    points, colors = scene.points(1)
    here = np.flatnonzero(scene.select(1)).tolist().index(row * 48 + column)
    np.testing.assert_allclose(points[here], expected, rtol=1e-5)
    np.testing.assert_array_equal(colors[here], scene.images[1, row, column])
    assert points.dtype == np.float32
    assert colors.dtype == np.uint8


def test_points_split_into_static_and_dynamic():
    scene = tiny_scene()
    counts = {which: len(scene.points(2, which=which).points_world) for which in
              ("all", "static", "dynamic")}  # fmt: skip
    assert counts["dynamic"] == 48  # 8 x 6 pixels
    assert counts["static"] + counts["dynamic"] == counts["all"]
    # The first row is rejected by cleaning, the first column has no depth.
    assert counts["all"] == 31 * 47
    chosen = scene.select(2)
    assert chosen[1:, 1:].all()
    assert not chosen[0].any()
    assert not chosen[:, 0].any()


def test_confidence_threshold_drops_the_share_it_says():
    scene = tiny_scene()
    threshold = scene.confidence_threshold(0.25)
    kept = sum(len(scene.points(t, min_confidence=threshold).points_world) for t in range(4))
    everything = sum(len(scene.points(t).points_world) for t in range(4))
    assert 0.73 < kept / everything < 0.77
    assert scene.confidence_threshold(0.0) == 0.0
    with pytest.raises(InputError, match="from 0 to 1"):
        scene.confidence_threshold(25.0)


def test_select_refuses_an_unknown_kind():
    with pytest.raises(InputError, match="which"):
        inspect.unwrap(Scene.select)(tiny_scene(), 0, which="moving")


def test_static_points_are_background_and_within_budget():
    scene = tiny_scene()
    points, colors = static_points(scene, max_points=700)
    assert 350 < len(points) <= 700
    assert len(colors) == len(points)
    on_floor = np.isclose(points[:, 1], 1.5, atol=1e-3)
    on_wall = np.isclose(points[:, 2], 6.0, atol=1e-3)
    assert (on_floor | on_wall).all()
    assert on_floor.any()
    assert on_wall.any()


def test_static_points_of_a_scene_where_all_moves_are_none():
    scene = tiny_scene(dynamic=np.ones((4, 32, 48), bool))
    assert static_points(scene).points_world.shape == (0, 3)


def test_a_voxel_keeps_its_most_confident_point():
    points = np.array([[0, 0, 0], [0.1, 0, 0], [5, 0, 0], [5.1, 0, 0], [9, 9, 9]], np.float32)
    confidence = np.array([1, 2, 4, 3, 0.5], np.float32)
    assert most_confident_per_voxel(points, confidence, 1.0).tolist() == [1, 2, 4]
    assert most_confident_per_voxel(points, confidence, 0.0).tolist() == [0, 1, 2, 3, 4]
    assert most_confident_per_voxel(points[:0], confidence[:0], 1.0).tolist() == []


def test_grow_and_depth_edges():
    mask = np.zeros((7, 9), bool)
    mask[3, 4] = True
    assert np.argwhere(grow(mask, 1)).tolist() == [[r, c] for r in (2, 3, 4) for c in (3, 4, 5)]
    depth = np.full((4, 6), 2.0, np.float32)
    depth[:, 3:] = 3.0
    depth[0, 0] = 0
    edges = depth_edges(depth)
    assert np.flatnonzero(edges.any(axis=0)).tolist() == [2, 3]
    assert edges[:, 2:4].all()


# --- source resolution --------------------------------------------------------------------------


def test_source_resolution_agrees_with_the_mapping():
    scene = tiny_scene()
    depth = scene.depth_source(1)
    assert depth.shape == (128, 104)
    for v, u in [(32, 4), (95, 99), (64, 50), (70, 31)]:
        column, row = np.rint(scene.mapping.from_source(np.array([u, v], float))).astype(int)
        assert depth[v, u] == scene.depth[1, row, column]
    outside = scene.at_source(scene.images[1], outside=77)
    assert (outside[:32] == 77).all()
    assert (outside[96:] == 77).all()
    assert (outside[:, :4] == 77).all()
    # A world point projects to matching pixels with K at either resolution.
    ray = np.array([0.2, -0.1, 1.0])
    prepared, source = (scene.K[0] @ ray)[:2], (scene.K_source()[0] @ ray)[:2]
    np.testing.assert_allclose(scene.mapping.to_source(prepared), source)


# --- validation ---------------------------------------------------------------------------------


def changed(name: str, index, value) -> dict:
    array = getattr(tiny_scene(), name).copy()
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 32, 48, 3), np.float32)}, "uint8"),
        ({"depth": np.ones((4, 32, 47))}, "depth .*shape"),
        (changed("depth", (0, 0, 0), np.nan), "depth .*finite"),
        (changed("depth", (0, 0, 0), -1), "depth .*negative"),
        (changed("confidence", (0, 0, 0), np.inf), "confidence"),
        ({"depth": np.full((4, 32, 48), 1e39)}, "depth .*finite"),
        ({"depth": "far"}, "depth .*numbers"),
        ({"dynamic": np.zeros((4, 32, 48), np.uint8)}, "bool"),
        (changed("T_world_camera", (2, 0, 0), -1), "frame 2 .*rigid"),
        (changed("T_world_camera", (1, slice(0, 3), slice(0, 3)), 2 * np.eye(3)), "rigid"),
        (changed("T_world_camera", (1, 3, 3), 2), "rigid"),
        (changed("T_world_camera", (1, 0, 3), np.nan), "finite"),
        (changed("K", (0, 0, 0), -1), "fx, fy > 0"),
        (changed("K", (0, 0, 1), 5), "fx, fy > 0"),
        ({"names": ("a",)}, "4 names"),
        ({"names": (1, 2, 3, 4)}, "strings"),
        ({"times_s": np.zeros(3)}, "times_s"),
        ({"fps": -1}, "fps"),
        ({"metadata": {"x": np.zeros(2)}}, "JSON"),
        ({"metadata": {"x": float("nan")}}, "JSON"),
        ({"dynamic_map": np.zeros((3, 2, 2))}, "dynamic_map"),
        ({"sigma_log_depth": np.full((4, 32, 48), -0.1)}, "sigma_log_depth .*negative"),
        ({"up_world": np.array([0.0, 2, 0])}, "unit vector"),
        ({"ground_height": float("inf")}, "ground_height"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        tiny_scene(**changes)
    assert "\n" not in str(caught.value)


def test_the_mapping_must_be_for_these_frames():
    with pytest.raises(InputError, match="mapping"):
        tiny_scene(mapping=tiny_scene(h=16).mapping)


# --- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["half", "full"])
def test_round_trip(tmp_path, precision):
    scene = full_scene()
    path = scene.save(tmp_path / "out", precision=precision)
    assert path == tmp_path / "out" / "scene.dyn3r"
    loaded = Scene.load(tmp_path / "out")
    assert_same(scene, loaded, exact_maps=precision == "full")
    again = loaded.save(tmp_path / "again.dyn3r", precision=precision)
    assert again.read_bytes() == path.read_bytes()
    assert_same(loaded, Scene.load(again), exact_maps=True)


def test_one_frame_without_any_depth_round_trips(tmp_path):
    scene = tiny_scene(n=1, depth=np.zeros((1, 32, 48)), confidence=np.zeros((1, 32, 48)))
    assert_same(scene, Scene.load(scene.save(tmp_path)), exact_maps=True)
    assert scene.median_depth == 1.0
    assert len(scene.points(0).points_world) == 0


@settings(max_examples=80, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        (3, 4),
        elements=st.floats(0, 2.0**120, width=32, allow_subnormal=False),
    )
)
def test_half_codec_law(values):
    bits, exponent = scene_file.encode_half(values)
    decoded = scene_file.decode_half(bits, exponent)
    normal = values >= values.max() * 2.0**-28
    np.testing.assert_allclose(decoded[normal], values[normal], rtol=2.0**-11)
    assert (bits[values > 0] > 0).all()
    assert (bits[values == 0] == 0).all()
    bits_again, exponent_again = scene_file.encode_half(decoded)
    np.testing.assert_array_equal(scene_file.decode_half(bits_again, exponent_again), decoded)


def test_half_codec_carries_the_largest_value_over():
    values = np.array([2.0 - 2.0**-20, 1.0, 2.0**-27], np.float32)
    bits, exponent = scene_file.encode_half(values)
    assert exponent == -13  # 2.0 = 2^14 * 2^-13
    np.testing.assert_array_equal(
        scene_file.decode_half(bits, exponent), np.float32([2, 1, 2.0**-27])
    )


def test_the_file_opens_with_plain_tools(tmp_path):
    scene = tiny_scene()
    with zipfile.ZipFile(scene.save(tmp_path)) as archive:
        header = json.loads(archive.read("scene.json"))
        picture = np.asarray(Image.open(BytesIO(archive.read("images/000002.png"))))
        bits = np.asarray(Image.open(BytesIO(archive.read("depth/000002.png"))))
        mask = np.asarray(Image.open(BytesIO(archive.read("dynamic/000002.png"))))
    np.testing.assert_array_equal(picture, scene.images[2])
    np.testing.assert_array_equal(mask, scene.dynamic[2])
    depth = bits.astype(np.uint16).view(np.float16) * 2.0 ** header["exponents"]["depth"][2]
    np.testing.assert_allclose(depth, scene.depth[2], rtol=2.0**-11)
    np.testing.assert_array_equal(header["T_world_camera"], scene.T_world_camera)


def test_saving_never_replaces_unasked(tmp_path):
    scene = tiny_scene(n=1)
    path = scene.save(tmp_path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        tiny_scene(n=2).save(tmp_path)
    assert path.read_bytes() == before
    tiny_scene(n=2).save(tmp_path, overwrite=True)
    assert len(Scene.load(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["scene.dyn3r"]
    with pytest.raises(OutputError, match="half or full"):
        inspect.unwrap(scene_file.write_fields)(
            vars(scene), tmp_path / "b", overwrite=False, precision="double"
        )


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene_file, "_png", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        tiny_scene().save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def rewrite(path, changes: dict[str, bytes | None]) -> None:
    """Replace (or with None drop) members of the zip at `path`."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def rewrite_header(path, **changes) -> None:
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("scene.json"))
    rewrite(path, {"scene.json": json.dumps(header | changes).encode()})


def refused(path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        Scene.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_missing_and_foreign_files_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "no scene at")
    refused(tmp_path, r"holds no scene\.dyn3r")
    text = tmp_path / "text.dyn3r"
    text.write_text("hello")
    refused(text, "no dyn3r scene")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    refused(tmp_path / "other.npz", "no dyn3r scene")
    path = tiny_scene().save(tmp_path)
    rewrite(path, {"scene.json": b'{"format": "other"}'})
    refused(path, "no dyn3r scene")
    rewrite(path, {"scene.json": b"[" * 100_000})
    refused(path, "not valid JSON")


def test_truncated_files_are_refused_wherever_they_end(tmp_path):
    content = tiny_scene(n=2).save(tmp_path).read_bytes()
    for share in (0.0, 0.2, 0.9, 0.999):
        (tmp_path / "cut.dyn3r").write_bytes(content[: int(share * len(content))])
        refused(tmp_path / "cut.dyn3r", "end is missing")


@pytest.mark.slow
def test_flipped_bytes_never_crash_or_change_the_pictures(tmp_path):
    scene = tiny_scene(n=1, h=16, w=16)
    content = bytearray(scene.save(tmp_path).read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(content), 300):
        bad = bytearray(content)
        bad[place] ^= 0xFF
        (tmp_path / "bad.dyn3r").write_bytes(bad)
        try:
            loaded = Scene.load(tmp_path / "bad.dyn3r")
        except InputError:
            continue
        np.testing.assert_array_equal(loaded.images, scene.images)  # the checksums hold


def test_a_newer_format_is_refused_with_advice(tmp_path):
    path = tiny_scene(n=1).save(tmp_path)
    rewrite_header(path, version=scene_file.VERSION + 1)
    refused(path, "newer dyn3r.*update")


def test_the_first_format_is_read_without_what_it_lacks(tmp_path):
    """Version 1 had another uncertainty, and no up."""
    scene = full_scene()
    path = scene.save(tmp_path)
    with zipfile.ZipFile(path) as archive:
        header = json.loads(archive.read("scene.json"))
        old = {
            name.replace("sigma_log_depth", "uncertainty"): archive.read(name)
            for name in archive.namelist()
        }
    header["version"] = 1
    header["maps"] = [name.replace("sigma_log_depth", "uncertainty") for name in header["maps"]]
    header["exponents"]["uncertainty"] = header["exponents"].pop("sigma_log_depth")
    del header["up_world"], header["ground_height"]
    old["scene.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in old.items():
            archive.writestr(name, content)
    loaded = Scene.load(path)
    assert loaded.sigma_log_depth is None
    assert loaded.up_world is None
    assert loaded.ground_height is None
    np.testing.assert_array_equal(loaded.images, scene.images)
    np.testing.assert_allclose(loaded.depth, scene.depth, rtol=2.0**-11)


def png(array: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"frames": 1000, "size_hw": [1024, 1024]}, "more than dyn3r reads"),
        ({"frames": 10**400}, "header"),
        ({"frames": 5}, "a list of 5"),
        ({"frames": True}, "header"),
        ({"size_hw": [60000, 60000]}, "more than dyn3r reads"),
        ({"size_hw": [32, 64]}, "not .* 64x32"),
        ({"size_hw": "32"}, "header"),
        ({"names": None}, "header"),
        ({"precision": "double"}, "header"),
        ({"exponents": {"depth": [0, 0, 0, 0.5], "confidence": [0] * 4}}, "header"),
        ({"exponents": {"depth": [1000] * 4, "confidence": [0] * 4}}, "depth .*finite"),
        ({"maps": ["confidence"]}, "among the maps"),
        ({"K": None}, "cameras are missing"),
        ({"K": [[1, 2], [3]]}, "header"),
        ({"K": "abc"}, "header"),
        ({"metadata": 3}, "header"),
        ({"mapping": {"source_hw": [1, 2]}}, "header"),
        ({"version": "1"}, "version"),
    ],
)
def test_a_lying_header_is_refused(tmp_path, header, message):
    path = tiny_scene().save(tmp_path)
    if header.get("frames") == 1000:  # lists of the declared length, so that the limit is reached
        header = header | {"names": ["x"] * 1000, "exponents": dict.fromkeys(
            ("depth", "confidence"), [0] * 1000)}  # fmt: skip
    rewrite_header(path, **header)
    refused(path, message)


def test_hostile_members_are_refused(tmp_path):
    path = tiny_scene().save(tmp_path)
    original = path.read_bytes()
    for changes, message in [
        ({"images/000001.png": None}, "images/000001.png is missing"),
        ({"images/000001.png": b"no png"}, "no readable PNG"),
        ({"images/000001.png": png(np.zeros((5000, 5000), np.uint8))}, "not RGB 48x32"),
        ({"images/000001.png": bytes(10**6)}, "too large"),
        ({"depth/000001.png": png(np.full((32, 48), 0x7E00, np.uint16))}, "no finite numbers"),
        ({"depth/000001.png": png(np.zeros((32, 48), np.uint8))}, "not I;16"),
    ]:
        path.write_bytes(original)
        rewrite(path, changes)
        refused(path, message)


def test_summary_says_what_is_there():
    text = "\n".join(summarise(tiny_scene()))
    for part in ("4 of 48x32", "source 104x128", "path length 0.6", "made up", "model       none"):
        assert part in text


def test_summary_of_a_run():
    metadata = {
        "model": {"name": "small", "precision": "float32"},
        "seconds": {"reading": 1.5, "alignment": 2.0},
        "notes": ["motion: a ball rolls"],
        "options": {"graph": "auto"},
    }
    text = "\n".join(summarise(tiny_scene(metadata=metadata)))
    assert "model       small" in text
    assert "seconds     3.5, without reading and writing" in text
    assert "note        motion: a ball rolls" in text
    assert "graph" not in text
