"""A long rendered clip whose camera turns once round in a room, with ground truth: drift.

    python benchmarks/rendered_loop.py OUT --frames 600 [--photos FOLDER]

Writes a truth folder (docs/metrics.md) to OUT/clip: a camera that looks outward from a circle and
comes back to where it began, furniture all around, people who walk on circles of their own. Then
reconstructs the clip with the default options on `--threads` (1) and prints what `dyn3r eval` does,
the seconds and the memory, and how far the last camera is from the first beside the truth, with
windows joined only and with loops closed. Needs numba (extra `train`).
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

DISTANCE = 2.5
"""Distance to the furniture in metres."""
CIRCLE = 0.8
"""Radius of the camera's circle in metres."""
SIZE_HW = (128, 224)
WALKERS, SPEED = 3, 0.8
"""People, and how fast they walk in metres per second."""
FPS = 24.0


def camera_circle(frames: int, rng: random.Random):
    """One turn, looking outward, with the shake of a hand."""
    from dyn3r.training.synthetic.camera_paths import CameraPath, camera_rotation

    turn = np.linspace(0, 2 * math.pi, frames)
    phases = [rng.uniform(0, 6) for _ in range(3)]
    sway = 0.02 * np.stack([np.sin(13 * turn + p) for p in phases], -1)  # closed, too
    t = np.stack([CIRCLE * np.sin(turn), CIRCLE * np.cos(turn), np.full(frames, 1.4)], -1) + sway
    pitch = -0.15 + 0.03 * np.sin(7 * turn)
    R = np.stack([camera_rotation(a, p, 0.01 * math.sin(9 * a)) for a, p in zip(turn, pitch)])
    half_angle = math.radians(32.0)
    f_px = 0.5 * SIZE_HW[1] / math.tan(half_angle)
    return CameraPath(R, t, f_px, half_angle, DISTANCE, list(turn / turn[-1]), "loop")


def loop_scene(frames: int, photos: str | None, seed: int):
    """The scene, and the textures that it is drawn with."""
    from dyn3r.training.synthetic import layouts, objects
    from dyn3r.training.synthetic.layouts import Layout
    from dyn3r.training.synthetic.object_placement import add_objects
    from dyn3r.training.synthetic.scene_sampling import Scene, sample_light
    from dyn3r.training.synthetic.scenes import Builder
    from dyn3r.training.synthetic.textures import make_bank

    class AllAround(Layout):
        """Objects stand in all directions, not only before the first camera."""

        def sample_place(self, near: float, far: float, wide: float) -> tuple[float, float]:
            around = self.rng.uniform(0, 2 * math.pi)
            away = CIRCLE + DISTANCE * math.exp(self.rng.uniform(math.log(0.6), math.log(1.4)))
            return away * math.sin(around), away * math.cos(around)

    rng = random.Random(seed)
    path, bank = camera_circle(frames, rng), make_bank(seed, photos)
    builder = Builder(rng, frames, bank.num_procedural, len(bank.tiles))
    lay = AllAround(builder, rng, path)
    layouts.room(lay, 0.0, 3.0)
    seconds = np.arange(frames) / FPS
    for k in range(WALKERS):
        radius, where = CIRCLE + rng.uniform(0.8, 1.4), rng.uniform(0, 2 * math.pi)
        angle = where + (-1) ** k * SPEED / radius * seconds
        heading = angle + (-1) ** k * math.pi / 2
        t = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], -1)
        R = Rotation.from_euler("z", heading[:, None]).as_matrix()
        objects.person(builder, builder.moving_group(R, t), 1.7, list(4.0 * SPEED * seconds))
    add_objects(lay, 60, 0.8, 0.6, 1.4, 0.4)
    light = sample_light(rng, bank, DISTANCE, 1.4, indoors=True)
    return Scene(builder.finish(), path, light, True, "room"), bank, rng


def write_clip(folder: Path, frames: int, photos: str | None, seed: int) -> None:
    """Render the clip and write its frames and truth."""
    from dyn3r.datasets.folder import write_truth_folder
    from dyn3r.training.synthetic.rendering import render

    scene, bank, rng = loop_scene(frames, photos, seed)
    h, w = SIZE_HW
    out = {
        "images": np.zeros((frames, 3, h, w), np.float32),
        "depth": np.zeros((frames, h, w), np.float32),
        "valid": np.zeros((frames, h, w), bool), "moving": np.zeros((frames, h, w), bool),
        "K": np.zeros((frames, 3, 3), np.float32),
        "T_world_camera": np.zeros((frames, 4, 4), np.float32),
    }  # fmt: skip
    render(scene, 2, bank, rng, out)
    pixels = (out["images"].transpose(0, 2, 3, 1) * 255 + 0.5).astype(np.uint8)
    write_truth_folder(
        folder, pixels, T_world_camera=out["T_world_camera"], K=out["K"], depth=out["depth"],
        dynamic=out["moving"],
    )  # fmt: skip


def closure(T: np.ndarray, true: np.ndarray, scale: float) -> str:
    """How far the last camera is from where the truth has it, seen from the first."""
    from dyn3r.evaluation.trajectory import path_length, rotation_angle_deg

    found, wanted = (np.linalg.inv(x[0].astype(np.float64)) @ x[-1] for x in (T, true))
    turn = rotation_angle_deg(found[:3, :3] @ wanted[:3, :3].T)
    off = np.linalg.norm(scale * found[:3, 3] - wanted[:3, 3]) / path_length(true[:, :3, 3])
    return f"the last camera is off by {turn:.2f} degrees and {off:.2%} of the path"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--photos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    import dyn3r
    from dyn3r.evaluation.evaluate import evaluate
    from dyn3r.evaluation.trajectory import trajectory_errors
    from dyn3r.io.workers import use_threads

    use_threads(args.threads)
    folder = args.out / "clip"
    if not folder.exists():
        write_clip(folder, args.frames, args.photos, args.seed)
    true = np.load(folder / "camera.npz")["cam2world"]
    model = dyn3r.load_model()
    clip = dyn3r.read_clip(folder / "frames", size=model.image_size)
    scenes: dict[str, dyn3r.Scene] = {}

    def observe(name: str, value: object) -> None:
        if "joined" in name and isinstance(value, dyn3r.Scene):
            scenes[name] = value

    context = dyn3r.RunContext(observe=observe)
    cpu, wall = time.process_time(), time.perf_counter()
    scenes["at the end"] = scene = dyn3r.reconstruct(clip, model, context=context)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(clip)} frames: {cpu:.0f} CPU s ({cpu / len(clip):.2f} a frame), {wall:.0f} s, "
        f"{peak:.0f} MB; {scene.metadata.get('windows', {})}"
    )
    print(evaluate(scene, folder).to_json())
    for name, each in scenes.items():
        # frames without texture are left out
        shown = true[[clip.names.index(frame) for frame in each.names]]
        errors = trajectory_errors(each.T_world_camera, shown)
        end = closure(each.T_world_camera, shown, errors.scale)
        print(
            f"{name}: {len(shown)} frames, ATE {errors.ate_share:.2%} of the path, rotation "
            f"{errors.rotation_deg:.2f} degrees; {end}"
        )


if __name__ == "__main__":
    main()
