"""Head with two outputs: depth of every pixel, and rays at a coarser grid (Depth Anything 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dyn3r.network.heads import Fusion, resize
from dyn3r.network.many_view.view_config import ManyViewConfig

UV_WEIGHT = 0.1
"""Factor of the position code added to maps. Source: as published."""
UV_BASE = 100.0
"""Base of its frequencies. Source: as published."""
HIDDEN = 32
"""Channels of the last hidden layer of both outputs."""
LEVELS = 4


@dataclass(frozen=True)
class ViewMaps:
    """Maps of every view."""

    depth: Float[Tensor, "s h w"]
    """z in the camera, above 0; one arbitrary scale for all views of a call."""
    confidence: Float[Tensor, "s h w"]
    """Confidence of the depth, above 1."""
    rays: Float[Tensor, "s rh rw 6"] | None = None
    """Direction R K^-1 (u, v, 1) in the world, then origin (camera centre), at 8 cells a patch
    side; cell centres are (j + 0.5) W / rw. None if they were not asked for."""
    ray_confidence: Float[Tensor, "s rh rw"] | None = None
    """Confidence of the rays, above 1."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (b, c, h, w)."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise every pixel."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DualScratch(nn.Module):
    """Convolutions after the four levels: fusion and output, once for depth and once for rays.

    Only the last of the four ray outputs is evaluated; the others are in published files. All four
    share one norm.
    """

    def __init__(self, config: ManyViewConfig) -> None:
        """Create the layers for the head widths of `config`."""
        super().__init__()
        features, half = config.features, config.features // 2
        for level, channels in enumerate(config.out_channels, 1):
            reduce = nn.Conv2d(channels, features, 3, padding=1, bias=False)
            self.add_module(f"layer{level}_rn", reduce)
            for name in ("", "_aux"):
                fusion = Fusion(features, merges=level < LEVELS)
                self.add_module(f"refinenet{level}{name}", fusion)
        self.output_conv1 = nn.Conv2d(features, half, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(half, HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(HIDDEN, 2, 1)
        )
        self.output_conv1_aux = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.Conv2d(a, b, 3, padding=1)
                    for a, b in ((features, half), (half, features)) * 2 + ((features, half),)
                )
            )
            for _ in range(LEVELS)
        )
        norm = ChannelNorm(HIDDEN)
        self.output_conv2_aux = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(half, HIDDEN, 3, padding=1), nn.Identity(), norm, nn.Identity(),
                nn.ReLU(), nn.Conv2d(HIDDEN, 7, 1),
            )
            for _ in range(LEVELS)
        )  # fmt: skip

    def reduced(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels with F channels each, fine to coarse."""
        return [self.get_submodule(f"layer{k}_rn")(x) for k, x in enumerate(levels, 1)]

    def fused(self, levels: Sequence[Tensor], name: str) -> Float[Tensor, "s f _ _"]:
        """Levels fused coarse to fine; name: "" for depth, "_aux" for rays."""
        fusions = [self.get_submodule(f"refinenet{k}{name}") for k in range(1, LEVELS + 1)]
        sizes = [(int(x.shape[2]), int(x.shape[3])) for x in levels]
        x: Tensor = fusions[3](levels[3], None, sizes[2])
        for k in (2, 1):
            x = fusions[k](x, levels[k], sizes[k - 1])
        out: Tensor = fusions[0](x, levels[0])
        return out


class DualDpt(nn.Module):
    """Dense prediction transformer with two outputs; always in float32."""

    def __init__(self, config: ManyViewConfig) -> None:
        """Create the layers for the widths of `config`."""
        super().__init__()
        dims, width = config.out_channels, 2 * config.embed_dim
        self.norm = nn.LayerNorm(width)
        self.projects = nn.ModuleList(nn.Conv2d(width, dim, 1) for dim in dims)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(dims[0], dims[0], 4, stride=4),
                nn.ConvTranspose2d(dims[1], dims[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(dims[3], dims[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = DualScratch(config)

    def forward(
        self,
        dense: Sequence[Float[Tensor, "s p d"]],
        grid_hw: tuple[int, int],
        size_hw: tuple[int, int],
        *,
        rays: bool = False,
    ) -> ViewMaps:
        """Map the four dense features on a patch grid to maps of an image of `size_hw`."""
        levels = []
        for tokens, project, change in zip(dense, self.projects, self.resize_layers):
            maps = self.norm(tokens).transpose(1, 2).reshape(len(tokens), -1, *grid_hw)
            levels.append(change(with_uv(project(maps), size_hw)))
        levels = self.scratch.reduced(levels)
        x = self.scratch.output_conv1(self.scratch.fused(levels, ""))
        raw = self.scratch.output_conv2(with_uv(resize(x, size_hw), size_hw))
        depth, confidence = raw[:, 0].exp(), 1 + raw[:, 1].exp()
        if not rays:
            return ViewMaps(depth, confidence)
        x = self.scratch.output_conv1_aux[-1](self.scratch.fused(levels, "_aux"))
        raw = self.scratch.output_conv2_aux[-1](with_uv(x, size_hw)).permute(0, 2, 3, 1)
        return ViewMaps(depth, confidence, raw[..., :6], 1 + raw[..., 6].exp())


def with_uv(
    maps: Float[Tensor, "s c gh gw"], size_hw: tuple[int, int]
) -> Float[Tensor, "s c gh gw"]:
    """Maps plus the position code of their cells in an image of `size_hw`."""
    channels, rows, cols = maps.shape[1:]
    code = uv_code(channels, (rows, cols), size_hw, maps.device)
    return maps + UV_WEIGHT * code


def uv_code(
    channels: int,
    grid_hw: tuple[int, int],
    size_hw: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Float[Tensor, "c gh gw"]:
    """Sines and cosines of x and of y, a quarter of the channels each, for every cell of a grid.

    x and y are 0 at the centre of the image and proportional to pixels; its half diagonal is 1. The
    angular frequencies are 100^(-k / (c/4)).
    """
    diagonal = (size_hw[0] ** 2 + size_hw[1] ** 2) ** 0.5
    y, x = (
        torch.linspace(-1, 1, cells, device=device) * (side / diagonal * (cells - 1) / cells)
        for cells, side in zip(grid_hw, size_hw)
    )
    quarter = channels // 4
    omega = UV_BASE ** (-torch.arange(quarter, device=device) / quarter)
    by_x, by_y = omega[:, None] * x, omega[:, None] * y
    parts = [by_x.sin(), by_x.cos(), by_y.sin(), by_y.cos()]
    shape = (quarter, *grid_hw)
    return torch.cat(
        [p[:, None].expand(shape) for p in parts[:2]]
        + [p[:, :, None].expand(shape) for p in parts[2:]]
    )
