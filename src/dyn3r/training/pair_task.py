"""Training task of two-view networks: directed pairs of frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dyn3r.network.checkpoints.published_writer import published_layout, save_published
from dyn3r.network.network import Decoded, PointmapNetwork
from dyn3r.scene.drawing import Picture
from dyn3r.training.losses import matching_loss, pointmap_loss, shape_loss
from dyn3r.training.options import TrainOptions
from dyn3r.training.pair_validation import evaluate, pair_pictures
from dyn3r.training.pairs import PairBatch, mirrored, sample_pairs
from dyn3r.training.sets.mixture import Mixture, held_out_batch, sample_batch
from dyn3r.training.sets.sources import LoadedSet

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import Sample


class PairTask:
    """Pointmaps of pairs: the losses of DUSt3R and our additions. See `Task`."""

    unit = "pairs"

    def check(self, options: TrainOptions) -> None:
        """Accept all options."""

    def frames_of_scene(self, options: TrainOptions) -> int:
        """Frames of a scene of the synthetic world."""
        return options.frames_per_scene

    def of_scenes(
        self, scenes: Sample, options: TrainOptions, seed: int, *, mirror: bool
    ) -> PairBatch:
        """Pairs of rendered scenes."""
        pairs = sample_pairs(scenes, options.pairs_per_scene, seed=seed)
        return mirrored(pairs) if mirror else pairs

    def of_sets(
        self, mixture: Mixture, number: int, options: TrainOptions, size_hw: tuple[int, int]
    ) -> PairBatch:
        """Pairs of data sets."""
        return sample_batch(
            mixture, number, options.scenes_per_step, size_hw, flow=options.matching_weight > 0
        )

    def held_out(self, loaded: LoadedSet, rows: list[int], options: TrainOptions) -> PairBatch:
        """Held-out pairs."""
        return held_out_batch(loaded, rows, options.sizes_hw[0])

    def add_gradients(
        self, network: nn.Module, batch: PairBatch, options: TrainOptions, device: str, count: int
    ) -> dict[str, float]:
        """Add the gradients of one of `count` batches; returns its losses."""
        assert isinstance(network, PointmapNetwork)
        batch = batch.to(device)
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16, enabled=options.precision == "bfloat16"):
            decoded = forward_pairs(network, batch, options)
        loss, losses = _losses(decoded, batch, options)
        (loss / count).backward()
        return losses

    def evaluate(
        self, network: nn.Module, batches: Iterable[PairBatch], device: str
    ) -> dict[str, float]:
        """See `dyn3r.training.pair_validation.evaluate`."""
        assert isinstance(network, PointmapNetwork)
        return evaluate(network, batches, device)

    def pictures(
        self, network: nn.Module, batch: PairBatch, device: str, name: str
    ) -> list[Picture]:
        """Rows of pairs."""
        assert isinstance(network, PointmapNetwork)
        return pair_pictures(network, batch, device, name)

    def as_pairs(self, batch: PairBatch) -> PairBatch:
        """The batch itself."""
        return batch

    def items(self, batch: PairBatch) -> str:
        """What the batch holds, in words."""
        return f"{len(batch.first)} directed pairs"

    def save_published(self, folder: Path, network: nn.Module) -> None:
        """Write `model.pth`, if the published programs can build the network."""
        assert isinstance(network, PointmapNetwork)
        if published_layout(network.config):
            save_published(folder / "model.pth", network, overwrite=True)


PAIRS = PairTask()


def forward_pairs(network: PointmapNetwork, batch: PairBatch, options: TrainOptions) -> Decoded:
    """Encode the frames of a batch once and decode its pairs."""
    tokens = network.encode(batch.images)
    return network.decode(
        tokens[batch.first],
        tokens[batch.second],
        scores=False,
        logit_layers=options.matching_layers if options.matching_weight > 0 else (),
        heads_autocast=options.precision == "bfloat16",
    )


def _losses(
    decoded: Decoded, batch: PairBatch, options: TrainOptions
) -> tuple[Tensor, dict[str, float]]:
    """Compute the weighted sum of the losses, and the value of each."""
    points = (decoded.points1, decoded.conf1, decoded.points2, decoded.conf2)
    regression = pointmap_loss(
        points,  # type: ignore[arg-type]
        (batch.points1, batch.points2),
        (batch.valid1, batch.valid2),
        options.confidence_weight,
        options.nearness,
    )
    loss, losses = regression, {"loss": float(regression.detach())}
    if options.shape_weight > 0:
        shape = shape_loss(decoded.points1, batch.points1, batch.valid1)  # type: ignore[arg-type]
        shape = shape + shape_loss(decoded.points2, batch.points2, batch.valid2)  # type: ignore[arg-type]
        loss = loss + options.shape_weight * shape
        losses["shape"] = float(shape.detach())
    if decoded.logits:
        matching = torch.stack(
            [
                matching_loss(first[:, 0], batch.flow12, batch.visible12)
                + matching_loss(second[:, 0], batch.flow21, batch.visible21)
                for first, second in decoded.logits
            ]
        ).mean()
        loss = loss + options.matching_weight * matching
        losses["matching"] = float(matching.detach())
    return loss, losses
