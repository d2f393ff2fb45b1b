"""Training task of many-view networks: samples of N views of one sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from dyn3r.errors import InputError
from dyn3r.network.checkpoints.many_view_files import save_published_many_view
from dyn3r.network.many_view.many_view_network import ManyViewNetwork, Views
from dyn3r.network.many_view.view_cameras import encode_cameras, normalise_cameras
from dyn3r.network.many_view.view_images import standardised
from dyn3r.scene.drawing import Picture
from dyn3r.training.options import TrainOptions
from dyn3r.training.pairs import PairBatch
from dyn3r.training.sets.mixture import Mixture, pair_batch
from dyn3r.training.sets.sources import LoadedSet
from dyn3r.training.sets.views import View
from dyn3r.training.views.view_losses import view_loss
from dyn3r.training.views.view_samples import (
    ViewBatch,
    ViewSample,
    held_out_views,
    patch_size,
    sample_views,
    views_of_scenes,
)
from dyn3r.training.views.view_validation import evaluate_views, view_pictures

if TYPE_CHECKING:
    from dyn3r.training.synthetic.world import Sample

PUBLISHED_FOLDER = "published"
"""Folder of the result in the published layout."""


class ViewTask:
    """Depth, rays and cameras of N views: the losses of Depth Anything 3. See `Task`."""

    unit = "samples"

    def check(self, options: TrainOptions) -> None:
        """Raise InputError for the option `nearness`, which the losses have no place for."""
        if options.nearness:
            raise InputError("training option nearness has no effect on many-view networks")

    def frames_of_scene(self, options: TrainOptions) -> int:
        """Frames of a scene of the synthetic world."""
        return options.views

    def of_scenes(
        self,
        scenes: Sample,
        options: TrainOptions,  # noqa: ARG002 (of other tasks)
        seed: int,
        *,
        mirror: bool,
    ) -> ViewBatch:
        """One sample of every rendered scene."""
        batch = views_of_scenes(scenes, seed)
        return ViewBatch(tuple(s.mirrored() for s in batch.samples)) if mirror else batch

    def of_sets(
        self, mixture: Mixture, number: int, options: TrainOptions, size_hw: tuple[int, int]
    ) -> ViewBatch:
        """Samples of data sets."""
        return sample_views(
            mixture, number, options.scenes_per_step, options.views, patch_size(size_hw)
        )

    def held_out(self, loaded: LoadedSet, rows: list[int], options: TrainOptions) -> ViewBatch:
        """Held-out samples."""
        return held_out_views(loaded, rows, options.views, patch_size(options.sizes_hw[0]))

    def add_gradients(
        self, network: nn.Module, batch: ViewBatch, options: TrainOptions, device: str, count: int
    ) -> dict[str, float]:
        """Add the gradients of one of `count` batches, one sample at a time; mean losses."""
        assert isinstance(network, ManyViewNetwork)
        kind, parts = torch.device(device).type, count * len(batch.samples)
        losses: dict[str, float] = {}
        for sample in batch.samples:
            sample = sample.to(device)
            with torch.autocast(kind, torch.bfloat16, enabled=options.precision == "bfloat16"):
                views = predict_sample(network, sample)
            loss, found = view_loss(views, sample, options.confidence_weight, options.shape_weight)
            (loss / parts).backward()
            for name, value in found.items():
                losses[name] = losses.get(name, 0.0) + value / len(batch.samples)
        for parameter in network.cam_enc.parameters():  # so that all processes exchange the same
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return losses

    def evaluate(
        self, network: nn.Module, batches: Iterable[ViewBatch], device: str
    ) -> dict[str, float]:
        """See `dyn3r.training.views.view_validation.evaluate_views`."""
        assert isinstance(network, ManyViewNetwork)
        return evaluate_views(network, batches, device)

    def pictures(
        self, network: nn.Module, batch: ViewBatch, device: str, name: str
    ) -> list[Picture]:
        """Rows of the first views of the first samples."""
        assert isinstance(network, ManyViewNetwork)
        return view_pictures(network, batch, device, name)

    def as_pairs(self, batch: ViewBatch) -> PairBatch:
        """The first two views of every sample of the size of the first, in both orders."""
        size = batch.samples[0].images.shape[-2:]
        same = [sample for sample in batch.samples if sample.images.shape[-2:] == size]
        return pair_batch([(_view(s, 0), _view(s, 1)) for s in same], flow=True)

    def items(self, batch: ViewBatch) -> str:
        """What the batch holds, in words."""
        return f"({' + '.join(str(len(sample.images)) for sample in batch.samples)}) views"

    def save_published(self, folder: Path, network: nn.Module) -> None:
        """Write the folder `published`: `config.json` and `model.safetensors`."""
        assert isinstance(network, ManyViewNetwork)
        save_published_many_view(folder / PUBLISHED_FOLDER, network, folder.name, overwrite=True)


VIEWS = ViewTask()


def predict_sample(network: ManyViewNetwork, sample: ViewSample) -> Views:
    """Run the network on a sample; the first view is the reference."""
    code = None
    if sample.given:
        h, w = (int(side) for side in sample.images.shape[-2:])
        code = encode_cameras(normalise_cameras(sample.T_world_camera), sample.K, (h, w)).float()
    at_once = 1 if network.checkpointing else len(sample.images)
    return network(
        standardised(sample.images), reference="first", camera_code=code, rays=True,
        views_at_once=at_once,
    )  # fmt: skip


def _view(sample: ViewSample, k: int) -> View:
    """One view of a sample, as a data set gives it."""
    values = {f.name: getattr(sample, f.name) for f in fields(sample) if f.name != "given"}
    image = (values["images"][k] * 255).round().byte().permute(1, 2, 0)
    return View(
        np.ascontiguousarray(image.numpy()), values["depth"][k].numpy(),
        values["moving"][k].numpy(), values["K"][k].numpy(), values["T_world_camera"][k].numpy(),
    )  # fmt: skip
