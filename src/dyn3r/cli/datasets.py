"""`dyn3r datasets`: list published data sets, and fetch those that are open."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dyn3r.cli.console import Flag, print_columns, progress_bars
from dyn3r.cli.terminal import say

if TYPE_CHECKING:
    from dyn3r.datasets.catalogue import CatalogueEntry


@dataclass(frozen=True)
class ListDatasets:
    """List the data sets with their licences and sizes, and which of them can be fetched."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.datasets.catalogue import CATALOGUE

        rows: list[tuple[str, ...]] = [("name", "for", "fetched", "size", "licence", "page")]
        rows += [
            (entry.name, entry.use, _fetched(entry), entry.size, entry.licence, entry.page)
            for entry in CATALOGUE.values()
        ]
        print_columns(rows)
        print(
            "\nget: `dyn3r datasets get NAME --root FOLDER`. agreement, by hand: the same command "
            "explains\nwhat to do. not verified: general knowledge; second hand: as others state "
            "it; see page: not found."
        )


def _fetched(entry: CatalogueEntry) -> str:
    if entry.is_open:
        return "get"
    return "agreement" if entry.agreement else "by hand"


@dataclass(frozen=True)
class Get:
    """Download and unpack an open data set, or say how to fetch another one.

    An interrupted run is resumed by the same command. Archives stay in FOLDER/archives/NAME, with
    their checksums; delete them when you want the room.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Name as `dyn3r datasets` lists it."""
    root: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Where data sets are kept; this one comes to FOLDER/NAME."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """No progress; the licence is always shown."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.datasets.catalogue import catalogue_entry
        from dyn3r.datasets.download import get, steps_by_hand

        entry = catalogue_entry(self.name)
        say(f"{entry.name}: {entry.title}")
        say(f"  licence: {entry.licence}", f"  size: {entry.size}", f"  page: {entry.page}")
        steps = steps_by_hand(entry, self.root)
        if not entry.is_open:
            if entry.agreement:
                say(f"  to agree to: {entry.agreement}")
            say("To fetch it by hand:")
            for number, step in enumerate(steps, start=1):
                say(f"  {number}. {step}")
        with progress_bars(quiet=self.quiet) as progress:
            folder = get(entry, self.root, progress=progress)
        say(f"{entry.name} is in {folder}")
        for step in steps:
            say(f"  not fetched: {step}")


@dataclass(frozen=True)
class Datasets:
    """List published data sets (the default), or fetch one."""

    action: Annotated[
        Annotated[ListDatasets, tyro.conf.subcommand("list")]
        | Annotated[Get, tyro.conf.subcommand("get")],
        tyro.conf.arg(name=""),
    ] = field(default_factory=ListDatasets)

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        self.action()
