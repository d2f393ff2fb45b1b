"""Comparison of network shapes at equal training time: the study behind the compact network.

    python benchmarks/architectures.py runs/shapes --photos my-photographs/ --steps 600
    python benchmarks/architectures.py runs/shapes --device cuda --steps 20000 --scenes-per-step 32

Every shape is trained from scratch by the trainer of `dyn3r train`, on the same scenes in the same
order, for the time that the compact network needs for `--steps`. The cost of a step is measured
first, in turns, and gives the number of steps. Then each network is evaluated on held-out scenes.
Every shape has its own folder; the benchmark can be stopped and resumed at any time; `--only`
selects shapes. Columns: parameters, file size, time of one directed pair at 160x224 relative to the
compact network, steps, and the errors of `dyn3r.training.task.Task.evaluate`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from dyn3r.network.checkpoints.reader import load_network
from dyn3r.network.config import NetworkConfig
from dyn3r.network.initialise import initialise
from dyn3r.network.network import PointmapNetwork
from dyn3r.training.batches import held_out_batches
from dyn3r.training.options import COMPACT, TrainOptions
from dyn3r.training.tasks import task_of
from dyn3r.training.trainer import train

SHAPES: dict[str, tuple[str, NetworkConfig]] = {
    "compact": ("encoder 8 x 256, decoders 8 x 192: compact", COMPACT),
    "shallow": (
        "encoder 4 x 384, decoders 4 x 256",
        replace(
            COMPACT, enc_depth=4, enc_embed_dim=384, enc_num_heads=6, dec_depth=4, dec_embed_dim=256
        ),
    ),
    "deep": (
        "encoder 14 x 192, decoders 14 x 144",
        replace(
            COMPACT, enc_depth=14, enc_embed_dim=192, enc_num_heads=3,
            dec_depth=14, dec_embed_dim=144, dec_num_heads=3,
        ),
    ),
    "encoder": (
        "encoder 14 x 256, decoders 4 x 192",
        replace(COMPACT, enc_depth=14, dec_depth=4),
    ),
    "half": (
        "encoder 8 x 192, decoders 8 x 128",
        replace(COMPACT, enc_embed_dim=192, dec_embed_dim=128),
    ),
    "no-detail": ("compact without the detail pyramid", replace(COMPACT, detail_features=0)),
    "no-position": ("compact without the position code", replace(COMPACT, position_code=False)),
    "heads": ("compact with heads of twice the width", replace(
        COMPACT, dpt_features=64, dpt_layer_dims=(48, 96, 192, 384)
    )),
    "large": (
        "encoder 12 x 384, decoders 12 x 288: above 40 MB",
        replace(
            COMPACT, enc_depth=12, enc_embed_dim=384, enc_num_heads=6,
            dec_depth=12, dec_embed_dim=288, dec_num_heads=6, dpt_features=64,
        ),
    ),
}  # fmt: skip
AGAIN = "compact-again"
"""Compact network with another seed: shows how large random differences are."""
ROUNDS = 5


def main() -> None:
    """Measure costs, train missing networks, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600, help="steps of the compact network")
    parser.add_argument("--only", nargs="+", choices=[*SHAPES, AGAIN], default=[*SHAPES, AGAIN])
    parser.add_argument("--photos", help="folder of photographs for textures")
    parser.add_argument("--scenes-per-step", type=int, default=4)
    parser.add_argument("--coarse-share", type=float, default=0.7)
    parser.add_argument("--data-workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of training, on a CPU")
    parser.add_argument("--held-out", type=int, default=6, help="batches of 32 pairs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    options = TrainOptions(
        photos=args.photos, scenes_per_step=args.scenes_per_step, coarse_share=args.coarse_share,
        data_workers=args.data_workers, warmup_steps=args.steps // 10, evaluate_every=10**9,
    )  # fmt: skip
    costs = measured_costs(args.folder, options, args.device)
    for name in args.only:
        own = costs[name.removesuffix("-again")]["step"]
        steps = round(args.steps * costs["compact"]["step"] / own)
        shape = SHAPES[name.removesuffix("-again")][1]
        run = replace(options, network=shape, steps=steps, seed=1 if name == AGAIN else 0)
        print(f"{name}: {steps} steps", flush=True)
        train(args.folder / name, run, device=args.device)
    print(table(args.folder, costs, options, args.held_out))


