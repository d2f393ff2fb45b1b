"""Time per directed pair and peak memory of a plain implementation and of ours.

    python benchmarks/inference.py            # ViT-L (571 M random weights), 512x288, 10 frames
    python benchmarks/inference.py --quick    # the embedded network's size, to test the script

The plain implementation follows the published programs: both frames of each pair are encoded, in
float32, with heads in both passes, attention maps written out, and the attention statistic computed
from the full maps. Ours encodes each frame once, decodes in bfloat16 where the hardware supports
it, needs no heads in the first pass and forms no attention map. Each runs in its own process, so
that peak memory is measured separately. The plain one is timed on a few pairs (pairs share no
work), ours on the whole clip. They take turns for several rounds, and medians are compared, against
the influence of other load on the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torch import Tensor

from dyn3r.network import layers
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.model import prepare_model
from dyn3r.network.network import PointmapNetwork
from dyn3r.network.pair_graph import make_pairs
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.training.options import COMPACT

FRAMES, SIZE_HW = 10, (288, 512)


def network(quick: bool) -> PointmapNetwork:
    net = PointmapNetwork(COMPACT if quick else NetworkConfig())
    initialise(net, seed=0)
    return net.eval().requires_grad_(False)


def clip_and_pairs() -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (FRAMES, *SIZE_HW, 3), dtype=np.uint8)
    return images, make_pairs("swinstride-5-noncyclic", FRAMES)


class AttentionMaps:
    """Written-out attention that also computes the attention statistic from the full map."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        self.means.append(logits.mean(dim=-2))
        return logits.softmax(-1) @ v


def plain(quick: bool, pairs: int) -> dict[str, float]:
    net = network(quick)
    images, edges = clip_and_pairs()
    maps = AttentionMaps()
    layers.attend = maps  # type: ignore[assignment]
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    seconds = []
    with torch.inference_mode():
        for i, j in edges[:pairs].tolist():
            start = time.perf_counter()
            for second_pass in (False, True):
                maps.means.clear()
                one, two = net.encode(x[i : i + 1]), net.encode(x[j : j + 1])
                static = torch.zeros(one.features.shape[:2], dtype=torch.bool)
                dynamic = (static, static.clone()) if second_pass else None
                net.decode(one, two, dynamic, heads=True, scores=False)
            seconds.append(time.perf_counter() - start)
    return {"seconds_per_pair": float(np.median(seconds)), "pairs": pairs}


def ours(quick: bool) -> dict[str, float]:
    model = prepare_model(network(quick), "random", device="cpu")
    images, edges = clip_and_pairs()
    moving = np.zeros(images.shape[:3], bool)
    moving[:, 100:200, 200:300] = True
    start = time.perf_counter()
    tokens = encode_frames(model, images)
    encoded = time.perf_counter()
    predict_pairs(model, images, edges, tokens=tokens, heads=False)
    first = time.perf_counter()
    predict_pairs(model, images, edges, moving, tokens=tokens)
    end = time.perf_counter()
    return {
        "seconds_per_pair": (end - start) / len(edges),
        "pairs": len(edges),
        "encode": encoded - start,
        "first_pass": first - encoded,
        "second_pass": end - first,
        "bfloat16": model.precision == "bfloat16",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plain-pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["plain", "ours"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        result = plain(args.quick, args.plain_pairs) if args.only == "plain" else ours(args.quick)
        result["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps(result))
        return
    results: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    for _ in range(args.rounds):
        for path in results:
            command = [sys.executable, __file__, "--only", path]
            command += ["--plain-pairs", str(args.plain_pairs), *["--quick"] * args.quick]
            results[path].append(
                json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            )
            print(f"{path:>6}: {results[path][-1]}", flush=True)
    seconds, gigabytes = (
        {path: float(np.median([r[key] for r in rounds])) for path, rounds in results.items()}
        for key in ("seconds_per_pair", "peak_gb")
    )
    print(f"medians of {args.rounds} rounds: plain {seconds['plain']:.2f} s per directed pair and "
          f"{gigabytes['plain']:.2f} GB at most, ours {seconds['ours']:.2f} s and "
          f"{gigabytes['ours']:.2f} GB")  # fmt: skip
    ratio = seconds["plain"] / seconds["ours"]
    memory = gigabytes["plain"] / gigabytes["ours"]
    print(f"both passes of {FRAMES} frames at {SIZE_HW[1]}x{SIZE_HW[0]}: ours is {ratio:.1f} times "
          f"as fast per directed pair and needs 1/{memory:.2f} of the memory")  # fmt: skip


if __name__ == "__main__":
    main()
