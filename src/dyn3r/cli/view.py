"""`dyn3r view`: scenes in the browser, or as pages, images and videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.cli.terminal import say
from dyn3r.errors import InputError, OutputError
from dyn3r.viewer.appearance import ColorBy

if TYPE_CHECKING:
    from dyn3r.scene import Scene
    from dyn3r.viewer.appearance import Appearance


@dataclass(frozen=True)
class View:
    """Show scenes in the browser: points, cameras, timeline. Ctrl-C ends it.

    Several scenes are shown side by side. With --save, --screenshot or --turntable, files are
    written instead.
    """

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `dyn3r run` wrote, or scene files."""
    port: int = 8080
    """Port to serve on; the next free one is taken if it is in use."""
    host: str = "127.0.0.1"
    """Address to serve on; with another one than localhost, other machines have access without a
    password."""
    no_browser: Flag = False
    """Only print the address; do not open it."""
    color: ColorBy = "rgb"
    """Colours of the points, on the page at first or in the files."""
    point_size: float = 1.0
    """Factor on the radius of the points in the page of --save."""
    save: Annotated[Path | None, tyro.conf.arg(metavar="PAGE")] = None
    """Write one .html file that opens without a server and without a network (or a .viser
    recording)."""
    screenshot: Annotated[Path | None, tyro.conf.arg(metavar="IMAGE")] = None
    """Write an image (.png, .jpg) of the first view."""
    turntable: Annotated[Path | None, tyro.conf.arg(metavar="VIDEO")] = None
    """Write a video (.mp4) of an orbit around the scene while the clip plays."""
    degrees: float = 360.0
    """Angle of the orbit; below 360 the camera swings to both sides and back."""
    overwrite: Flag = False
    """Replace existing files."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print only errors and the address."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.scene import Scene
        from dyn3r.viewer import Appearance, view

        if not self.scenes:
            raise InputError("name at least one scene, e.g. dyn3r view OUT")
        self._check_files()
        scenes = [Scene.load(path) for path in self.scenes]
        appearance = Appearance(color=self.color)
        if self.save or self.screenshot or self.turntable:
            self._write(scenes, appearance)
            return
        viewer = view(
            scenes, names=self._names(), host=self.host, port=self.port, block=False,
            appearance=appearance,
        )  # fmt: skip
        say(f"open {viewer.url}  (Ctrl-C ends it)")
        if not self.no_browser:
            viewer.open_in_browser()
        viewer.wait()

    def _check_files(self) -> None:
        """Check the output paths before anything is loaded or computed."""
        from dyn3r.io.atomic import check_writable
        from dyn3r.viewer import TurntableOptions

        if (self.screenshot or self.turntable) and len(self.scenes) > 1:
            raise InputError("--screenshot and --turntable render one scene: name one")
        TurntableOptions(degrees=self.degrees)
        for path, suffixes in (
            (self.save, (".html", ".htm", ".viser")),
            (self.screenshot, (".png", ".jpg", ".jpeg")),
            (self.turntable, (".mp4",)),
        ):
            if path is None:
                continue
            if path.suffix.lower() not in suffixes:
                raise OutputError(f"cannot write {path}: its name must end in {suffixes[0]}")
            check_writable(path, overwrite=self.overwrite)

    def _names(self) -> list[str]:
        """Label of each scene: the name of its folder or file if these are distinct."""
        short = [path.stem if path.suffix else path.resolve().name for path in self.scenes]
        if len(set(short)) == len(short):
            return short
        return [f"{i + 1}: {path}" for i, path in enumerate(self.scenes)]

    def _write(self, scenes: list[Scene], appearance: Appearance) -> None:
        from dyn3r.viewer import (
            TurntableOptions,
            save_recording,
            write_screenshot,
            write_turntable,
        )

        written = []
        with progress_bars(quiet=self.quiet) as progress:
            if self.save:
                save_recording(
                    scenes, self.save, names=self._names(), appearance=appearance,
                    point_size=self.point_size, overwrite=self.overwrite,
                )  # fmt: skip
                written.append(self.save)
            if self.screenshot:
                write_screenshot(
                    scenes[0], self.screenshot, appearance=appearance, overwrite=self.overwrite
                )
                written.append(self.screenshot)
            if self.turntable:
                write_turntable(
                    scenes[0], self.turntable, appearance=appearance, overwrite=self.overwrite,
                    options=TurntableOptions(degrees=self.degrees), progress=progress,
                )  # fmt: skip
                written.append(self.turntable)
        if not self.quiet:
            say("wrote " + ", ".join(str(path) for path in written))
