"""`dyn3r app`: a video in the browser in, its scene in the browser out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.cli.results import load_models
from dyn3r.cli.terminal import say
from dyn3r.io.numbers import checked_whole
from dyn3r.types import Progress

if TYPE_CHECKING:
    from dyn3r.network.model import Model


@dataclass(frozen=True)
class App:
    """Open the app in the browser: drop a video, watch its scene appear. Ctrl-C ends it.

    Videos stay on this machine, in a private folder that is removed at the end.
    """

    port: int = 8090
    """Port to serve on; the next free one is taken if it is in use."""
    share_on_lan: Flag = False
    """Also serve other machines of the network; the address then has a token."""
    model: str = "compact"
    """As in `dyn3r run`. The page offers it and the models that are on this machine."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """As in `dyn3r run`."""
    max_upload_mb: int = 500
    """Largest video that is accepted, in megabytes."""
    sam2: Annotated[str | None, tyro.conf.arg(metavar="WEIGHTS")] = None
    """Weights of SAM 2 for the editing of masks: a folder, or a name on the hub. Without it, the
    published weights are used if they are on this machine."""
    no_browser: Flag = False
    """Only print the address; do not open it."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print only errors and the address."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.cli.app.models import ModelShelf, models_on_this_machine
        from dyn3r.cli.app.page import AppPage
        from dyn3r.cli.app.uploads import Limits
        from dyn3r.motion.sam2 import Sam2Refiner, sam2_on_this_machine

        checked_whole(self.max_upload_mb, "--max-upload-mb", low=1, high=100_000)
        with progress_bars(quiet=self.quiet) as progress:
            model, _ = load_models((self.model, None), self.device, self.precision, progress)

        def load(name: str, progress: Progress) -> Model:
            return load_models((name, None), self.device, self.precision, progress)[0]

        device = str(model.device)
        page = AppPage(
            ModelShelf(model, models_on_this_machine(), load), port=self.port,
            share_on_lan=self.share_on_lan, limits=Limits(max_bytes=self.max_upload_mb * 1_000_000),
            tracker=Sam2Refiner(self.sam2, device) if self.sam2 else sam2_on_this_machine(device),
        )  # fmt: skip
        try:
            say(f"open {page.url}  (Ctrl-C ends it)")
            if not self.no_browser:
                page.open_in_browser()
            page.wait()
        finally:
            page.stop()
