"""Inference of the many-view network on frames of a clip: depth and cameras at the frames' size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dyn3r.errors import GeometryError, InputError
from dyn3r.network.many_view.backbone import Encoded, Masking
from dyn3r.network.many_view.dual_dpt import ViewMaps
from dyn3r.network.many_view.gram_statistics import GramMaps, gram_maps, readout_for
from dyn3r.network.many_view.ray_cameras import camera_disagreement, cameras_from_rays
from dyn3r.network.many_view.reference_view import ReferenceChoice
from dyn3r.network.many_view.view_cameras import (
    decode_cameras,
    encode_cameras,
    normalise_cameras,
)
from dyn3r.network.many_view.view_config import VIEW_PATCH
from dyn3r.network.many_view.view_images import normalised, prepare_views
from dyn3r.network.model import Model
from dyn3r.types import Progress, no_progress

STAGE = "predicting views"
"""Name of the stage in progress reports."""
VIDEO_REFERENCE: ReferenceChoice = "middle"
"""Reference view of consecutive frames. Source: the advice of the network's authors."""
LEAST_DEPTH = 1e-6
"""Depth in the network's unit to which smaller ones are raised: it must be above 0."""
VIEWS_AT_ONCE = {"cpu": 4, "cuda": 16}
"""Views that pass through the head together. Source: memory, about 100 MB each with F = 64."""


@dataclass(frozen=True)
class ViewPrediction:
    """What the network says about the frames of one call, in one world of arbitrary scale."""

    T_world_camera: Float[np.ndarray, "s 4 4"]
    """Camera to world, float64; near the identity for the reference view."""
    focal_xy: Float[np.ndarray, "s 2"]
    """Focal lengths in pixels of the frames along x and y."""
    depth: Float[np.ndarray, "s h w"]
    """z in the camera, above 0, float32."""
    confidence: Float[np.ndarray, "s h w"]
    """Confidence of the depth, above 1, float32."""
    disagreement: Float[np.ndarray, "s 3"]
    """How far the cameras that follow from the rays differ from these: degrees, |log| focal length,
    centre in median depths of the frame."""
    attention: GramMaps | None = None
    """Statistics of the attention, if they were asked for."""
    encoded: Encoded | None = None
    """State from which a second pass over the same frames may start."""


@dataclass(frozen=True)
class GivenCameras:
    """Known cameras of all frames of a call; they are input of the network."""

    T_world_camera: Float[np.ndarray, "s 4 4"]
    """Camera to world."""
    K: Float[np.ndarray, "s 3 3"]
    """Intrinsics in pixels of the frames."""

    def __getitem__(self, rows: slice) -> GivenCameras:
        """Some of the frames."""
        return GivenCameras(self.T_world_camera[rows], self.K[rows])


