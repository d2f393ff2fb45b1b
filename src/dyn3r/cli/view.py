"""`dyn3r view`: scenes in the browser, or as files for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.errors import InputError
from dyn3r.viewer.appearance import Colouring

if TYPE_CHECKING:
    from dyn3r.scene import Scene
    from dyn3r.viewer.appearance import Look


@dataclass(frozen=True)
class View:
    """Show scenes in the browser: clouds, cameras, timeline. Ctrl-C ends it.

    Several scenes stand side by side. With --save, --screenshot or --turntable files are written
    instead.
    """

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `dyn3r run` wrote, or scene files."""
    port: int = 8080
    """Port to serve on; the next free one is taken if it is in use."""
    host: str = "127.0.0.1"
    """Address to serve on; anything but localhost lets other machines in, without a password."""
    browser: Flag = True
    """Open the page in a browser where there is one."""
    color: Colouring = "rgb"
    """Colours of the points at first, or in the files."""
    save: Annotated[Path | None, tyro.conf.arg(metavar="PAGE")] = None
    """Write one .html file that opens without a server and without a network (or a .viser
    recording)."""
    screenshot: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE")] = None
    """Write a picture (.png, .jpg) of the first view."""
    turntable: Annotated[Path | None, tyro.conf.arg(metavar="VIDEO")] = None
    """Write a video (.mp4) that goes around the scene while the clip plays."""
    degrees: float = 360.0
    """How far the turntable turns; less than 360: to both sides and back."""
    overwrite: Flag = False
    """Replace files that exist."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing but errors and the address."""

    def __call__(self) -> None:
        from dyn3r.scene import Scene
        from dyn3r.viewer import Look, view

        if not self.scenes:
            raise InputError("name at least one scene, e.g. dyn3r view OUT")
        self._check_files()
        scenes = [Scene.load(path) for path in self.scenes]
        look = Look(color=self.color)
        if self.save or self.screenshot or self.turntable:
            self._write(scenes, look)
            return
        viewer = view(
            scenes, names=self._names(), host=self.host, port=self.port, block=False, look=look
        )
        print(f"open {viewer.url}  (Ctrl-C ends it)", flush=True)
        if self.browser:
            viewer.open_in_browser()
        viewer.wait()

    def _check_files(self) -> None:
        """Before anything is loaded or computed."""
        from dyn3r.io.atomic import check_writable

        if (self.screenshot or self.turntable) and len(self.scenes) > 1:
            raise InputError("--screenshot and --turntable draw one scene: name one")
        for path in (self.save, self.screenshot, self.turntable):
            if path is not None:
                check_writable(path, overwrite=self.overwrite)

    def _names(self) -> list[str]:
        """A label for each scene: the folder's or file's name where that is enough."""
        short = [path.stem if path.suffix else path.resolve().name for path in self.scenes]
        if len(set(short)) == len(short):
            return short
        return [f"{i + 1}: {path}" for i, path in enumerate(self.scenes)]

    def _write(self, scenes: list[Scene], look: Look) -> None:
        from dyn3r.viewer import (
            TurntableOptions,
            save_recording,
            write_screenshot,
            write_turntable,
        )

        written = []
        with progress_bars(self.quiet) as progress:
            if self.save:
                save_recording(
                    scenes, self.save, names=self._names(), look=look, overwrite=self.overwrite
                )
                written.append(self.save)
            if self.screenshot:
                write_screenshot(scenes[0], self.screenshot, look=look, overwrite=self.overwrite)
                written.append(self.screenshot)
            if self.turntable:
                write_turntable(
                    scenes[0], self.turntable, look=look, overwrite=self.overwrite,
                    options=TurntableOptions(degrees=self.degrees), progress=progress,
                )  # fmt: skip
                written.append(self.turntable)
        if not self.quiet:
            print("wrote " + ", ".join(str(path) for path in written))
