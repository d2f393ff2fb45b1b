"""Ablation: each rule of the refinement off, one at a time, over clips with truth.

    python benchmarks/ablation.py OUT CLIPS [CLIPS ...] [--without RULE ...] [--jobs 2]

CLIPS: truth folders, or folders of them (docs/metrics.md). Flow, the first pass, the first masks
and the alignment are computed once for each clip; what follows is computed once for each rule.
Results are written to OUT/CLIP.json as they come, and what is there is not computed again. Prints
means over all clips that have a number, and every notable change of a clip.

A rule is switched off by replacing a function or a constant of the library, so this file says where
each one is.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

EVERYTHING = "nothing"
"""The method as it is."""


def rules() -> dict[str, list[Any]]:
    """What switches each rule off."""
    import torch

    from dyn3r.bundle_adjustment.options import BundleAdjustmentOptions
    from dyn3r.motion.static_components import STRIDE

    def same(value, *_args, **_kwargs):
        return value

    def none_of(pixels, *_args):
        return np.zeros_like(pixels)

    def none_of_tested(masks, *_args):
        return np.zeros_like(masks[:, ::STRIDE, ::STRIDE])

    adjust = "dyn3r.bundle_adjustment.adjust"
    options = f"{adjust}.BundleAdjustmentOptions"
    better = "dyn3r.bundle_adjustment.camera_solution._better"
    texture = "dyn3r.flow.noise.BRIGHTNESS_SIGMA"
    components = "dyn3r.motion.static_components"
    return {
        EVERYTHING: [],
        "implausible depth is not measured": [
            patch(
                "dyn3r.motion.cue.implausible_depth_outliers",
                lambda _before, _after, dynamic: np.zeros_like(dynamic),
            )
        ],
        "lasting implausible depth moves": [patch("dyn3r.motion.cue.lasting", none_of)],
        "start from constant depth, rounds": [patch(better, lambda first, _second=None: first)],
        "start from constant depth, last": [
            patch(
                "dyn3r.bundle_adjustment.calibrated.comparable_costs",
                lambda found: list(range(len(found))),
            )
        ],
        "wide priors": [patch(options, partial(BundleAdjustmentOptions, prior_inflation=1.0))],
        "margin around masks": [patch(options, partial(BundleAdjustmentOptions, mask_margin=0.0))],
        "texture in the covariance": [patch(texture, 1e-3)],
        "round trip in the covariance": [patch("dyn3r.flow.noise.ROUND_TRIP_SHARE", 0.0)],
        "noise inflated in the rounds": [
            patch(options, partial(BundleAdjustmentOptions, noise_inflation=1.0))
        ],
        "pairs see the same place": [
            patch("dyn3r.bundle_adjustment.measurements.MIN_VISIBLE_SHARE", 0.0)
        ],
        "correlated errors count less": [
            patch(
                "dyn3r.bundle_adjustment.noise.independent_share",
                lambda error, _used, _columns: torch.ones_like(error[:, 0, 0]),
            )
        ],
        "prior counts once": [
            patch("dyn3r.bundle_adjustment.calibrated.prior_counted_once", same)
        ],
        "neighbouring pairs first": [
            patch("dyn3r.bundle_adjustment.calibrated.neighbouring_pairs", same)
        ],
        "smooth errors of depth removed": [
            patch(f"{adjust}._without_smooth_error", same)
        ],
        "last adjustment calibrated": [
            patch(f"{adjust}._calibrated_bundle_adjust", _uncalibrated)
        ],
        "static parts of masks": [
            patch(f"{components}.static_parts", none_of)
        ],
        "wrong flow in the test of masks": [
            patch(f"{components}.better_static", none_of_tested)
        ],
        "static components of masks": [
            patch("dyn3r.pipeline.without_static_components", same)
        ],
        "mask refiner": [
            patch("dyn3r.pipeline.refine_masks", lambda _images, motion, *_: motion)
        ],
        "background model": [patch("dyn3r.motion.cue.with_background_model", same)],
        "ground correction": [patch("dyn3r.pipeline.correct_ground_tilt", same)],
        "multi-view depth": [patch("dyn3r.pipeline.multi_view_depth", same)],
        "fusion of depth": [patch("dyn3r.scene.finalise.fuse_depth", same)],
    }  # fmt: skip


def _uncalibrated(inputs, progress):
    from dyn3r.bundle_adjustment import adjust

    return adjust._bundle_adjust(inputs, progress)


@contextmanager
def without(rule: str) -> Iterator[None]:
    """The library without a rule."""
    switches = rules()[rule]
    for switch in switches:
        switch.start()
    try:
        yield
    finally:
        for switch in switches:
            switch.stop()


def measure(folder: Path, output: Path, chosen: list[str], frames: int) -> Path:
    """Numbers of one clip without each of the rules, as a JSON file."""
    import dyn3r
    from dyn3r import pipeline
    from dyn3r.evaluation import evaluate
    from dyn3r.io.workers import use_threads

    file = output / f"{folder.name}.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    missing = [rule for rule in chosen if rule not in found]
    if not missing:
        return file
    use_threads(1)
    model = dyn3r.load_model()
    clip = dyn3r.read_clip(
        folder / "frames", size=model.image_size, fit=model.fit(), num_frames=frames
    )
    kept: dict[str, Any] = {}

    def once(name: str):
        compute = getattr(pipeline, name)

        def remembered(*args, **kwargs):
            if name not in kept:
                kept[name] = compute(*args, **kwargs)
            return kept[name]

        return patch.object(pipeline, name, remembered)

    with once("measured_flow"), once("pairwise_geometry"):
        for rule in missing:
            with without(rule):
                scene = dyn3r.reconstruct(clip, model)
            found[rule] = numbers(evaluate(scene, folder).scene, scene)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1))
    part.replace(file)
    return file


def numbers(ours, scene) -> dict[str, float | None]:
    """What is compared; percent but for J and abs rel."""
    masks, path, depth = ours.masks, ours.trajectory, ours.depth
    still = masks is not None and math.isnan(masks.recall)
    values = {
        "ATE %": None if path is None else 100 * path.ate_share,
        "focal %": None if ours.focal_error is None else 100 * ours.focal_error,
        "abs rel": None if depth is None else depth.abs_rel,
        "J": None if masks is None or still else masks.j_mean,
        "moving %": 100 * float(scene.dynamic.mean()) if still else None,
        "flicker %": None if ours.flicker is None else 100 * ours.flicker,
    }
    return {k: None if v is None or not math.isfinite(v) else v for k, v in values.items()}


COLUMNS = ("ATE %", "focal %", "abs rel", "J", "moving %", "flicker %")
NOTABLE = {"ATE %": 0.1, "focal %": 1.0, "abs rel": 0.01, "J": 0.02, "moving %": 0.5,
           "flicker %": 0.2}  # fmt: skip
"""Changes that are named. Source: chosen by hand; the masks of one clip change by more
than that with last digits."""


def report(files: list[Path], chosen: list[str]) -> None:
    """Means and, for each rule, how many clips are worse and better without it."""
    results = {f.stem: json.loads(f.read_text()) for f in files}
    print("| without | " + " | ".join(COLUMNS) + " |\n|" + " --- |" * (len(COLUMNS) + 1))
    for rule in chosen:
        cells = []
        for column in COLUMNS:
            pairs = [
                (r[EVERYTHING][column], r[rule][column])
                for r in results.values()
                if rule in r and r[EVERYTHING].get(column) is not None
                and r[rule].get(column) is not None
            ]  # fmt: skip
            if not pairs:
                cells.append("-")
                continue
            sign = -1 if column == "J" else 1
            change = [sign * (b - a) for a, b in pairs]
            worse = sum(c > NOTABLE[column] for c in change)
            better = sum(c < -NOTABLE[column] for c in change)
            mean = np.mean([b for _, b in pairs])
            cells.append(f"{mean:.3f} ({worse}, {better} of {len(pairs)})")
        print(f"| {rule} | " + " | ".join(cells) + " |")
    print("\nIn brackets: clips that are notably worse and better without the rule.\n")
    for rule in chosen[1:]:
        for name, r in results.items():
            if rule not in r:
                continue
            shown = [
                f"{c} {r[EVERYTHING][c]:.3g} -> {r[rule][c]:.3g}"
                for c in COLUMNS
                if r[EVERYTHING].get(c) is not None and r[rule].get(c) is not None
                and abs(r[rule][c] - r[EVERYTHING][c]) > NOTABLE[c]
            ]  # fmt: skip
            if shown:
                print(f"{rule}: {name}: {', '.join(shown)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--without", nargs="+", default=list(rules())[1:], metavar="RULE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--frames", type=int, default=24)
    args = parser.parse_args()
    from dyn3r.datasets.folder import truth_folders

    args.out.mkdir(parents=True, exist_ok=True)
    chosen = [EVERYTHING, *args.without]
    job = partial(measure, output=args.out, chosen=chosen, frames=args.frames)
    with ProcessPoolExecutor(args.jobs) as pool:
        files = list(pool.map(job, chain(*map(truth_folders, args.clips))))
    report(files, chosen)


if __name__ == "__main__":
    main()
