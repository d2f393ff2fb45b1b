"""Source images of a scene's frames, read again from the video or folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import inf
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.geometry.lens import source_undistorter
from dyn3r.io.image_folder import folder_images
from dyn3r.io.images import IMAGE_SUFFIXES, prepare_image, read_rgb, white_level
from dyn3r.io.inspection.interlacing import one_field
from dyn3r.io.mask_files import match_frames
from dyn3r.io.text import counted
from dyn3r.scene import Scene

_MAX_DIFFERENCE = 0.35  # of the contrast; strong compression: 0.1, unrelated images: about 1.4
_NOISE = 4.0  # of 255: differences of brightness that compression leaves in flat images

SourceImage = UInt8[np.ndarray, "source_h source_w 3"]


def read_source_images(scene: Scene, source: Path) -> Iterator[SourceImage]:
    """Yield the upright RGB source image of every frame, in order, one at a time.

    They are read as for the clip: one field of interlaced ones, values of 16 bits on the same
    scale, without lens distortion. The files of a folder are matched with the frames by name, by
    order or by number (`match_frames`); the frames of a video by time. Every image is compared with
    the scene's.

    Raises:
        InputError: a missing source, frames that are not in it, or images of another size or
            content than the scene was made from.
    """
    if not source.exists():
        raise InputError(f"the source {source} does not exist")
    images = _from_folder(scene, source) if source.is_dir() else _from_file(scene, source)
    mapping = scene.mapping.of_frame(0)
    undistorted = source_undistorter(mapping)
    for t, (name, image) in enumerate(zip(scene.names, images, strict=True)):
        if scene.mapping.of_frame(t) != mapping:
            mapping = scene.mapping.of_frame(t)
            undistorted = source_undistorter(mapping)
        height, width = mapping.source_hw
        if image.shape[:2] != (height, width):
            raise InputError(
                f"{source} is not what the scene was made from: {name} has "
                f"{image.shape[1]}x{image.shape[0]} pixels, not {width}x{height}"
            )
        if mapping.one_field:
            image = np.asarray(one_field(Image.fromarray(image)))
        image = undistorted(image)
        _check_content(scene, t, image, source)
        yield image


def _check_content(scene: Scene, t: int, image: SourceImage, source: Path) -> None:
    """Raise InputError if the image is not that of frame t; compression changes little."""
    prepared = _brightness(prepare_image(Image.fromarray(image), scene.mapping.of_frame(t)))
    own = _difference(prepared, scene, t)
    contrast = max(np.abs(map_).mean() for map_ in (prepared, _brightness(scene.images[t])))
    if own > max(_MAX_DIFFERENCE * contrast, _NOISE):
        raise InputError(
            f"{source} is not what the scene was made from: {scene.names[t]} shows another picture"
        )
    for other in (t - 1, t + 1):
        if 0 <= other < len(scene) and 2 * _difference(prepared, scene, other) + 1 < own:
            raise InputError(
                f"{source} is not what the scene was made from: its {scene.names[t]} is the "
                f"scene's {scene.names[other]}"
            )


def _difference(prepared: np.ndarray, scene: Scene, t: int) -> float:
    return float(np.abs(prepared - _brightness(scene.images[t])).mean())


def _brightness(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h4 w4"]:
    """Mean brightness of 4x4 pixels, without that of the image: noise and exposure count less."""
    grey = image.astype(np.float32).mean(axis=2)
    h, w = (side // 4 for side in grey.shape)
    coarse = grey[: 4 * h, : 4 * w].reshape(h, 4, w, 4).mean(axis=(1, 3))
    return coarse - coarse.mean()


def _from_folder(scene: Scene, folder: Path) -> Iterator[SourceImage]:
    files = folder_images(folder).files
    chosen = [files[k] for k in match_frames([f.name for f in files], scene.names, folder)]
    white = white_level(chosen)
    for file in chosen:
        yield np.asarray(read_rgb(file, white))


def _from_file(scene: Scene, file: Path) -> Iterator[SourceImage]:
    if file.suffix.lower() in IMAGE_SUFFIXES:
        if len(scene) > 1:
            raise InputError(
                f"{file} is one image, but the scene has {counted(len(scene), 'frame')}"
            )
        yield np.asarray(read_rgb(file, white_level([file])))
        return
    yield from _from_video(scene, file)


def _from_video(scene: Scene, file: Path) -> Iterator[SourceImage]:
    from dyn3r.io.video import open_video, plan_sampling, sampled_frames

    wanted = scene.times_s
    found, best = 0, None
    with open_video(file) as container:
        plan = plan_sampling(container, start_s=float(wanted[0]))
        for sample in chain(sampled_frames(container, plan), (None,)):
            gap = inf if sample is None else abs(sample.time_s - wanted[found])
            if best is None or gap < abs(best.time_s - wanted[found]):
                best = sample
                continue
            if abs(best.time_s - wanted[found]) > 0.5 / plan.rate:
                break
            yield np.asarray(best.image)
            found, best = found + 1, sample
            if found == len(scene):
                return
    raise InputError(
        f"{file} has no frame at {wanted[found]:.3f} s ({scene.names[found]}): "
        "is it what the scene was made from?"
    )
