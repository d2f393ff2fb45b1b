"""`dyn3r export`: scenes in other programs' formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.errors import InputError


@dataclass(frozen=True)
class Export:
    """Write a scene for another program.

    Formats: official, tum, kitti, colmap, colmap-text, nerfstudio, ply, ply-frames, glb, usd,
    rerun, depth, depth-npy, depth-exr, masks, video. Conventions of each: docs/exports.md.
    """

    scene: tyro.conf.Positional[Path]
    """A folder that `dyn3r run` wrote, or a scene file."""
    to: Annotated[str, tyro.conf.arg(metavar="FORMAT")]
    """The format, see above."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = None
    """File or folder to write; default: beside the scene, in exports/."""
    resolution: Literal["auto", "prepared", "source"] = "auto"
    """prepared: the frames as the network saw them; source: the pictures they came from; auto:
    source if --source is given, else prepared (colmap: always source)."""
    source: Path | None = None
    """The video or folder that the scene was made from: gives the pictures to colmap and
    nerfstudio, and guides depth and masks at source resolution (nearest neighbour without it)."""
    which: Literal["all", "static", "dynamic"] = "all"
    """The part of the points that clouds (ply, glb, usd, rerun) hold."""
    drop: float = 0.2
    """Share of the least sure points to leave out of clouds."""
    max_points: int | None = None
    """Thin clouds to about this many points; default: depends on the format."""
    quaternion: Literal["xyzw", "wxyz"] = "xyzw"
    """Order in tum and official trajectories; the published programs wrote wxyz."""
    overwrite: Flag = False
    """Replace an existing export."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing but errors."""

    def __call__(self) -> None:
        from dyn3r.export import FORMATS, ExportOptions, export
        from dyn3r.scene import Scene

        if self.to not in FORMATS:
            raise InputError(f"unknown format {self.to!r}: choose one of {', '.join(FORMATS)}")
        options = ExportOptions(
            resolution=self.resolution, source=self.source, which=self.which, drop=self.drop,
            max_points=self.max_points, quaternion=self.quaternion,
        )  # fmt: skip
        folder = self.scene if self.scene.is_dir() else self.scene.parent
        target = self.output or folder / "exports" / FORMATS[self.to].default_name
        scene = Scene.load(self.scene)
        with progress_bars(self.quiet) as progress:
            export(scene, self.to, target, options, overwrite=self.overwrite, progress=progress)
        if not self.quiet:
            print(f"wrote {target}: {FORMATS[self.to].summary}")