def measured_costs(folder: Path, options: TrainOptions, device: str) -> dict[str, dict[str, float]]:
    """Measure seconds per training step and per directed pair at 160x224 for all shapes.

    A step is the mean of coarse and fine frames in their shares. The shapes take turns; the minimum
    over the rounds, which other load on the machine affects least, is kept in FOLDER/costs.json.
    """
    file = folder / "costs.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    laps: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SHAPES}
    for round_ in range(ROUNDS + 1):
        for name, (_, shape) in SHAPES.items():
            measured = _one_round(shape, options, device)
            if round_:  # the first is a warm-up
                laps[name].append(measured)
    costs = {}
    for name, rounds in laps.items():
        coarse, fine, pair = (min(values) for values in zip(*rounds))
        share = options.coarse_share
        costs[name] = {"step": share * coarse + (1 - share) * fine, "pair": pair}
        print(f"{name}: step {coarse:.2f} s, fine {fine:.2f} s; pair {pair:.3f} s", flush=True)
    file.write_text(json.dumps(costs, indent=1))
    return costs


def _one_round(
    shape: NetworkConfig, options: TrainOptions, device: str
) -> tuple[float, float, float]:
    """Measure seconds of a step with coarse frames, with fine frames, and of a directed pair.

    The loss of a step is the mean of the network's output; a pair is without gradients.
    """
    network = PointmapNetwork(shape)
    initialise(network, 0)
    network = network.to(device)
    frames = options.scenes_per_step * options.frames_per_scene
    pairs = options.scenes_per_step * options.pairs_per_scene
    seconds = []
    for h, w in ((96, 128), (160, 224)):
        images = torch.rand(frames, 3, h, w, device=device) * 2 - 1
        pick = torch.arange(pairs, device=device) % frames
        network.train()
        start = _now(device)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            tokens = network.encode(images)
            out = network.decode(
                tokens[pick], tokens[pick.roll(1)], scores=False,
                logit_layers=options.matching_layers, heads_autocast=True,
            )  # fmt: skip
        assert out.points1 is not None
        assert out.points2 is not None
        (out.points1.float().mean() + out.points2.float().mean()).backward()
        seconds.append(_now(device) - start)
    network.eval()
    pair = []
    for _ in range(5):
        start = _now(device)
        with torch.inference_mode(), torch.autocast(device.split(":")[0], torch.bfloat16):
            tokens = network.encode(images[:2])
            network.decode(tokens[:1], tokens[1:], scores=False)
        pair.append(_now(device) - start)
    return seconds[0], seconds[1], min(pair)


def _now(device: str) -> float:
    """Return the CPU time of this process in seconds, or on a GPU the wall-clock time."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def table(
    folder: Path, costs: dict[str, dict[str, float]], options: TrainOptions, batches: int
) -> str:
    """Format Markdown rows of all trained shapes."""
    held_out = held_out_batches(options, batches)
    lines = [
        "| shape | parameters | file | pair | steps | abs rel | points of view 2 | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [*SHAPES, AGAIN]:
        file = folder / name / "model.safetensors"
        if not file.exists():
            continue
        text, _ = SHAPES[name.removesuffix("-again")]
        network, facts = load_network(file)
        count = sum(p.numel() for p in network.parameters())
        scores = task_of(network).evaluate(network.float(), held_out, "cpu")
        cost = costs[name.removesuffix("-again")]["pair"] / costs["compact"]["pair"]
        lines.append(
            f"| {text}{', another seed' if name == AGAIN else ''} | {count / 1e6:.1f} M "
            f"| {count * 2 / 1e6:.0f} MB | {cost:.2f} | {facts['steps']} "
            f"| {scores['held_out_abs_rel']:.3f} | {scores['held_out_point_error']:.3f} "
            f"| {scores['held_out_loss']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
