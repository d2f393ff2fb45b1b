"""The viewer on 65 frames of 512x288: loading time, bytes sent, frame rate.

    python benchmarks/viewer.py                       # a headless websocket client
    python benchmarks/viewer.py --style points        # the same with points in place of surfaces
    python benchmarks/viewer.py --browser             # and a headless Chromium, if there is one
    python benchmarks/viewer.py --images docs/images  # make the images of docs/viewer.md instead

The clip is the bundled one, played forwards and backwards, enlarged and cropped, with its true
depth, cameras and masks. The client is a separate process that speaks viser's protocol. It counts
the bytes until the scene is complete, then frames and bytes while the clip plays at 30 frames per
second. CPU times are the server's; unlike wall-clock times they are valid on a busy machine.
Chromium renders in software here; with a graphics card it is much faster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))  # tests.viewer.browser

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, 0.0),
    "fov": 1.0, "near": 0.01, "far": 1000.0, "image_height": 720, "image_width": 1280,
    "look_at": (0.0, 1.0, 0.0), "up_direction": (0.0, 0.0, 1.0),
}  # fmt: skip
FRAMES, SIZE_WH, PLAY_FPS = 65, (512, 288), 30.0


def demo_truth() -> Any:
    """Ground truth of the bundled clip as a scene."""
    from PIL import Image

    from dyn3r import Scene
    from dyn3r.assets.demo import DEMO_FPS, demo_clip_folder
    from dyn3r.types import FrameMapping

    folder = demo_clip_folder()
    paths = sorted((folder / "frames").iterdir())
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    with np.load(folder / "depth.npz") as file:
        depth = file["depth"].astype(np.float32)
    with np.load(folder / "dynamic.npz") as file:
        dynamic = file["mask"]
    with np.load(folder / "camera.npz") as file:
        K, T_world_camera = file["K"], file["cam2world"]
    n, h, w = depth.shape
    # Confidence similar to a network's: lower at depth discontinuities and far away.
    slope = np.hypot(*np.gradient(depth, axis=(1, 2))) / np.maximum(depth, 1e-6)
    confidence = np.where(depth > 0, 1 + 8 / (1 + 20 * slope) / np.maximum(depth, 1), 0)
    return Scene(
        images=images,
        depth=depth,
        confidence=confidence.astype(np.float32),
        dynamic=dynamic,
        K=np.tile(K, (n, 1, 1)),
        T_world_camera=T_world_camera,
        mapping=FrameMapping((h, w), (h, w), (0, 0), (h, w)),
        names=tuple(path.name for path in paths),
        times_s=np.arange(n) / DEMO_FPS,
        fps=DEMO_FPS,
    )


def benchmark_scene() -> Any:
    """Scene of 65 frames of 512x288 from the bundled clip."""
    import cv2

    from dyn3r import Scene
    from dyn3r.types import FrameMapping

    truth = demo_truth()
    n, (w, h) = len(truth), SIZE_WH
    there_and_back = np.abs((np.arange(FRAMES) + n - 1) % (2 * n - 2) - (n - 1))
    scale = w / truth.size_hw[1]
    top = (round(truth.size_hw[0] * scale) - h) // 2

    def enlarge(maps: np.ndarray, method: int) -> np.ndarray:
        size = (w, round(truth.size_hw[0] * scale))
        return np.stack([cv2.resize(m, size, interpolation=method)[top : top + h] for m in maps])

    K = truth.K.copy()
    K[:, :2] *= scale
    K[:, :2, 2] += 0.5 * scale - 0.5
    K[:, 1, 2] -= top
    maps = (truth.depth, truth.confidence, truth.dynamic.astype(np.uint8))
    depth, confidence, dynamic = (enlarge(m, cv2.INTER_NEAREST)[there_and_back] for m in maps)
    return Scene(
        images=enlarge(truth.images, cv2.INTER_LINEAR)[there_and_back],
        depth=depth,
        confidence=confidence,
        dynamic=dynamic.astype(bool),
        K=K[there_and_back],
        T_world_camera=truth.T_world_camera[there_and_back],
        mapping=FrameMapping((h, w), (h, w), (0, 0), (h, w)),
        names=tuple(f"frame_{t:06d}" for t in range(FRAMES)),
        times_s=np.arange(FRAMES) / PLAY_FPS,
        fps=PLAY_FPS,
    )


def client(url: str, seconds: float) -> None:
    """Count what a browser receives while loading and while playing; print it as JSON."""
    import msgspec
    import viser
    import zstandard
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    unzip = zstandard.ZstdDecompressor()
    start, loaded, load_bytes = time.perf_counter(), 0.0, 0
    shown: list[float] = []
    play_bytes = 0
    protocol = Subprotocol(f"viser-v{viser.__version__}")
    with connect(url.replace("http", "ws", 1), subprotocols=[protocol], max_size=None) as page:
        page.send(msgspec.msgpack.encode(CAMERA))  # scenes are added for browsers with a camera
        while time.perf_counter() < (start + 120 if not loaded else loaded + seconds):
            try:
                window = page.recv(timeout=0.5)
            except TimeoutError:
                continue
            assert isinstance(window, bytes)
            now = time.perf_counter()
            size = int.from_bytes(window[:8], "little")
            packed = int.from_bytes(window[8:16], "little")
            text = unzip.decompress(window[16 : 16 + packed], max_output_size=size)
            messages = msgspec.msgpack.decode(text)["messages"]
            for m in messages:
                if m["type"] == "LocalStorageGetItemRequestMessage":
                    answer = {"type": "LocalStorageGetItemResponseMessage", "value": None,
                              "error": None, "request_uuid": m["request_uuid"]}  # fmt: skip
                    page.send(msgspec.msgpack.encode(answer))
            if loaded:
                play_bytes += len(window)
                shown += [
                    now
                    for m in messages
                    if m["type"] == "SetSceneNodeVisibilityMessage"
                    and m["name"].startswith("/scene_0/moving/")
                    and m["visible"]
                ]
            else:
                load_bytes += len(window)
                if any(m["type"] == "LocalStorageGetItemRequestMessage" for m in messages):
                    loaded = now
                    print(json.dumps({"loaded": True}), flush=True)
    gaps = np.diff(shown) if len(shown) > 2 else np.array([np.inf])
    print(
        json.dumps(
            {
                "load_s": loaded - start,
                "load_mb": load_bytes / 1e6,
                "frames_per_s": (len(shown) - 1) / (shown[-1] - shown[0]) if shown else 0.0,
                "frame_ms_median": 1000 * float(np.median(gaps)),
                "frame_ms_95": 1000 * float(np.percentile(gaps, 95)),
                "bytes_per_frame": play_bytes / max(1, len(shown)),
            }
        )
    )


def measure(viewer: Any, seconds: float, *, filmstrip: bool = False) -> dict[str, float]:
    """Measurements of a headless client while the viewer plays."""
    viewer.pause()
    viewer.seek(0)
    command = [sys.executable, __file__, "--client", viewer.url, "--seconds", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        viewer.show_filmstrip(visible=filmstrip)
        viewer.play()
        start = time.process_time()
        result = json.loads(process.stdout.readline())
        spent = time.process_time() - start
    viewer.pause()
    frames = max(1.0, seconds * result["frames_per_s"])
    return {**result, "server_cpu_ms_per_frame": 1000 * spent / frames}


def measure_browser(viewer: Any, seconds: float) -> dict[str, float]:
    """Measurements of Chromium: seconds until the points are visible, and frame rate."""
    from tests.viewer.browser import Browser

    viewer.pause()
    viewer.seek(0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        start = time.perf_counter()
        with Browser(viewer.url, Path(profile), (1280, 720)) as browser:
            browser.until(lambda: (browser.screenshot()[:, :900] > 60).all(-1).mean() > 0.1, 120)
            seen_s = time.perf_counter() - start
            viewer.play()
            script = f"""new Promise(done => {{
                const start = performance.now(); let drawn = 0; const seen = [];
                const step = now => {{
                    drawn++;
                    const text = [...document.querySelectorAll('label')].map(l => l.innerText)
                        .find(v => /^[0-9.]+ s$/.test(v));
                    if (seen[seen.length - 1] !== text) seen.push(text);
                    if (now - start < {1000 * seconds}) requestAnimationFrame(step);
                    else done([drawn, seen.length - 1, now - start]);
                }};
                requestAnimationFrame(step);
            }})"""
            drawn, changes, milliseconds = browser.run(script)
    viewer.pause()
    return {
        "seen_after_s": seen_s,
        "images_per_s": 1000 * drawn / milliseconds,
        "clip_frames_per_s": 1000 * changes / milliseconds,
    }


def make_images(folder: Path) -> None:
    """Write the images of docs/viewer.md: the page on the bundled clip's ground truth."""
    from tests.viewer.browser import Browser

    from dyn3r.scene.drawing import write_picture
    from dyn3r.viewer import Appearance, Visibility, view, write_screenshot

    def keep(name: str, image: np.ndarray) -> None:
        write_picture(np.ascontiguousarray(image), folder / f"viewer-{name}.jpg", overwrite=True)

    scene = demo_truth()
    notices = "document.querySelectorAll('.mantine-Notification-closeButton')"
    viewer = view(scene, names=["living_room_walk"], port=0, block=False)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        Browser(viewer.url, Path(profile), (1280, 850)) as browser,
    ):
        browser.until(lambda: (browser.screenshot()[:, :900] > 60).all(-1).mean() > 0.1, 120)
        time.sleep(5)
        browser.run(f"{notices}.forEach(b => b.click())")
        viewer.seek(8)
        time.sleep(3)
        keep("first", browser.screenshot())
        viewer.show_filmstrip(visible=True)
        viewer.set_visibility(Visibility(trail_length=10))
        viewer.seek(14)
        time.sleep(3)
        keep("trails", browser.screenshot())
        viewer.show_filmstrip(visible=False)
        viewer.set_visibility(Visibility(frame_stride=5, image=False))
        time.sleep(3)
        keep("all-frames", browser.screenshot())
        viewer.set_appearance(Appearance())
        viewer.set_visibility(Visibility())
        viewer.follow_camera(enabled=True)
        viewer.seek(14)
        time.sleep(3)
        keep("follow", browser.screenshot())
    viewer.stop()
    write_screenshot(scene, folder / "viewer-software.jpg", frame=8, size_hw=(540, 960),
                     overwrite=True)  # fmt: skip


