"""`dyn3r models`: list, download and convert models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag, print_columns, progress_bars
from dyn3r.cli.terminal import say


@dataclass(frozen=True)
class ListModels:
    """List the models with their licences and sizes, and which of them are on this machine."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.network.checkpoints.catalogue import EMBEDDED, PUBLISHED

        head = ("name", "for", "size", "on this machine", "licence", "description")
        rows: list[tuple[str, ...]] = [head]
        rows += [_embedded_row(name) for name in EMBEDDED]
        rows += [_published_row(name) for name in PUBLISHED]
        print_columns(rows)
        print(
            "\n~: computed from the number of parameters, in float32. Any of the models for "
            "geometry\ngoes with --model; a checkpoint file or a hub folder does as well."
        )


def _embedded_row(name: str) -> tuple[str, ...]:
    from dyn3r.network.checkpoints.catalogue import EMBEDDED

    model = EMBEDDED[name]
    there = model.path.exists()
    size = _bytes(model.path.stat().st_size) if there else "?"
    place = "in the package" if there else "missing"
    return (name, model.use, size, place, model.licence, model.description)


def _published_row(name: str) -> tuple[str, ...]:
    from dyn3r.network.checkpoints.catalogue import PUBLISHED
    from dyn3r.network.checkpoints.hub import cached_files, size_on_disk

    model, place = PUBLISHED[name], cached_files(name)
    if place is not None:
        size = _bytes(size_on_disk(place))
    else:
        about = model.approximate_bytes
        size = "?" if about is None else f"~{_bytes(about)}"
    licence = model.licence.partition(" (")[0]
    return (name, model.use, size, "cached" if place else "no", licence, model.description)


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


@dataclass(frozen=True)
class Download:
    """Download published models, or check those in the cache. An interrupted download is resumed.

    Files go to the cache that huggingface_hub keeps (HF_HOME); raft goes to PyTorch's (TORCH_HOME).
    HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE have their usual effect.
    """

    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME")]
    """Names as `dyn3r models` lists them."""
    from_mirror: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Another server that speaks the hub's protocol (your token is not sent to it)."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.errors import InputError
        from dyn3r.network.checkpoints.catalogue import published_model
        from dyn3r.network.checkpoints.hub import download, licence_is_news

        if not self.names:
            raise InputError("name at least one model; `dyn3r models` lists them")
        models = {name: published_model(name) for name in self.names}
        for name, model in models.items():
            with progress_bars(quiet=self.quiet) as progress:
                place = download(name, mirror=self.from_mirror, progress=progress)
            if not self.quiet:
                licence_is_news(name)  # printed here, so not again at the first use
                say(f"{name}: {place}")
                say(f"  licence: {model.licence}", f"  please cite: {model.paper}")


@dataclass(frozen=True)
class Convert:
    """Convert a published checkpoint to dyn3r's own format: one file, no pickle, with metadata.

    Or to the published format, which the original programs read: a two-view network where OUT ends
    in .pth, a many-view network where OUT has no suffix, as a folder.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="IN")]
    """A published .pth, a hub folder, a dyn3r checkpoint, or a model's name."""
    target: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The .safetensors (or .pth) file, or folder, to write."""
    half: Flag = False
    """Store half precision (float16): half the size, nearly the same results."""
    overwrite: Flag = False
    """Replace OUT."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.network.checkpoints.convert import convert_checkpoint

        with progress_bars(quiet=self.quiet) as progress:
            about = convert_checkpoint(
                self.source, self.target, half=self.half, overwrite=self.overwrite,
                progress=progress,
            )  # fmt: skip
        if not self.quiet:
            size = _bytes(self.target.stat().st_size) if self.target.is_file() else "a folder"
            say(f"wrote {self.target} ({size})")
            say(f"  licence: {about.get('licence', 'not known; it is that of the source')}")


@dataclass(frozen=True)
class Models:
    """List models (the default), download or convert them."""

    action: Annotated[
        Annotated[ListModels, tyro.conf.subcommand("list")]
        | Annotated[Download, tyro.conf.subcommand("download")]
        | Annotated[Convert, tyro.conf.subcommand("convert")],
        tyro.conf.arg(name=""),
    ] = field(default_factory=ListModels)

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        self.action()
