"""Rendering speed of the synthetic world: frames and pairs per second, by threads.

python benchmarks/world_throughput.py [PHOTOS_FOLDER] [THREADS]
"""

from __future__ import annotations

import sys
import time

from dyn3r.training.synthetic.world import World, WorldOptions


def measure(world: World, clips: int, threads: int, with_flow: bool) -> str:
    """Measure frames and pairs per second, and CPU time per frame; best of three."""
    frames = clips * world.options.frames
    best_wall, best_cpu = float("inf"), float("inf")
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        world.sample(clips, step=1, threads=threads, with_flow=with_flow)
        best_wall = min(best_wall, time.perf_counter() - wall)
        best_cpu = min(best_cpu, time.process_time() - cpu)
    return (
        f"{threads} thread(s), flow {'on' if with_flow else 'off'}: {frames / best_wall:.0f} "
        f"frames/s, {frames / best_wall / 2:.0f} pairs/s, "
        f"{1e3 * best_cpu / frames:.1f} ms of one core per frame"
    )


def main() -> None:
    """Print the throughput with and without flow."""
    photos = sys.argv[1] if len(sys.argv) > 1 else None
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    world = World(WorldOptions(photos=photos), seed=0)
    start = time.perf_counter()
    world.sample(1, step=0)
    print(f"compile or load kernels: {time.perf_counter() - start:.1f} s")
    for count in sorted({1, threads}):
        for with_flow in (True, False):
            print(measure(world, 40, count, with_flow))


if __name__ == "__main__":
    main()
