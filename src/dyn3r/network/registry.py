"""Which models exist: embedded ones (ours, in the package) and published ones (on the hub)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from dyn3r.errors import CheckpointError

NON_COMMERCIAL = "CC BY-NC-SA 4.0 (non-commercial; the weights are their authors', not ours)"


@dataclass(frozen=True)
class PublishedModel:
    """Weights that others publish; downloaded from the hub on first use."""

    repository: str
    head: str
    paper: str
    licence: str = NON_COMMERCIAL


@dataclass(frozen=True)
class LocatedModel:
    """A model found on this machine."""

    name: str
    path: Path
    facts: Mapping[str, str] = field(default_factory=dict)


EMBEDDED = {"compact": "compact.safetensors"}
"""Name -> file in dyn3r/weights."""

_DUST3R = "Wang et al., DUSt3R: Geometric 3D Vision Made Easy, CVPR 2024"
_MONST3R = "Zhang et al., MonST3R: Estimating Geometry in the Presence of Motion, ICLR 2025"

PUBLISHED = {
    "dust3r-512-dpt": PublishedModel("naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt", "dpt", _DUST3R),
    "dust3r-512-linear": PublishedModel(
        "naver/DUSt3R_ViTLarge_BaseDecoder_512_linear", "linear", _DUST3R
    ),
    "dust3r-224-linear": PublishedModel(
        "naver/DUSt3R_ViTLarge_BaseDecoder_224_linear", "linear", _DUST3R
    ),
    "monst3r-512-dpt": PublishedModel(
        "Junyi42/MonST3R_PO-TA-S-W_ViTLarge_BaseDecoder_512_dpt", "dpt", _MONST3R
    ),
}
"""Name -> where its authors publish it."""


def locate(name: str) -> LocatedModel:
    """Find a model by registered name or path; downloads a published one if it is not cached.

    Raises CheckpointError if there is no such name or file, or the download is not possible.
    """
    if name in EMBEDDED:
        path = Path(str(resources.files("dyn3r") / "weights" / EMBEDDED[name]))
        if not path.exists():
            raise CheckpointError(f"the embedded model {name!r} is missing from this installation")
        return LocatedModel(name, path, {"licence": "Apache-2.0"})
    if name in PUBLISHED:
        return LocatedModel(name, _download(name), _published_facts(PUBLISHED[name]))
    path = Path(name).expanduser()
    if not path.exists():
        known = ", ".join([*EMBEDDED, *PUBLISHED])
        raise CheckpointError(f"no model or file named {name!r}; known models: {known}")
    return LocatedModel(str(path), path, {"file": str(path)})


def _published_facts(model: PublishedModel) -> dict[str, str]:
    return {"licence": model.licence, "paper": model.paper, "repository": model.repository}


def _download(name: str) -> Path:
    """The hub folder of a published model in the user's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository = PUBLISHED[name].repository
    try:
        folder = snapshot_download(repository, allow_patterns=["config.json", "model.safetensors"])
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, RuntimeError) as problem:
        raise CheckpointError(
            f"{name} could not be downloaded ({type(problem).__name__}); bring config.json and "
            f"model.safetensors of {repository} here by hand and give the folder with --model"
        ) from None
    return Path(folder)
