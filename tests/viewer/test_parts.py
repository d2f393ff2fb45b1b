"""Small parts of the page: address, measuring, legends, verdict, scripts."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.viewer import Appearance, Visibility
from dyn3r.viewer.address import Address, parse_address
from dyn3r.viewer.legend import legend_html
from dyn3r.viewer.page import WebPage
from dyn3r.viewer.page_script import set_title
from dyn3r.viewer.picking import Picker, describe, find_hit, nearest_hit
from dyn3r.viewer.playback import Playback, PreparedScenes
from dyn3r.viewer.verdict import verdict_html
from tests.factories import tiny_scene


@pytest.fixture
def playback():
    page = WebPage("127.0.0.1", 0)
    scene = tiny_scene(metadata={"unit": "metres"})
    everything = Appearance(hide_edges=False)
    yield Playback(page.server, PreparedScenes([scene], ["a"], everything), everything,
                   Visibility())  # fmt: skip
    page.stop()


def test_an_address_is_read_back():
    address = Address(12, (np.array([1.0, -2.5, 3]), np.array([0.1, 0, 1e-9])))
    assert address.text == "t=12&view=1,-2.5,3,0.1,0,1e-09"
    again = parse_address("?" + address.text)
    assert again.frame == 12
    np.testing.assert_allclose(np.array(again.view), np.array(address.view))
    assert parse_address("").text == Address().text == ""


@pytest.mark.parametrize(
    "text",
    ["?t=-1", "?t=x&view=1,2,3", "t=1e3", "view=1,2,3,4,5,nan", "view=a,b,c,d,e,f", "&&==", "t=²",
     "t=" + "9" * 400],
)  # fmt: skip
def test_addresses_that_cannot_be_read_say_nothing(text):
    assert parse_address(text) == Address()


def test_a_click_hits_the_front_point_at_the_smallest_angle():
    points = np.array([[0, 0, 5.0], [0.01, 0, 2], [0.002, 0, 2.01], [0, 0, -1], [1, 0, 1]])
    ahead = np.array([0, 0, 2.0])
    assert nearest_hit(points, np.zeros(3), ahead) == 2
    assert nearest_hit(points[[0, 3, 4]], np.zeros(3), ahead) == 0
    assert nearest_hit(points[3:], np.zeros(3), ahead) is None


def ray(scene, t: int, pixel: int):
    """Origin and direction (depth 1) of a pixel's ray."""
    row, column = divmod(pixel, scene.size_hw[1])
    T = scene.T_world_camera[t]
    return T[:3, 3], T[:3, :3] @ np.linalg.inv(scene.K[t]) @ np.array([column, row, 1.0])


def test_a_ray_through_a_pixel_hits_its_point(playback):
    nodes = playback.leading
    scene = nodes.scene
    playback.show_frame(2)
    static = int(nodes.points.background_pixels[2][-1])
    moving = int(nodes.points.moving_pixels[2][5])
    for pixel in (static, moving):
        origin, direction = ray(scene, 2, pixel)
        hit = find_hit(nodes, origin, direction)
        assert (hit.frame, hit.pixel) == (2, pixel)
        expected = origin + direction * scene.depth[2].ravel()[pixel]
        np.testing.assert_allclose(hit.point, expected, atol=1e-5)
    nodes.set_visibility(Visibility(moving=False))
    hit = find_hit(nodes, *ray(scene, 2, moving))
    assert hit is None or not scene.dynamic[hit.frame].ravel()[hit.pixel]


def test_measurements_have_units_and_distances(playback):
    nodes = playback.leading
    first, second = (
        find_hit(nodes, *ray(nodes.scene, 0, int(pixels[0][3])))
        for pixels in (nodes.points.background_pixels, nodes.points.moving_pixels)
    )
    text = describe(nodes, [first, second])
    distance = np.linalg.norm(first.point - second.point)
    assert text.startswith(f"distance {distance:.4g} (metres); second point: depth 2.5, x ")
    assert f"frame_000000, column {second.pixel % 48}, row {second.pixel // 48}" in text
    shown: list[str] = []
    picker = Picker(playback._target, playback, shown.append)
    picker.set_enabled(enabled=True)
    picker.remove()
    assert shown == ["click a point", ""]


def test_legends_name_the_ends_of_the_colours(playback):
    nodes = playback.leading
    assert legend_html(nodes, Appearance()) == ""
    depth = legend_html(nodes, Appearance(color="depth"))
    near, far = 1 / np.percentile(1 / nodes.scene.depth[nodes.scene.depth > 0], [98, 2])
    assert f"depth {near:.3g}" in depth
    assert f"{far:.3g} metres" in depth
    assert "0.00 s" in legend_html(nodes, Appearance(color="time"))
    assert "0.30 s" in legend_html(nodes, Appearance(color="time"))
    assert "%" in legend_html(nodes, Appearance(color="confidence"))
    assert "moving" in legend_html(nodes, Appearance(color="motion"))


def test_the_verdict_has_a_light_for_each_part():
    verdict = {
        "cameras": {"grade": "good", "reason": "a <b>"},
        "masks": {"grade": "poor", "reason": "too large"},
    }
    page = verdict_html(tiny_scene(metadata={"verdict": verdict}))
    assert page.count("&#9679;") == 2
    assert page.index("cameras") < page.index("masks")
    assert "too large" in page
    assert "a <b>" not in page
    assert "a &lt;b&gt;" in page
    for without in ({}, {"verdict": None}, {"verdict": ["good"]}):
        assert verdict_html(tiny_scene(metadata=without)) == ""


def test_titles_cannot_end_the_script_of_a_recording(playback, monkeypatch):
    sent: list = []
    monkeypatch.setattr(playback._target.gui._websock_interface, "queue_message", sent.append)
    set_title(playback._target, '</script><b>"')
    assert "</" not in sent[0].source
    assert sent[0].source.startswith('document.title = "')
