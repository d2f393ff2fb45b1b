"""Uploaded clips: limits, check of the content, a place in a private folder."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyn3r.errors import InputError
from dyn3r.io.images import IMAGE_SUFFIXES
from dyn3r.viewer.viser_internals import limit_upload_bytes

CAMERA_FILES = (".json", ".txt", ".npz", ".dyn3r", ".zip")
"""Suffixes of files that known cameras are read from; a zip archive holds a folder of cameras."""
_CAMERA_NAMES = ("cameras.bin", "cameras.txt", "transforms.json", "pred_traj.txt",
                 "groundtruth.txt", "scene.dyn3r")  # fmt: skip
_STEM = "clip"


@dataclass(frozen=True)
class Limits:
    """Limits of an uploaded clip."""

    max_bytes: int = 500_000_000
    """Size of the file."""
    max_seconds: float = 1800.0
    """Length of a video."""


@dataclass(frozen=True)
class Source:
    """A clip that can be reconstructed."""

    path: Path
    """A video file, or a folder of images."""
    name: str
    """What the user calls it."""
    num_frames: int
    """Frames that it has, estimated for videos."""
    fps: float
    """Frames per second; 0 for a folder of images."""


def describe_source(path: Path, name: str) -> Source:
    """Frames and rate of a clip. Raises InputError if it is none."""
    from dyn3r.io.image_folder import folder_images
    from dyn3r.io.video import open_video, plan_sampling

    if path.is_dir():
        return Source(path, name, len(folder_images(path).files), 0.0)
    with open_video(path) as container:
        sampling = plan_sampling(container)
    if not sampling.expected:
        raise InputError(f"{name} does not say how long it is: convert it to mp4")
    return Source(path, name, sampling.expected, sampling.rate)


def accept_upload(folder: Path, name: str, content: bytes, limits: Limits) -> Source:
    """Write an uploaded file into a folder, which holds nothing else afterwards.

    What the file is, its content says: a video, or a zip archive of images. Its name is shown only.

    Raises:
        InputError: too large, too long, or neither of the two.
    """
    from dyn3r.io.unpack import unpack

    if len(content) > limits.max_bytes:
        raise InputError(too_large(limits))
    path = folder / _STEM
    path.write_bytes(content)
    shown = Path(name.replace("\\", "/")).name[:80] or "upload"
    try:
        if zipfile.is_zipfile(path):
            images = folder / "images"
            unpack(path, images)
            return describe_source(only_folder(images), shown)
        source = describe_source(path, shown)
    except InputError as problem:
        # paths of this machine are nobody's business
        text = str(problem).replace(str(path), shown).replace(str(folder), shown)
        raise InputError(text) from None
    if source.num_frames > limits.max_seconds * source.fps:
        raise InputError(f"{shown} is longer than {limits.max_seconds / 60:.0f} minutes: cut it")
    return source


def too_large(limits: Limits) -> str:
    """What is said about a file that is too large."""
    return f"the file is larger than {limits.max_bytes / 1e6:.0f} MB: cut or compress the video"


def holds_cameras(name: str, content: bytes) -> bool:
    """Whether an upload is a file of cameras, or a zip archive of cameras without images."""
    suffix = Path(name).suffix.lower()
    if suffix != ".zip":
        return suffix in CAMERA_FILES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [Path(member.replace("\\", "/")) for member in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    images = any(path.suffix.lower() in IMAGE_SUFFIXES for path in names)
    return not images and any(path.name.lower() in _CAMERA_NAMES for path in names)


def unpack_cameras(folder: Path, content: bytes) -> Path:
    """Unpack an archive of cameras into a folder, which holds nothing else afterwards.

    Returns the folder that a reader of cameras takes. Raises InputError for no such archive.
    """
    from dyn3r.io.unpack import unpack

    shutil.rmtree(folder, ignore_errors=True)
    archive = folder.with_suffix(".zip")
    archive.write_bytes(content)
    try:
        unpack(archive, folder)
    except InputError as problem:
        raise InputError(str(problem).replace(str(archive), "the archive")) from None
    finally:
        archive.unlink()
    return only_folder(folder)


def only_folder(folder: Path) -> Path:
    """The folder itself, or what lies in the folders that it holds alone, one in another."""
    entries = [entry for entry in folder.iterdir() if entry.name != "__MACOSX"]
    alone = len(entries) == 1 and entries[0].is_dir()
    return only_folder(entries[0]) if alone else folder


def limit_uploads(client: Any, limits: Limits, refuse: Callable[[str], None]) -> None:
    """Refuse uploads of a browser that announce, or turn out to be, more than the limit."""
    limit_upload_bytes(client, limits.max_bytes, lambda: refuse(too_large(limits)))
