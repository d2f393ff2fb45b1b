"""Frames of a scene at the resolution of an export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dyn3r.export.options import ExportOptions
from dyn3r.export.source_images import read_source_images
from dyn3r.export.upsampling import upsample_guided
from dyn3r.scene import Scene

Size = Literal["prepared", "source"]


class Frame(NamedTuple):
    """One frame; all maps have the same size."""

    image: UInt8[np.ndarray, "H W 3"] | None
    """RGB, 0..255; None at source resolution without source images."""
    depth: Float32[np.ndarray, "H W"]
    """z along the optical axis; 0 where unknown."""
    dynamic: Bool[np.ndarray, "H W"]
    """True on dynamic pixels."""


def chosen_size(options: ExportOptions) -> Size:
    """Resolution of formats with images: `auto` is the source resolution if there is a source."""
    if options.resolution == "auto":
        return "prepared" if options.source is None else "source"
    return options.resolution


def sizes_hw(scene: Scene, size: Size) -> list[tuple[int, int]]:
    """Height and width of every frame."""
    if size == "prepared":
        return [scene.size_hw] * len(scene)
    return [scene.mapping.of_frame(t).source_hw for t in range(len(scene))]


def intrinsics(scene: Scene, size: Size) -> Float[np.ndarray, "n 3 3"]:
    """K of the frames in pixels, integer pixel centres."""
    return scene.K if size == "prepared" else scene.K_source()


def read_frames(scene: Scene, options: ExportOptions, size: Size) -> Iterator[Frame]:
    """Yield all frames in order, one at a time.

    At source resolution, depth and masks are upsampled: guided by the source images if these are
    given, otherwise by nearest neighbour.

    Raises:
        InputError: source images that cannot be read or do not fit, see `read_source_images`.
    """
    if size == "prepared":
        for t in range(len(scene)):
            yield Frame(scene.images[t], scene.depth[t], scene.dynamic[t])
    elif options.source is None:
        for t in range(len(scene)):
            yield Frame(None, scene.depth_source(t), scene.at_source(scene.dynamic[t], frame=t))
    else:
        for t, image in enumerate(read_source_images(scene, options.source)):
            mapping = scene.mapping.of_frame(t)
            maps = upsample_guided(
                scene.depth[t], scene.dynamic[t], scene.images[t], image, mapping
            )
            yield Frame(image, maps.depth, maps.dynamic)
