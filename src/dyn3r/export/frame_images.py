"""The frames of a scene at the resolution that an export asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dyn3r.export.options import ExportOptions
from dyn3r.export.source_images import read_source_pictures
from dyn3r.export.upsampling import upsample_guided
from dyn3r.scene import Scene

Size = Literal["prepared", "source"]


class Frame(NamedTuple):
    """One frame; all maps have one size."""

    image: UInt8[np.ndarray, "H W 3"] | None
    """None at source resolution without source pictures."""
    depth: Float32[np.ndarray, "H W"]
    """0 where unknown."""
    dynamic: Bool[np.ndarray, "H W"]


def chosen_size(options: ExportOptions) -> Size:
    """What `auto` means where pictures belong to the export: source if it is at hand."""
    if options.resolution == "auto":
        return "prepared" if options.source is None else "source"
    return options.resolution


def size_hw(scene: Scene, size: Size) -> tuple[int, int]:
    """Height and width of the frames."""
    return scene.size_hw if size == "prepared" else scene.mapping.source_hw


def intrinsics(scene: Scene, size: Size) -> Float[np.ndarray, "n 3 3"]:
    """K of the frames, integer pixel centres."""
    return scene.K if size == "prepared" else scene.K_source()


def read_frames(scene: Scene, options: ExportOptions, size: Size) -> Iterator[Frame]:
    """All frames in order, one at a time.

    At source resolution depth and masks are guided by the source pictures where those are given,
    else by nearest neighbour.

    Raises:
        InputError: see `read_source_pictures`.
    """
    if size == "prepared":
        for t in range(len(scene)):
            yield Frame(scene.images[t], scene.depth[t], scene.dynamic[t])
    elif options.source is None:
        for t in range(len(scene)):
            yield Frame(None, scene.depth_source(t), scene.at_source(scene.dynamic[t]))
    else:
        for t, picture in enumerate(read_source_pictures(scene, options.source)):
            maps = upsample_guided(
                scene.depth[t], scene.dynamic[t], scene.images[t], picture, scene.mapping
            )
            yield Frame(picture, maps.depth, maps.dynamic)
