"""Cost of a network of the published size: loading, four frames to a scene, and bfloat16.

    python benchmarks/full_size.py            # ViT-L with the DPT head: 571 M random weights
    python benchmarks/full_size.py --small    # a network of a few megabytes, to test the script

Random weights need the same time and memory as the published ones; their output is meaningless.
Every part runs in its own process, so that its peak memory is measured separately. Loading is that
of `--model FILE` from our layout in float32; the file was just written, so that the disk cache
holds it. bfloat16 and float32 are compared on the pointmaps of the same pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FRAMES, SIZE = 4, 512
LONG_CLIP = 65


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def write(path: Path, small: bool) -> dict[str, float]:
    """Write a checkpoint of random weights."""
    from dyn3r.network.checkpoints.reader import save_network
    from dyn3r.network.config import NetworkConfig
    from dyn3r.network.initialise import initialise
    from dyn3r.network.network import PointmapNetwork

    config = NetworkConfig()
    if small:
        config = NetworkConfig(
            enc_embed_dim=128, enc_depth=4, enc_num_heads=4, dec_embed_dim=96, dec_depth=4,
            dec_num_heads=4, dpt_features=32, dpt_layer_dims=(24, 48, 96, 192),
        )  # fmt: skip
    network = PointmapNetwork(config)
    initialise(network, seed=0)
    save_network(path, network, {"training": "none: random weights"})
    return {"parameters": sum(p.numel() for p in network.parameters())}


def load(path: Path, precision: str) -> dict[str, float]:
    """Measure seconds and memory of loading, after all imports."""
    from dyn3r.network.model import load_model

    before, start = peak_gb(), time.perf_counter()
    load_model(path, device="cpu", precision=precision)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "grown_gb": peak_gb() - before,
        "file_gb": path.stat().st_size / 1e9,
    }


def run(path: Path, precision: str, out: Path) -> dict[str, float]:
    """Reconstruct the first frames of the bundled clip; keep predictions for the comparison."""
    from dyn3r.assets.demo import demo_clip_folder
    from dyn3r.io.clip import read_clip
    from dyn3r.network.model import load_model
    from dyn3r.network.options import InferenceOptions
    from dyn3r.network.pair_graph import make_pairs
    from dyn3r.network.predict import encode_frames, predict_pairs
    from dyn3r.pipeline import reconstruct

    clip = read_clip(demo_clip_folder() / "frames", num_frames=FRAMES, size=SIZE)
    model = load_model(path, device="cpu", precision=precision)  # type: ignore[arg-type]
    start = time.perf_counter()
    encode_frames(model, clip)
    encoded = time.perf_counter()
    scene = reconstruct(clip, model)
    seconds = {"all": time.perf_counter() - encoded, **scene.metadata["seconds"]}
    seconds["encode"] = encoded - start
    peak = peak_gb()
    edges = make_pairs("complete", FRAMES)[:2]
    predictions = predict_pairs(model, clip, edges, options=InferenceOptions(storage="full"))
    np.savez(
        out, points=predictions.points1, confidence=predictions.conf1, scores=predictions.scores1
    )
    height, width = clip.size_hw
    pairs = scene.metadata["pairs"]
    return {"peak_gb": peak, "pairs": pairs, "height": height, "width": width, **seconds}


def part(folder: Path, *arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", str(folder), *arguments]
    last_line = subprocess.check_output(command, text=True).splitlines()[-1]
    return json.loads(last_line)


def compare(folder: Path) -> dict[str, float]:
    """Compare bfloat16 with float32; points relative to their distance."""
    exact, half = (np.load(folder / f"{p}.npz") for p in ("float32", "bfloat16"))
    distance = np.linalg.norm(exact["points"], axis=-1)
    error = np.linalg.norm(half["points"] - exact["points"], axis=-1) / distance
    scores = np.abs(half["scores"] - exact["scores"]).max() / np.abs(exact["scores"]).max()
    confidence = np.abs(half["confidence"] / exact["confidence"] - 1)
    return {
        "points_median": float(np.median(error)),
        "points_99_percent": float(np.quantile(error, 0.99)),
        "confidence_99_percent": float(np.quantile(confidence, 0.99)),
        "scores_largest": float(scores),
    }


def long_clip_seconds(seconds: dict[str, float]) -> float:
    """Extrapolate encoding by frames and passes by pairs to a longer clip."""
    from dyn3r.network.pair_graph import make_pairs

    pairs = len(make_pairs("swinstride-5-noncyclic", LONG_CLIP))
    passes = seconds.get("first pass", 0) + seconds.get("second pass", 0)
    passes -= seconds["encode"]  # the first pass includes it
    return seconds["encode"] * LONG_CLIP / FRAMES + passes * pairs / seconds["pairs"]


def shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=["write", "load", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        path = args.folder / "random.safetensors"
        if args.part == "write":
            result = write(path, args.small)
        elif args.part == "load":
            result = load(path, args.precision)
        else:
            result = run(path, args.precision, args.folder / f"{args.precision}.npz")
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name), ["--small"] * args.small
        written = part(folder, "--part", "write", *small)
        print(f"network: {written['parameters'] / 1e6:.1f} M random weights", flush=True)
        for precision in ("float32", "bfloat16"):
            loaded = part(folder, "--part", "load", "--precision", precision)
            ratio = loaded["grown_gb"] / loaded["file_gb"]
            print(f"load {precision}: {shown(loaded)}; {ratio:.2f} x the file", flush=True)
        for precision in ("float32", "bfloat16"):
            ran = part(folder, "--part", "run", "--precision", precision)
            print(f"run {precision}: {FRAMES} frames; {shown(ran)}", flush=True)
            print(
                f"  {LONG_CLIP} frames: about {long_clip_seconds(ran):.0f} s for encoding and "
                "both passes (extrapolated by frames and pairs, not run)",
                flush=True,
            )
        print(f"bfloat16 against float32, relative: {shown(compare(folder))}")


if __name__ == "__main__":
    main()
