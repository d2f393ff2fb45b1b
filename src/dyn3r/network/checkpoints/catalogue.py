"""Catalogue of models: ours, in the package, and published ones, on the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from dyn3r.errors import CheckpointError

Use = Literal["geometry", "flow", "masks"]

NON_COMMERCIAL = "CC BY-NC-SA 4.0 (non-commercial; the weights are their authors', not ours)"


@dataclass(frozen=True)
class EmbeddedModel:
    """Weights of ours, installed with the package; they need no connection."""

    file: str
    """File name in dyn3r/assets/weights."""
    description: str
    """One line for the list of models."""
    licence: str = "Apache-2.0"
    use: Use = "geometry"
    """Purpose; `geometry`: a network for `--model`."""

    @property
    def path(self) -> Path:
        """Path of the file in this installation (it may be missing)."""
        return Path(str(resources.files("dyn3r") / "assets" / "weights" / self.file))


@dataclass(frozen=True)
class PublishedModel:
    """Weights published by others; downloaded once, then kept in the user's cache."""

    description: str
    """One line for the list of models."""
    licence: str
    paper: str
    repository: str = ""
    """Repository on the hub, `owner/name`; empty if the weights are at `url`."""
    files: tuple[str, ...] = ("config.json", "model.safetensors")
    """Required files; `*.json` stands for all files of that kind in the repository."""
    url: str = ""
    """Address of the single file, for weights that are not on the hub."""
    parameters: int | None = None
    """Number of weights, where known."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by file in hexadecimal digits, where it is known *before* the download; leading
    digits suffice. The checksum that the server states is checked in any case."""
    use: Use = "geometry"
    """Purpose; `geometry`: a network for `--model`; `flow`, `masks`: optional stages."""

    @property
    def approximate_bytes(self) -> int | None:
        """Size in float32, from the number of parameters; None if that is unknown."""
        return None if self.parameters is None else 4 * self.parameters


EMBEDDED: dict[str, EmbeddedModel] = {
    "compact": EmbeddedModel(
        "compact.safetensors",
        "small and fast, for dynamic scenes; trained on dyn3r's own synthetic world",
    ),
}
"""Embedded models by name."""

_DUST3R = "Wang et al., DUSt3R: Geometric 3D Vision Made Easy, CVPR 2024"
_MONST3R = "Zhang et al., MonST3R: Estimating Geometry in the Presence of Motion, ICLR 2025"
_RAFT = "Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020"
_SAM2 = "Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025"
_DA3 = "Lin et al., Depth Anything 3: Recovering the Visual Space from Any Views, 2025"
_DPT, _LINEAR = 571_171_208, 532_342_784  # ViT-L with either head, counted on our network


def _raft(size: str, file: str, parameters: int) -> PublishedModel:
    """Describe a RAFT model; address, checksum and size are those of torchvision's own table."""
    return PublishedModel(
        f"RAFT {size} (torchvision's {file.rpartition('-')[0][5:]}): optical flow",
        "BSD-3-Clause (torchvision); trained on data with terms of their own",
        _RAFT,
        files=(file,),
        url=f"https://download.pytorch.org/models/{file}",
        parameters=parameters,
        sha256={file: file.rpartition("-")[2].removesuffix(".pth")},
        use="flow",
    )


def _sam2(size: str) -> PublishedModel:
    """Describe a SAM 2.1 model."""
    return PublishedModel(
        f"SAM 2.1 {size}: refines motion masks",
        "Apache-2.0",
        _SAM2,
        f"facebook/sam2.1-hiera-{size}",
        ("*.json", "model.safetensors"),
        use="masks",
    )


def _da3(size: str, parameters: int, config: str, weights: str) -> PublishedModel:
    """Describe a Depth Anything 3 model.

    config, weights: SHA-256 of the two files. That of config.json was verified by writing the file
    anew. That of the weights is from several third parties, which agree.
    """
    return PublishedModel(
        f"Depth Anything 3 {size}: depth and cameras of all frames at once",
        "Apache-2.0",
        _DA3,
        f"depth-anything/DA3-{size.upper()}",
        parameters=parameters,
        sha256={"config.json": config, "model.safetensors": weights},
    )


PUBLISHED: dict[str, PublishedModel] = {
    "da3-small": _da3(
        "small", 34_299_463,
        "a486e29e82b7ab4a7d4cefc1ea4526cfe2ae438a572c8ca98917cfbcde7447d2",
        "364492e38a3a06d221ac75da7f6621ada3f2361cd24fde11ba79091e9f40efcf",
    ),
    "da3-base": _da3(
        "base", 135_366_599,
        "5e34115ebc17bd2d8d43033c5f72e9446ac8833fd61d3fa160b7e67e0bb5b7b5",
        "e01067dc1659613083d9145a9a2547ccdbe6ccbbf83c4fe7b3e8a4e2bdae78b5",
    ),
    "dust3r-512-dpt": PublishedModel(
        "DUSt3R, ViT-L, smooth heads, frames of 512 pixels",
        NON_COMMERCIAL, _DUST3R, "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt", parameters=_DPT,
    ),
    "dust3r-512-linear": PublishedModel(
        "DUSt3R, ViT-L, linear heads, frames of 512 pixels",
        NON_COMMERCIAL, _DUST3R, "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear",
        parameters=_LINEAR,
    ),
    "dust3r-224-linear": PublishedModel(
        "DUSt3R, ViT-L, linear heads, frames of 224x224 pixels",
        NON_COMMERCIAL, _DUST3R, "naver/DUSt3R_ViTLarge_BaseDecoder_224_linear",
        parameters=_LINEAR,
    ),
    "monst3r-512-dpt": PublishedModel(
        "MonST3R: DUSt3R fine-tuned on dynamic scenes",
        NON_COMMERCIAL, _MONST3R, "Junyi42/MonST3R_PO-TA-S-W_ViTLarge_BaseDecoder_512_dpt",
        parameters=_DPT,
    ),
    "raft": _raft("large", "raft_large_C_T_SKHT_V2-ff5fadd5.pth", 5_257_536),
    "raft-small": _raft("small", "raft_small_C_T_V2-01064c6d.pth", 990_162),
    **{f"sam2.1-{size}": _sam2(size) for size in ("tiny", "small", "base-plus", "large")},
}  # fmt: skip
"""Published models by name."""


def published_model(name: str) -> PublishedModel:
    """Return the entry of a published model. Raises CheckpointError for an unknown name."""
    if name in EMBEDDED:
        raise CheckpointError(f"{name} comes with the package; there is nothing to download")
    if name not in PUBLISHED:
        raise CheckpointError(f"no published model named {name!r}; known: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def published_facts(model: PublishedModel) -> dict[str, str]:
    """Return licence, paper and origin, for the metadata of a Scene or a checkpoint."""
    origin = {"repository": model.repository} if model.repository else {"url": model.url}
    return {"licence": model.licence, "paper": model.paper, **origin}
