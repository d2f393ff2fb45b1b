"""Fresh scenes of the synthetic world as truth folders, for `dyn3r benchmark folder`.

    python benchmarks/fresh_scenes.py OUT --seed 1 [--scenes 14] [--frames 12] [--photos FOLDER]
        [--dynamic-share 0.8] [--following-share 0.5] [--moving-share 0.02 0.35]
        [--baselines 0.1 0.25 0.5]
    dyn3r benchmark folder --root OUT -o RESULTS

Writes OUT/SEED_NN (docs/metrics.md): frames of 224x128 with exact depth, cameras and masks. By
default four in five have moving objects, which cover 2 to 35 % of the pixels, and half of these a
camera that follows one; the largest distance between cameras is 0.1, 0.25 and 0.5 of the depth in
turn. A seed that no rule was chosen on is untouched data until somebody looks at it. The networks
were trained on the same world. Needs numba (extra `train`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

SIZE_HW = (128, 224)


def write_scene(folder: Path, sample) -> None:
    """Frames and truth of the first scene of a sample; an existing folder is kept."""
    from dyn3r.datasets.folder import write_truth_folder
    from dyn3r.training.clip_cache import images_of

    if not folder.exists():
        truth = (sample.T_world_camera, sample.K, sample.depth, sample.moving)
        T, K, depth, moving = (x[0].numpy() for x in truth)
        write_truth_folder(
            folder, images_of(sample), T_world_camera=T, K=K, depth=depth, dynamic=moving
        )


def main() -> None:
    from dyn3r.training.clip_cache import BASELINES, world_factory

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--scenes", type=int, default=14)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--photos")
    parser.add_argument("--dynamic-share", type=float, default=0.8)
    parser.add_argument("--following-share", type=float, default=0.5)
    parser.add_argument("--moving-share", type=float, nargs=2, default=(0.02, 0.35))
    parser.add_argument("--baselines", type=float, nargs="+", default=BASELINES)
    args = parser.parse_args()

    world_of = world_factory(
        (SIZE_HW,), args.seed, frames=args.frames, photos=args.photos,
        dynamic_share=args.dynamic_share, following_share=args.following_share,
        moving_share=tuple(args.moving_share),
    )  # fmt: skip
    for index in range(args.scenes):
        sample = world_of(index, tuple(args.baselines)).sample(1, index, with_flow=False)
        write_scene(args.out / f"{args.seed}_{index:02d}", sample)


if __name__ == "__main__":
    main()
