"""COLMAP: a sparse model (binary or text), its images, and masks of the dynamic pixels.

COLMAP has integer coordinates at pixel corners (ours + 0.5) and stores world-to-camera transforms
with quaternions w first. The result of its mapper is the folder `sparse/0`. The model contains
static points only.
"""

from __future__ import annotations

import logging
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dyn3r.export.camera_conventions import (
    K_at_pixel_corners,
    is_K_constant,
    quaternions_wxyz,
)
from dyn3r.export.frame_images import Size, intrinsics, read_frames, sizes_hw
from dyn3r.export.naming import frame_stems
from dyn3r.export.options import ExportOptions
from dyn3r.export.pixels import write_mask, write_rgb
from dyn3r.export.tracks import Tracks, find_tracks, with_moving
from dyn3r.io.images import IMAGE_SUFFIXES
from dyn3r.io.matching import MAX_NAME_BYTES, base_name
from dyn3r.io.text import printable
from dyn3r.scene import Scene
from dyn3r.types import Progress

logger = logging.getLogger(__name__)

DEFAULT_POINTS = 50_000
_PINHOLE = 1  # COLMAP's number of the camera model


class ColmapModel(NamedTuple):
    """Content of the model's three files, in COLMAP's conventions. Ids in files count from 1."""

    sizes_hw: list[tuple[int, int]]
    """Height and width of the images of every camera."""
    params: Float[np.ndarray, "cameras 4"]
    """fx, fy, cx, cy with integers at pixel corners."""
    camera_of: list[int]
    """Row of `params` per image."""
    names: list[str]
    """File name per image."""
    quat_wxyz: Float[np.ndarray, "n 4"]
    """Rotation of the world-to-camera transform."""
    translation: Float[np.ndarray, "n 3"]
    """Translation of the world-to-camera transform."""
    tracks: Tracks
    """Static points and their observations."""
    xy: Float[np.ndarray, "m 2"]
    """`tracks.uv` in the pixels of the cameras, integers at corners."""
    index_in_image: Int[np.ndarray, " m"]
    """Position of every observation among those of its image, from 0."""
    num_static: int
    """Number of static points; dynamic ones follow."""