def predict_views(
    model: Model,
    images: UInt8[np.ndarray, "s h w 3"],
    *,
    given: GivenCameras | None = None,
    dynamic: Bool[np.ndarray, "s h w"] | None = None,
    attention: bool = False,
    reference: ReferenceChoice = VIDEO_REFERENCE,
    encoded: Encoded | None = None,
    progress: Progress = no_progress,
) -> ViewPrediction:
    """Run the network once on all frames.

    The frames are resized to the largest multiple of 14 that is not above their longer side;
    depth and focal lengths are those of the frames as they were given. given: see `GivenCameras`;
    the cameras that are returned are still predictions. dynamic: patches with a dynamic pixel are
    left out of keys and values in the first blocks after the image encoder, up to the first that
    sees other views (early masking of VGGT4D, arXiv 2511.19971). attention: whether its statistics
    are computed. encoded: of an earlier call for the same frames and cameras; the image encoder is
    then not run again.

    Raises InputError for frames below one patch, GeometryError for output that is not finite.
    """
    network, size_hw = model.many_view, (int(images.shape[1]), int(images.shape[2]))
    if min(size_hw) < VIEW_PATCH:
        raise InputError(f"frames of {size_hw[1]}x{size_hw[0]} pixels are too small")
    views = prepare_views(list(images), max(size_hw) // VIEW_PATCH * VIEW_PATCH)
    net_hw = (int(views.images.shape[1]), int(views.images.shape[2]))
    code = None if given is None else _given_code(given, size_hw).to(model.device)
    masking = None if dynamic is None else _masking(model, dynamic, net_hw)
    readout = readout_for(network.config) if attention else None
    steps = network.config.depth + 1
    with torch.inference_mode(), model.autocast():
        inputs = normalised(views.images).to(model.device)

        def after_block(block: int) -> None:
            progress(STAGE, block + 1, steps)

        if encoded is None:
            encoded = network.encode(inputs, reference, code, after_block)
        features = network.features(
            inputs, reference, code, masking=masking, readout=readout,
            after_block=after_block, encoded=encoded,
        )  # fmt: skip
        at_once = VIEWS_AT_ONCE.get(model.device.type, 4)
        maps = network.decode(features, net_hw, rays=True, views_at_once=at_once)
        T, K = decode_cameras(network.cameras(features).double().cpu(), size_hw)
        grid_hw = (net_hw[0] // VIEW_PATCH, net_hw[1] // VIEW_PATCH)
        statistics = None if readout is None else gram_maps(readout, network.config, grid_hw)
    progress(STAGE, steps, steps)
    for name, values in {"cameras": T, **vars(maps)}.items():
        if not bool(torch.isfinite(values).all()):
            raise GeometryError(f"{model.name} gives values that are not finite ({name})")
    focal_xy = K[:, [0, 1], [0, 1]]
    return ViewPrediction(
        T.numpy(),
        focal_xy.numpy(),
        _at_size(maps.depth.clamp_min(LEAST_DEPTH), size_hw),
        _at_size(maps.confidence, size_hw),
        _disagreement(maps, T, focal_xy, size_hw).numpy(),
        statistics,
        encoded,
    )


def _disagreement(
    maps: ViewMaps,
    T_world_camera: Float[Tensor, "s 4 4"],
    focal_xy: Float[Tensor, "s 2"],
    size_hw: tuple[int, int],
) -> Float[Tensor, "s 3"]:
    """How far cameras from the rays differ from decoded ones; see `ViewPrediction`."""
    assert maps.rays is not None
    assert maps.ray_confidence is not None
    T, focal = cameras_from_rays(maps.rays, maps.ray_confidence, size_hw)
    unit = maps.depth.flatten(1).median(dim=1).values.clamp_min(LEAST_DEPTH).double().cpu()
    return camera_disagreement((T, T_world_camera), (focal, focal_xy), unit)


def token_keep(
    dynamic: Bool[np.ndarray, "s h w"], grid_hw: tuple[int, int]
) -> Bool[np.ndarray, "s n"]:
    """Tokens without a dynamic pixel, the camera token (always kept) first."""
    (views, h, w), (rows, cols) = dynamic.shape, grid_hw
    keep = np.ones((views, 1 + rows * cols), bool)
    view, v, u = np.nonzero(dynamic)
    keep[view, 1 + (v * rows // h) * cols + u * cols // w] = False
    return keep


def _masking(model: Model, dynamic: Bool[np.ndarray, "s h w"], net_hw: tuple[int, int]) -> Masking:
    """Early masking: after the image encoder, up to the first block that sees other views."""
    config = model.many_view.config
    keep = token_keep(dynamic, (net_hw[0] // VIEW_PATCH, net_hw[1] // VIEW_PATCH))
    layers = tuple(range(config.alt_start, config.global_layers[0] + 1))
    return Masking(torch.from_numpy(keep).to(model.device), layers)


def _given_code(given: GivenCameras, size_hw: tuple[int, int]) -> Float[Tensor, "s 9"]:
    """Codes of known cameras. Fields of view do not change with the size of the images."""
    T = normalise_cameras(torch.from_numpy(given.T_world_camera.astype(np.float64)))
    K = torch.from_numpy(given.K.astype(np.float64))
    return encode_cameras(T, K, size_hw).float()


def _at_size(maps: Float[Tensor, "s _ _"], size_hw: tuple[int, int]) -> Float[np.ndarray, "s h w"]:
    """Maps resized bilinearly, so that pixels cover the same part of the image."""
    import cv2

    out = np.empty((len(maps), *size_hw), np.float32)
    for view, values in enumerate(maps):
        small = values.float().cpu().numpy()
        out[view] = cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return out
