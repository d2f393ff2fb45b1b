"""Many-view network: images of a scene to depth, rays and cameras in one pass.

Source: Depth Anything 3 (Lin et al. 2025, arXiv 2511.10647), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyn3r.network.many_view.backbone import (
    Encoded,
    Features,
    Masking,
    Readout,
    ViewTransformer,
)
from dyn3r.network.many_view.dual_dpt import DualDpt, ViewMaps
from dyn3r.network.many_view.view_cameras import CameraDecoder, CameraEncoder
from dyn3r.network.many_view.view_config import VIEW_PATCH, ManyViewConfig


@dataclass(frozen=True)
class Views:
    """Output of the network for one call."""

    maps: ViewMaps
    """Depth, rays and confidences."""
    code: Float[Tensor, "s 9"]
    """Camera codes; see `dyn3r.network.many_view.view_cameras`."""
    reference: int
    """Index of the reference view; -1: none was chosen."""


class Backbone(nn.Module):
    """Wrapper of the transformer: published files keep it under the name `pretrained`."""

    def __init__(self, config: ManyViewConfig) -> None:
        """Create the transformer."""
        super().__init__()
        self.pretrained = ViewTransformer(config)


class ManyViewNetwork(nn.Module):
    """Backbone, head, camera encoder and camera decoder.

    Parameter names are the published ones without their prefix `model.`.
    """

    float32_parts = ("head", "cam_enc", "cam_dec")
    """Parts that run in float32 in any case."""
    unused_parts = tuple(
        f"head.scratch.output_conv{part}."
        for level in range(3)
        for part in (f"1_aux.{level}", f"2_aux.{level}.0", f"2_aux.{level}.5")
    )
    """Ray outputs that published files hold and nothing reads (their shared norm is read)."""

    def __init__(self, config: ManyViewConfig) -> None:
        """Create the layers for the sizes of `config`; their weights are random."""
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.head = DualDpt(config)
        self.cam_enc = CameraEncoder(config.embed_dim)
        self.cam_dec = CameraDecoder(2 * config.embed_dim)

    @property
    def checkpointing(self) -> bool:
        """Whether activations are computed again in the backward pass, in place of being kept."""
        return self.backbone.pretrained.checkpointing

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        self.backbone.pretrained.checkpointing = value

    def forward(
        self,
        images: Float[Tensor, "s 3 h w"],
        *,
        reference: str = "saddle_balanced",
        camera_code: Float[Tensor, "s 9"] | None = None,
        rays: bool = False,
        views_at_once: int = 8,
    ) -> Views:
        """Map normalised images, sides multiples of 14, to maps and camera codes.

        reference: see `choose_reference`. camera_code: of given cameras, normalised with
        `normalise_cameras`. rays: whether they are computed. views_at_once: views that pass through
        the head together; results do not depend on it.
        """
        features = self.features(images, reference, camera_code)
        size_hw = (int(images.shape[2]), int(images.shape[3]))
        maps = self.decode(features, size_hw, rays=rays, views_at_once=views_at_once)
        return Views(maps, self.cameras(features), features.reference)

    def features(
        self,
        images: Float[Tensor, "s 3 h w"],
        reference: str,
        camera_code: Float[Tensor, "s 9"] | None = None,
        *,
        masking: Masking | None = None,
        readout: Readout | None = None,
        after_block: Callable[[int], None] | None = None,
        encoded: Encoded | None = None,
    ) -> Features:
        """Map images to the features of the backbone; see `ViewTransformer.forward`.

        encoded: result of `encode` for the same arguments, which is then not computed again.
        """
        if encoded is None:
            encoded = self.encode(images, reference, camera_code, after_block)
        tokens = None
        if camera_code is not None:
            with torch.autocast(images.device.type, enabled=False):
                tokens = self.cam_enc(camera_code.float())
        found: Features = self.backbone.pretrained(
            images, encoded, tokens, masking, readout, after_block
        )
        return found

    def encode(
        self,
        images: Float[Tensor, "s 3 h w"],
        reference: str,
        camera_code: Float[Tensor, "s 9"] | None = None,
        after_block: Callable[[int], None] | None = None,
    ) -> Encoded:
        """Apply the blocks that see one view each; see `ViewTransformer.encode`."""
        order = reference if camera_code is None else None
        return self.backbone.pretrained.encode(images, order, after_block)

    def cameras(self, features: Features) -> Float[Tensor, "s 9"]:
        """Map features to camera codes."""
        with torch.autocast(features.camera.device.type, enabled=False):
            code: Tensor = self.cam_dec(features.camera.float())
        return code

    def decode(
        self,
        features: Features,
        size_hw: tuple[int, int],
        *,
        rays: bool = False,
        views_at_once: int = 8,
    ) -> ViewMaps:
        """Map features to maps of images of `size_hw`, a few views at a time."""
        grid = (size_hw[0] // VIEW_PATCH, size_hw[1] // VIEW_PATCH)
        parts = []
        with torch.autocast(features.camera.device.type, enabled=False):
            for dense in zip(*(torch.split(level, views_at_once) for level in features.dense)):
                levels = [level.float() for level in dense]
                run = self.backbone.pretrained.run
                parts.append(run(self.head, levels, grid, size_hw, rays=rays))
        return join_maps(parts)


def join_maps(parts: Sequence[ViewMaps]) -> ViewMaps:
    """One after the other."""
    rays = [part.rays for part in parts if part.rays is not None]
    ray_confidence = [part.ray_confidence for part in parts if part.ray_confidence is not None]
    return ViewMaps(
        depth=torch.cat([part.depth for part in parts]),
        confidence=torch.cat([part.confidence for part in parts]),
        rays=torch.cat(rays) if rays else None,
        ray_confidence=torch.cat(ray_confidence) if rays else None,
    )