def write_binary(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write `sparse/0/{cameras,images,points3D}.bin`, `images/` and `masks/`."""
    write_model(scene, folder, options, progress)


def write_model(
    scene: Scene, folder: Path, options: ExportOptions, progress: Progress, *, moving: bool = False
) -> ColmapModel:
    """Write and return a binary model; `moving`: with the dynamic points of all frames."""
    model = _write_images(scene, folder, options, progress, spaces=True, moving=moving)
    sparse = folder / "sparse" / "0"
    (sparse / "cameras.bin").write_bytes(_cameras_bin(model))
    (sparse / "images.bin").write_bytes(_images_bin(model))
    (sparse / "points3D.bin").write_bytes(_points_bin(model))
    return model


def write_text(scene: Scene, folder: Path, options: ExportOptions, progress: Progress) -> None:
    """Write `sparse/0/{cameras,images,points3D}.txt`, `images/` and `masks/`."""
    model = _write_images(scene, folder, options, progress, spaces=False)
    sparse = folder / "sparse" / "0"
    (sparse / "cameras.txt").write_text(_cameras_txt(model))
    (sparse / "images.txt").write_text(_images_txt(model), encoding="utf-8")
    (sparse / "points3D.txt").write_text(_points_txt(model))


def _write_images(
    scene: Scene, folder: Path, options: ExportOptions, progress: Progress, *, spaces: bool,
    moving: bool = False,
) -> ColmapModel:  # fmt: skip
    """Write images and masks, and return the model for them; `spaces`: names may have some.

    `moving`: the model has dynamic points, too.
    """
    size: Size = "source" if options.resolution == "auto" else options.resolution
    (folder / "sparse" / "0").mkdir(parents=True)
    suffix = ".png" if size == "prepared" else ".jpg"
    names = [stem + suffix for stem in frame_stems(scene)]
    if size == "source" and options.source is None:
        names = _original_names(scene, spaces=spaces)
        height, width = sizes_hw(scene, size)[0]
        logger.warning(
            "colmap: no images written, as the source images were not given (--source); "
            "the model is for %simages %s named %s, ...",
            "undistorted " if scene.mapping.is_undistorted else "",
            "of different sizes" if scene.mapping.is_mixed else f"of {width}x{height} pixels",
            names[0],
        )
    for folder_name in ("images", "masks"):
        (folder / folder_name).mkdir()
    for t, frame in enumerate(read_frames(scene, options, size)):
        progress("writing images and masks", t, len(scene))
        if frame.image is not None:
            write_rgb(folder / "images" / names[t], frame.image)
        # COLMAP ignores pixels that are black in the mask.
        write_mask(folder / "masks" / f"{names[t]}.png", ~frame.dynamic)
    progress("writing images and masks", len(scene), len(scene))
    if not any((folder / "images").iterdir()):
        (folder / "images").rmdir()
    return make_model(scene, size, names, options, progress, moving=moving)


def make_model(
    scene: Scene, size: Size, names: list[str], options: ExportOptions, progress: Progress, *,
    moving: bool = False,
) -> ColmapModel:  # fmt: skip
    """Cameras and points of the scene in COLMAP's conventions; `moving`: with dynamic points."""
    threshold = scene.confidence_threshold(options.drop)
    limit = options.max_points or DEFAULT_POINTS
    tracks = find_tracks(scene, min_confidence=threshold, max_points=limit, progress=progress)
    num_static = len(tracks.points_world)
    if moving:
        tracks = with_moving(tracks, scene, min_confidence=threshold, max_points=limit)
    K = K_at_pixel_corners(intrinsics(scene, size))
    params = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], axis=1)
    sizes = sizes_hw(scene, size)
    shared = is_K_constant(K) and len(set(sizes)) == 1
    T = np.linalg.inv(scene.T_world_camera)
    uv = tracks.uv if size == "prepared" else _at_source(scene, tracks)
    counts = np.bincount(tracks.frame, minlength=len(scene))
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return ColmapModel(
        sizes_hw=sizes[:1] if shared else sizes,
        params=params[:1] if shared else params,
        camera_of=[0 if shared else t for t in range(len(scene))],
        names=names,
        quat_wxyz=quaternions_wxyz(T),
        translation=T[:, :3, 3],
        tracks=tracks,
        xy=uv + 0.5,
        index_in_image=np.arange(len(uv)) - firsts[tracks.frame],
        num_static=num_static,
    )


def _at_source(scene: Scene, tracks: Tracks) -> Float[np.ndarray, "m 2"]:
    """Observations in pixels of the source images."""
    if not scene.mapping.is_mixed:
        return scene.mapping.to_source(tracks.uv)
    uv = np.empty_like(tracks.uv, dtype=np.float64)
    for t in range(len(scene)):
        own = tracks.frame == t
        uv[own] = scene.mapping.of_frame(t).to_source(tracks.uv[own])
    return uv


def _original_names(scene: Scene, *, spaces: bool) -> list[str]:
    """File names of the source images, where they can be names; frames of a video end in .png.

    COLMAP's text files end a name at a space, which then becomes an underscore.
    """
    suffixes = [Path(name).suffix.lower() for name in scene.names]
    safe = [
        stem + (suffix if suffix in IMAGE_SUFFIXES else ".png")
        for stem, suffix in zip(frame_stems(scene), suffixes)
    ]
    names = [
        name if _is_file_name(name, spaces=spaces) else replacement
        for name, replacement in zip(scene.names, safe)
    ]
    if len({name.casefold() for name in names}) < len(names):
        names = safe
    changed = [
        (name, new)
        for name, new, suffix in zip(scene.names, names, suffixes)
        if suffix in IMAGE_SUFFIXES and name != new
    ]
    if changed:
        logger.warning(
            "colmap: %d of the images must be renamed: %s is called %s in the model%s",
            len(changed), *changed[0], "" if spaces else " (format colmap keeps spaces)",
        )  # fmt: skip
    return names


