"""The page in a real browser: the cloud is really there, upright, and moves."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pytest

from dyn3r.viewer import view
from tests.factories import tiny_scene

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL in software: test machines have no graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--window-size=640,480",
    "--remote-debugging-port=0",
]


def wait_for_client(viewer, seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        clients = list(viewer.server.get_clients().values())
        if clients:
            return clients[0]
        time.sleep(0.1)
    raise AssertionError(f"no browser connected within {seconds} s")


def is_mover(picture: np.ndarray) -> np.ndarray:
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return (red > 150) & (green < 90) & (blue < 90)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found on the path")
def test_a_browser_shows_the_scene_upright_and_in_motion(tmp_path):
    scene = tiny_scene(n=4, h=96, w=144)
    images = scene.images.copy()
    rows = np.arange(96)
    images[:, rows > 48] = (40, 200, 40)  # the floor is green, the wall blue
    images[:, rows <= 48] = (40, 40, 200)
    images[scene.dynamic] = (250, 20, 20)
    viewer = view(tiny_scene(n=4, h=96, w=144, images=images), port=0, block=False)
    browser = subprocess.Popen(
        [CHROMIUM, *SWITCHES, f"--user-data-dir={tmp_path}", viewer.url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = wait_for_client(viewer, 60)
        viewer._parts["picture"].value = viewer._parts["cameras"].value = False
        viewer.seek(0)
        time.sleep(1.0)
        first = client.get_render(240, 320, timeout=60)
        viewer.seek(3)
        time.sleep(1.0)
        last = client.get_render(240, 320, timeout=60)
    finally:
        browser.terminate()
        browser.wait(timeout=20)
        viewer.stop()
    green, blue = first[..., 1].astype(int), first[..., 2].astype(int)
    floor, wall = green > blue + 60, blue > green + 60
    assert floor.mean() > 0.02
    assert wall.mean() > 0.02
    assert np.nonzero(floor)[0].mean() > np.nonzero(wall)[0].mean() + 20  # the floor is below
    before, after = is_mover(first), is_mover(last)
    assert before.sum() > 20
    assert after.sum() > 20
    # The square belongs to one frame only. It goes 0.26 to the left in the pictures, whose camera
    # goes 0.6 to the right, so in the world, which is what stands still here, it goes right.
    assert np.nonzero(after)[1].mean() > np.nonzero(before)[1].mean() + 5
