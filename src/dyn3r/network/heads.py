"""Heads: decoder states to a point and a confidence per pixel (SPEC 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, relu

from dyn3r.network.config import PATCH, NetworkConfig


def to_points(
    raw: Float[Tensor, "b 4 h w"],
) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w"]]:
    """Convert raw head output to points (exponential in distance) and confidences above 1."""
    xyz = raw[:, :3].permute(0, 2, 3, 1)
    distance = xyz.norm(dim=-1, keepdim=True)
    points = xyz / distance.clamp(min=1e-8) * torch.expm1(distance)
    return points, 1 + raw[:, 3].exp()


class LinearHead(nn.Module):
    """One linear layer on the last state; every token gives its own 16x16 pixels."""

    def __init__(self, config: NetworkConfig) -> None:
        """Create the layer for the decoder width of `config`."""
        super().__init__()
        self.proj = nn.Linear(config.dec_embed_dim, 4 * PATCH * PATCH)

    def forward(
        self,
        states: Sequence[Float[Tensor, "b n _"]],
        grid_hw: tuple[int, int],
        _detail: Sequence[Tensor] = (),
    ) -> Float[Tensor, "b 4 h w"]:
        """Map decoder states (b, n, width) on a patch grid to raw output (b, 4, h, w)."""
        raw = self.proj(states[-1]).transpose(1, 2)
        return pixel_shuffle(raw.reshape(len(raw), -1, *grid_hw), PATCH)


class ResidualUnit(nn.Module):
    """relu, 3x3 convolution, relu, 3x3 convolution, plus the input."""

    def __init__(self, dim: int) -> None:
        """Create the layers for `dim` channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b dim h w"]:
        """Map (b, dim, h, w) to (b, dim, h, w)."""
        residual: Tensor = self.conv2(relu(self.conv1(relu(x))))
        return x + residual


class Fusion(nn.Module):
    """Adds a finer level to the fused coarser ones and raises the resolution."""

    def __init__(self, dim: int, *, merges: bool = True) -> None:
        """Create the layers for `dim` channels; merges: whether a finer level is ever added."""
        super().__init__()
        self.out_conv = nn.Conv2d(dim, dim, 1)
        if merges:
            self.resConfUnit1 = ResidualUnit(dim)
        self.resConfUnit2 = ResidualUnit(dim)

    def forward(
        self, x: Tensor, skip: Tensor | None = None, size_hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Map x and skip (b, dim, h, w) to (b, dim, *size_hw); default: twice the size."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        x = self.resConfUnit2(x)
        out: Tensor = self.out_conv(_upsample2(x) if size_hw is None else resize(x, size_hw))
        return out


class Scratch(nn.Module):
    """Reduction of four levels to a common width, and their fusion.

    As published, `layer1_rn` and `layer_rn.0` are two names of one tensor, and so on.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Create the layers for the head widths of `config`."""
        super().__init__()
        features = config.dpt_features
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(dim, features, 3, padding=1, bias=False) for dim in config.dpt_layer_dims
        )
        self.layer_rn = nn.ModuleList(
            [self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn]
        )
        self.refinenet1 = Fusion(features)
        self.refinenet2 = Fusion(features)
        self.refinenet3 = Fusion(features)
        self.refinenet4 = Fusion(features)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Fuse four levels, fine to coarse, to (b, features, 2h, 2w) of the finest level."""
        levels = [reduce(level) for reduce, level in zip(self.layer_rn, levels)]
        path = self.refinenet4(levels[3])
        # the doubled coarsest level of an odd grid is one row or column too large
        path = path[..., : levels[2].shape[-2], : levels[2].shape[-1]]
        path = self.refinenet3(path, levels[2])
        path = self.refinenet2(path, levels[1])
        fused: Tensor = self.refinenet1(path, levels[0])
        return fused


class Dpt(nn.Module):
    """Dense prediction transformer (Ranftl et al. 2021), without batch norm."""

    def __init__(self, config: NetworkConfig) -> None:
        """Create the layers for the widths of `config`."""
        super().__init__()
        self.states = config.dpt_states
        self.scratch = Scratch(config)
        features, dims = config.dpt_features, config.dpt_layer_dims
        self.head = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(features // 2, features // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features // 2, 4, 1),
        )
        channels = config.detail_features
        widths = ((channels // 2, features), (channels, dims[0]), (2 * channels, dims[1]))
        self.detail = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in widths if channels)
        state_widths = (config.enc_embed_dim, *[config.dec_embed_dim] * 3)
        resize: tuple[list[nn.Module], ...] = (
            [nn.ConvTranspose2d(dims[0], dims[0], 4, stride=4)],
            [nn.ConvTranspose2d(dims[1], dims[1], 2, stride=2)],
            [],
            [nn.Conv2d(dims[3], dims[3], 3, stride=2, padding=1)],
        )
        self.act_postprocess = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, dim, 1), *more)
            for width, dim, more in zip(state_widths, dims, resize)
        )

    def forward(
        self,
        states: Sequence[Float[Tensor, "b n _"]],
        grid_hw: tuple[int, int],
        detail: Sequence[Tensor] = (),
    ) -> Float[Tensor, "b 4 h w"]:
        """Map states (b, n, width) and detail at 1/2, 1/4, 1/8 to raw output (b, 4, h, w)."""
        levels = []
        for adapter, index in zip(self.act_postprocess, self.states):
            tokens = states[index].transpose(1, 2)
            levels.append(adapter(tokens.reshape(*tokens.shape[:2], *grid_hw)))
        if self.detail:
            half, quarter, eighth = (project(level) for project, level in zip(self.detail, detail))
            levels[0], levels[1] = levels[0] + quarter, levels[1] + eighth
            fused = self.scratch(levels) + half
        else:
            fused = self.scratch(levels)
        raw: Tensor = self.head(fused)
        return raw


class DptHead(nn.Module):
    """Wrapper of `Dpt`: the published head keeps its layers under the name `dpt`."""

    def __init__(self, config: NetworkConfig) -> None:
        """Create the head for the widths of `config`."""
        super().__init__()
        self.dpt = Dpt(config)

    def forward(
        self,
        states: Sequence[Float[Tensor, "b n _"]],
        grid_hw: tuple[int, int],
        detail: Sequence[Tensor] = (),
    ) -> Float[Tensor, "b 4 h w"]:
        """Map states (b, n, width) and detail at 1/2, 1/4, 1/8 to raw output (b, 4, h, w)."""
        raw: Tensor = self.dpt(states, grid_hw, detail)
        return raw


def _upsample2(x: Tensor) -> Tensor:
    """Double the resolution bilinearly."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def resize(x: Float[Tensor, "b c _ _"], size_hw: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Resize maps bilinearly with aligned corners."""
    return interpolate(x, size_hw, mode="bilinear", align_corners=True)