def _is_file_name(name: str, *, spaces: bool) -> bool:
    """Whether a name can stay: an image's, without folders, control characters and line ends."""
    return (
        Path(name).suffix.lower() in IMAGE_SUFFIXES
        and base_name(name) == name == printable(name)
        and (spaces or not re.search(r"\s", name))
        and len(name.encode()) <= MAX_NAME_BYTES
    )


def _cameras_bin(model: ColmapModel) -> bytes:
    parts = [struct.pack("<Q", len(model.params))]
    for k, (params, (height, width)) in enumerate(zip(model.params, model.sizes_hw)):
        parts.append(struct.pack("<iiQQ4d", k + 1, _PINHOLE, width, height, *params))
    return b"".join(parts)


def _images_bin(model: ColmapModel) -> bytes:
    parts = [struct.pack("<Q", len(model.names))]
    for t, name in enumerate(model.names):
        own = model.tracks.frame == t
        parts.append(struct.pack("<i7d", t + 1, *model.quat_wxyz[t], *model.translation[t]))
        parts.append(struct.pack("<i", model.camera_of[t] + 1) + name.encode("utf-8") + b"\0")
        observed = np.zeros(int(own.sum()), np.dtype([("xy", "<f8", 2), ("point", "<u8")]))
        observed["xy"], observed["point"] = model.xy[own], model.tracks.point[own] + 1
        parts.append(struct.pack("<Q", len(observed)) + observed.tobytes())
    return b"".join(parts)


def _points_bin(model: ColmapModel) -> bytes:
    tracks = model.tracks
    parts = [struct.pack("<Q", len(tracks.points_world))]
    for k, views in enumerate(_views(model)):
        xyz, rgb = tracks.points_world[k].tolist(), tracks.colors[k].tolist()
        parts.append(struct.pack("<Q3d3BdQ", k + 1, *xyz, *rgb, tracks.error_px[k], len(views)))
        parts.append(views.astype("<i4").tobytes())
    return b"".join(parts)


def _views(model: ColmapModel) -> list[np.ndarray]:
    """Views of each point: rows of (image id, index of the observation in that image)."""
    order = np.argsort(model.tracks.point, kind="stable")
    rows = np.stack([model.tracks.frame + 1, model.index_in_image], axis=1)[order]
    counts = np.bincount(model.tracks.point, minlength=len(model.tracks.points_world))
    return np.split(rows, np.cumsum(counts)[:-1]) if len(counts) else []


def _cameras_txt(model: ColmapModel) -> str:
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy (integers are pixel corners)"]
    for k, (params, (height, width)) in enumerate(zip(model.params, model.sizes_hw)):
        lines.append(f"{k + 1} PINHOLE {width} {height} {_words(params)}")
    return "\n".join(lines) + "\n"


def _images_txt(model: ColmapModel) -> str:
    lines = [
        "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME (world to camera)",
        "# then a line of X Y POINT3D_ID ...",
    ]
    for t, name in enumerate(model.names):
        pose = _words([*model.quat_wxyz[t], *model.translation[t]])
        lines.append(f"{t + 1} {pose} {model.camera_of[t] + 1} {name}")
        own = model.tracks.frame == t
        seen = zip(model.xy[own].tolist(), model.tracks.point[own].tolist())
        lines.append(" ".join(f"{x:.9g} {y:.9g} {point + 1}" for (x, y), point in seen))
    return "\n".join(lines) + "\n"


def _points_txt(model: ColmapModel) -> str:
    tracks = model.tracks
    lines = ["# POINT3D_ID X Y Z R G B ERROR TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    for k, views in enumerate(_views(model)):
        rgb = " ".join(map(str, tracks.colors[k].tolist()))
        track = " ".join(map(str, views.reshape(-1).tolist()))
        xyz = _words(tracks.points_world[k])
        lines.append(f"{k + 1} {xyz} {rgb} {tracks.error_px[k]:.6g} {track}")
    return "\n".join(lines) + "\n"


def _words(numbers: np.ndarray | list[float]) -> str:
    return " ".join(f"{float(number):.12g}" for number in numbers)
