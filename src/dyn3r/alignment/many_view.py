"""Many-view geometry source: depth and cameras of all frames without pairs (Depth Anything 3).

The network sees windows of frames. Their worlds are joined by the points of shared frames
(`dyn3r.alignment.view_windows`), and registered to known cameras and depth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float

from dyn3r.alignment.clip_windows import kept_frames
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.alignment.view_uncertainty import (
    camera_sigma,
    camera_terms,
    depth_sigma,
    neighbour_agreement,
    shared_intrinsics,
)
from dyn3r.alignment.view_windows import (
    PlacedViews,
    join_windows,
    view_windows,
)
from dyn3r.geometry.registration import Similarity, rotation_and_scale
from dyn3r.network.many_view.backbone import Encoded
from dyn3r.network.many_view.gram_statistics import GramMaps
from dyn3r.network.model import Model
from dyn3r.network.predict_views import (
    GivenCameras,
    ViewPrediction,
    predict_views,
)
from dyn3r.types import Clip, Diagnostics, Geometry, Priors, Progress, no_progress

logger = logging.getLogger(__name__)


def many_view_geometry(
    model: Model,
    clip: Clip,
    *,
    priors: Priors | None = None,
    options: AlignmentOptions | None = None,
    dynamic: Bool[np.ndarray, "n h w"] | None = None,
    attention: bool = False,
    kept: KeptStates | None = None,
    progress: Progress = no_progress,
) -> tuple[Geometry, GramMaps | None]:
    """Cameras and depth of all frames from a many-view network; statistics of its attention.

    `options.window` frames are seen at once, which bounds time and memory, and windows share
    `options.overlap` of them. Cameras that `priors` know for every frame are given to the network.
    Known cameras, intrinsics and depth are put in exactly; the rest is registered to them. Without
    known cameras the first camera is the world. The focal length is the median over the frames
    (`options.shared_focal`). Its standard error is `focal_sigma`, that of log depth `depth_sigma`.
    `dynamic`, `attention`: see `predict_views`. `kept`: filled by the first pass over a clip, and
    spares a second one with the same priors the image encoder.

    Raises GeometryError for network output that is not finite.
    """
    priors, options = priors or Priors(), options or AlignmentOptions()
    predict = partial(predict_views, model, attention=attention)
    views, statistics = placed_views(
        predict, clip, priors, options, dynamic, kept or KeptStates(0), progress
    )
    views = registered(from_first_camera(views), priors)
    K, focal_sigma, notes = shared_intrinsics(views, priors, shared=options.shared_focal)
    agreement, apart = neighbour_agreement(views, K)
    for note in notes:
        logger.info(note)
    geometry = Geometry(
        T_world_camera=views.T_world_camera,
        K=K,
        depth=views.depth,
        sigma_log_depth=np.broadcast_to(apart[:, None, None], views.depth.shape).copy(),
        valid=np.ones(views.depth.shape, bool),
        confidence=views.confidence,
        frame_quality=agreement,
        determined=np.ones(len(clip), bool),
        focal_sigma=focal_sigma,
        depth_sigma=depth_sigma(apart),
        camera_sigma=camera_sigma(views),
        diagnostics=Diagnostics(notes=notes, terms=camera_terms(views)),
    )
    return geometry, statistics


@dataclass
class KeptStates:
    """States of the windows of a clip after the image encoder, for a second pass."""

    most_bytes: int = 1 << 30
    """Further states are not kept; their windows are encoded again."""
    by_window: dict[int, Encoded] = field(default_factory=dict)

    def keep(self, window: int, state: Encoded | None) -> None:
        """Keep the state of a window, if there is room."""
        if state is None or window in self.by_window:
            return
        if state.nbytes + sum(s.nbytes for s in self.by_window.values()) <= self.most_bytes:
            self.by_window[window] = state


def with_cameras_of(
    geometry: Geometry, static: Geometry, dynamic: Bool[np.ndarray, "n h w"]
) -> Geometry:
    """The geometry with the cameras of another pass over the same frames, in its unit of length.

    Source: VGGT4D takes cameras alone from the pass without dynamic tokens. The ratio of the units
    is the median ratio of depth on static pixels.
    """
    at = ~dynamic if not dynamic.all() else np.ones_like(dynamic)
    T = static.T_world_camera.copy()
    T[:, :3, 3] *= float(np.median(geometry.depth[at] / static.depth[at]))
    return replace(geometry, T_world_camera=T)


def placed_views(
    predict: Callable[..., ViewPrediction],
    clip: Clip,
    priors: Priors,
    options: AlignmentOptions,
    dynamic: Bool[np.ndarray, "n h w"] | None,
    kept: KeptStates,
    progress: Progress,
) -> tuple[PlacedViews, GramMaps | None]:
    """All frames in the world of the first window, or in that of the known cameras."""
    n = len(clip)
    windows = view_windows(n, options.window, options.overlap)
    given = given_cameras(priors)
    parts: list[PlacedViews] = []
    statistics: list[GramMaps] = []
    before: PlacedViews | None = None
    for number, ((first, end), own) in enumerate(zip(windows, kept_frames(windows, n))):
        rows = slice(first, end)
        seen = predict(
            clip.images[rows],
            given=None if given is None else given[rows],
            dynamic=None if dynamic is None else dynamic[rows],
            encoded=kept.by_window.get(number),
            progress=partial(_part_of, progress, number, len(windows)),
        )  # fmt: skip
        kept.keep(number, seen.encoded)
        views = PlacedViews.of(seen)
        if given is not None:
            views = registered(views, _of_frames(priors, rows))
        elif before is not None:
            shared = windows[number - 1][1] - first
            views = views.moved(join_windows(before[slice(-shared, None)], views[slice(0, shared)]))
        mine = slice(own[0] - first, own[1] - first)
        parts.append(views[mine])
        if seen.attention is not None:
            statistics.append(seen.attention[mine])
        before = views
    return PlacedViews.join(parts), GramMaps.join(statistics) if statistics else None


def from_first_camera(views: PlacedViews) -> PlacedViews:
    """The views in the world of the first camera."""
    first = torch.from_numpy(views.T_world_camera[0])
    R = first[:3, :3].T
    views = views.moved(Similarity(torch.ones((), dtype=torch.float64), R, -R @ first[:3, 3]))
    views.T_world_camera[0] = np.eye(4)  # exactly
    return views


def given_cameras(priors: Priors) -> GivenCameras | None:
    """Cameras and intrinsics, if they are known for every frame."""
    T, K = priors.T_world_camera, priors.K
    if T is None or K is None or not (np.isfinite(T).all() and np.isfinite(K).all()):
        return None
    return GivenCameras(np.asarray(T, np.float64), np.asarray(K, np.float64))


def registered(views: PlacedViews, priors: Priors) -> PlacedViews:
    """The views in the world of known cameras and depth, with these put in.

    Rotation: mean of the differences to the known cameras. Scale: from fixed depth, else from the
    baselines of the known cameras, else from depth that is an initial value.
    """
    scale = _depth_ratio(views.depth, priors.depth)
    T_known = priors.T_world_camera
    cameras = np.zeros(len(views.depth), bool)
    if T_known is not None:
        cameras = np.isfinite(T_known).all((1, 2))
    if T_known is not None and cameras.any():
        now, target = (
            torch.from_numpy(np.asarray(T[cameras], np.float64))
            for T in (views.T_world_camera, T_known)
        )
        R, by_baselines = rotation_and_scale(now, target)
        if scale is None or (by_baselines is not None and not priors.fix_depth):
            scale = by_baselines
        scale = 1.0 if scale is None else scale
        shift = target[:, :3, 3].mean(0) - scale * R @ now[:, :3, 3].mean(0)
        views = views.moved(Similarity(torch.tensor(scale, dtype=torch.float64), R, shift))
        T = views.T_world_camera.copy()
        T[cameras] = T_known[cameras]
        views = replace(views, T_world_camera=T)
    elif scale is not None:
        eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        views = views.moved(Similarity(torch.tensor(scale, dtype=torch.float64), eye, zero))
    if priors.depth is not None:
        known = np.isfinite(priors.depth) & (priors.depth > 0)
        views = replace(views, depth=np.where(known, priors.depth, views.depth).astype(np.float32))
    return views


def _depth_ratio(depth: Float[np.ndarray, "n h w"], known: np.ndarray | None) -> float | None:
    """Median ratio of known depth to depth; None if no depth is known."""
    if known is None:
        return None
    at = np.isfinite(known) & (known > 0)
    return float(np.median(known[at] / depth[at])) if at.any() else None


def _of_frames(priors: Priors, rows: slice) -> Priors:
    """The priors of some frames."""
    names = ("K", "T_world_camera", "depth")
    parts = {name: getattr(priors, name) for name in names}
    return replace(priors, **{name: v[rows] for name, v in parts.items() if v is not None})


def _part_of(progress: Progress, part: int, parts: int, stage: str, done: int, total: int) -> None:
    """Report progress of one of several equal parts."""
    progress(stage, part * total + done, parts * total)