def main() -> None:
    """Run the benchmark, or write the images."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of playback")
    parser.add_argument("--browser", action="store_true", help="measure a Chromium as well")
    parser.add_argument("--images", type=Path, help="write the images of docs/viewer.md here")
    parser.add_argument("--style", default="surface", choices=("surface", "points"))
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client(options.client, options.seconds)
        return
    if options.images:
        make_images(options.images)
        return
    from dyn3r.viewer import Appearance, save_recording, view

    scene = benchmark_scene()
    start, cpu = time.perf_counter(), time.process_time()
    appearance = Appearance(style=options.style)
    viewer = view(scene, port=0, block=False, appearance=appearance)
    result: dict[str, Any] = {"prepare_s": time.perf_counter() - start}
    result["prepare_cpu_s"] = time.process_time() - cpu
    (points,) = viewer.scenes.points
    moving = [points.shown_moving(t) for t in range(len(scene))]
    result["vertices or points"] = [
        sum(map(len, pixels)) for pixels in ([p for _, p in points.shown_static], moving)
    ]
    result["client"] = measure(viewer, options.seconds)
    result["client with filmstrip"] = measure(viewer, options.seconds, filmstrip=True)
    if options.browser:
        result["browser"] = measure_browser(viewer, options.seconds)
    viewer.stop()
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        page = save_recording(scene, Path(folder) / "scene.html", appearance=appearance)
        result["page"] = {"cpu_s": time.process_time() - cpu, "mb": page.stat().st_size / 1e6}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
