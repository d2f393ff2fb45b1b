"""`dyn3r export`: scenes in other programs' formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.cli.terminal import say
from dyn3r.errors import InputError
from dyn3r.export.options import ExportOptions

_NEXT = {
    "glb": "Blender, File > Import > glTF 2.0 (space plays the clip)",
    "mesh": "Blender, File > Import > glTF 2.0 (space plays the clip)",
    "usd": "usdview {0}, or Blender, File > Import > Universal Scene Description",
    "ply": "MeshLab, CloudCompare or Open3D open {0}",
    "colmap": "COLMAP, File > Import model, {0}/sparse/0; or a splat trainer, with {0} as its data",
    "colmap4d": "colmap4d.load_model_view('{1}/sparse/0') in Python, with the package colmap4d",
    "nerfstudio": "ns-train splatfacto --data {0}",
    "rerun": "rerun {0}",
    "tum": "evo_traj tum {0} --plot",
    "kitti": "evo_traj kitti {0} --plot",
}
"""Format -> what to do with the result: {0} for a command line, {1} as it is."""
_NEXT_WITHOUT_SOURCE = _NEXT | {
    "colmap": "COLMAP, File > Import model, {0}/sparse/0; for a splat trainer export again with "
    "--source CLIP --overwrite, which adds images",
}


@dataclass(frozen=True)
class Export:
    """Write a scene for another program.

    Formats: official, tum, kitti, colmap, colmap-text, colmap4d, nerfstudio, ply, ply-frames, glb,
    mesh, usd, rerun, depth, depth-npy, depth-exr, masks, video. Conventions of each:
    docs/exports.md.
    """

    scene: tyro.conf.Positional[Path]
    """A folder that `dyn3r run` wrote, or a scene file."""
    to: Annotated[str, tyro.conf.arg(metavar="FORMAT")]
    """The format, see above."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = None
    """File or folder to write; default: beside the scene, in exports/."""
    options: Annotated[ExportOptions, tyro.conf.arg(name="")] = field(default_factory=ExportOptions)
    overwrite: Flag = False
    """Replace an existing export."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.export import FORMATS, export
        from dyn3r.scene import Scene

        if self.to not in FORMATS:
            raise InputError(f"unknown format {self.to!r}: choose one of {', '.join(FORMATS)}")
        folder = self.scene if self.scene.is_dir() else self.scene.parent
        target = self.output or folder / "exports" / FORMATS[self.to].default_name
        scene = Scene.load(self.scene)
        with progress_bars(quiet=self.quiet) as progress:
            export(
                scene, self.to, target, self.options, overwrite=self.overwrite, progress=progress
            )
        if not self.quiet:
            say(f"wrote {target}: {FORMATS[self.to].summary}")
            tips = _NEXT if self.options.source else _NEXT_WITHOUT_SOURCE
            if self.to in tips:
                say(f"next: {tips[self.to].format(quote(str(target)), target)}")
