"""Source images of a scene's frames, read again from the video or folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dyn3r.errors import InputError
from dyn3r.io.images import IMAGE_SUFFIXES, natural_key, open_image, to_rgb, visible_files
from dyn3r.io.mask_files import match_frames
from dyn3r.scene import Scene

SourceImage = UInt8[np.ndarray, "source_h source_w 3"]


def read_source_images(scene: Scene, source: Path) -> Iterator[SourceImage]:
    """Yield the upright RGB source image of every frame, in order, one at a time.

    The files of a folder are matched with the frames by name, by order or by number
    (`match_frames`); the frames of a video by time.

    Raises:
        InputError: a missing source, frames that are not in it, or images of another size than
            the scene was made from.
    """
    if not source.exists():
        raise InputError(f"the source {source} does not exist")
    images = _from_folder(scene, source) if source.is_dir() else _from_file(scene, source)
    for name, image in zip(scene.names, images, strict=True):
        height, width = scene.mapping.source_hw
        if image.shape[:2] != (height, width):
            raise InputError(
                f"{source} is not what the scene was made from: {name} has "
                f"{image.shape[1]}x{image.shape[0]} pixels, not {width}x{height}"
            )
        yield image


def _from_folder(scene: Scene, folder: Path) -> Iterator[SourceImage]:
    files = sorted(
        (f for f in visible_files(folder) if f.suffix.lower() in IMAGE_SUFFIXES), key=natural_key
    )
    if not files:
        raise InputError(f"the folder {folder} has no images in it")
    for k in match_frames([f.stem for f in files], scene.names, folder):
        yield np.asarray(to_rgb(open_image(files[k])))


def _from_file(scene: Scene, file: Path) -> Iterator[SourceImage]:
    if file.suffix.lower() in IMAGE_SUFFIXES:
        if len(scene) > 1:
            raise InputError(f"{file} is one image, but the scene has {len(scene)} frames")
        yield np.asarray(to_rgb(open_image(file)))
        return
    yield from _from_video(scene, file)


def _from_video(scene: Scene, file: Path) -> Iterator[SourceImage]:
    from dyn3r.io.video import open_video, plan_sampling, sampled_frames

    wanted = scene.times_s
    if (np.diff(wanted) <= 0).any():
        raise InputError(f"the scene's times do not increase: its frames cannot be found in {file}")
    found = 0
    with open_video(file) as container:
        plan = plan_sampling(container, start_s=float(wanted[0]))
        for sample in sampled_frames(container, plan):
            if sample.time_s < wanted[found] - 0.5 / plan.rate:
                continue
            if sample.time_s > wanted[found] + 0.5 / plan.rate:
                break
            found += 1
            yield np.asarray(sample.image)
            if found == len(scene):
                return
    raise InputError(
        f"{file} has no frame at {wanted[found]:.3f} s ({scene.names[found]}): "
        "is it what the scene was made from?"
    )
