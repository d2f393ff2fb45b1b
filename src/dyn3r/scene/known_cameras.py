"""Known cameras from any file: one of another program, or a scene of an earlier run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.geometry.lens import distorted_K
from dyn3r.io.arguments import checked_path
from dyn3r.io.camera_files import (
    KnownCameras,
    match_cameras,
    read_camera_file,
    without_distortion,
)
from dyn3r.io.camera_list import CameraList, QuaternionOrder
from dyn3r.scene.scene import Scene
from dyn3r.types import Clip, Lens, Priors


def known_cameras(
    path: str | Path, clip: Clip, *, fixed: bool = True, quaternion: QuaternionOrder = "auto"
) -> KnownCameras:
    """Read known cameras, bring them onto the frames of `clip`, and undistort these.

    `path` is a dyn3r scene (the file, or the folder of a run), or any layout that
    `dyn3r.io.camera_files.read_camera_file` knows. `fixed`: the cameras are kept exactly;
    False: they are a start. `quaternion`: see there. Returns the clip, whose report says how the
    cameras were matched, and the priors. Raises InputError and MissingExtraError as that function.
    """
    source = checked_path(path, "the cameras")
    if source.suffix.lower() != ".dyn3r" and not (source / "scene.dyn3r").is_file():
        return read_camera_file(source, clip, fixed=fixed, quaternion=quaternion)
    scene = Scene.load(source)
    K, mapping = scene.K_source(), scene.mapping
    own = [mapping.of_frame(t) for t in range(len(scene))]
    clip_hw = {frame.source_hw for frame in clip.mapping.frame_mappings or (clip.mapping,)}
    if mapping.is_undistorted and clip_hw != {frame.source_hw for frame in own}:
        raise InputError(f"{source} was made from images of another size than the clip")
    if mapping.lens is not None:
        clip = without_distortion(clip, mapping.lens)
    lenses: list[Lens | None] = []
    if mapping.lens is None and mapping.is_undistorted:
        lenses = [frame.lens for frame in own]
        K = np.stack([k if a is None else distorted_K(a, k) for a, k in zip(lenses, K)])
    sizes_wh = np.array([frame.source_hw[::-1] for frame in own], float)
    cameras = CameraList(
        scene.T_world_camera, K, sizes_wh if mapping.is_mixed else None, scene.names, lenses=lenses
    )
    return match_cameras(cameras, clip, source, fixed=fixed)


def read_cameras(
    path: str | Path, clip: Clip, *, fixed: bool = True, quaternion: QuaternionOrder = "auto"
) -> Priors:
    """The priors of `known_cameras`, for cameras without lens distortion.

    Raises InputError as that function does, and for cameras with distortion unless `clip` was
    undistorted with it.
    """
    known = known_cameras(path, clip, fixed=fixed, quaternion=quaternion)
    if known.clip.mapping != clip.mapping:
        raise InputError(
            f"{path} has lens distortion: take `known_cameras`, which also undistorts the clip"
        )
    return known.priors


def unit_of(priors: Priors) -> dict[str, str]:
    """The unit of length, for metadata, where known cameras fix it."""
    if priors.T_world_camera is None or not priors.fix_T:
        return {}
    positions = priors.T_world_camera[:, :3, 3]
    positions = positions[np.isfinite(positions).all(axis=1)]
    if len(positions) < 2 or not np.ptp(positions, axis=0).any():
        return {}
    return {"unit": "the unit of the known cameras"}


def K_known_alone(priors: Priors, clip: Clip) -> Float[np.ndarray, "n 3 3"] | None:
    """K, if one holds for all frames and neither cameras nor depth are known; else None.

    Images of different sizes have one each.

    Then bundle adjustment alone takes it. The depth of a network lies along the axis of a camera
    with a focal length of its own; an alignment with another K would take the nearest points on
    other rays, and bend it.
    """
    K = priors.K
    if K is None or not priors.fix_K or priors.T_world_camera is not None:
        return None
    is_one = clip.mapping.is_mixed or np.ptp(K, axis=0).max() == 0
    return K if is_one and bool(np.isfinite(K).all()) and priors.depth is None else None


def with_stated_focal(priors: Priors, clip: Clip) -> Priors:
    """The priors with the focal length that the file states, unless they have one."""
    if priors.K is not None or clip.focal_px is None:
        return priors
    h, w = clip.size_hw
    K = np.tile(np.array([[1.0, 0, w / 2], [0, 1.0, h / 2], [0, 0, 1.0]]), (len(clip), 1, 1))
    K[:, [0, 1], [0, 1]] = np.broadcast_to(clip.focal_px, len(clip))[:, None]
    return replace(priors, K=K, fix_K=True, focal_sigma=clip.focal_sigma)
