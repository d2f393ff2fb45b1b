"""Textured surfaces of a scene for the browser: what is drawn in place of points. Plain NumPy.

A surface is a binary glTF file with the image of its frame as texture. It is cut where depth jumps.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from dyn3r.io.gltf_file import GltfFile
from dyn3r.scene import Scene
from dyn3r.scene.agreement import agreement
from dyn3r.scene.background import grow
from dyn3r.scene.pictures import Limits
from dyn3r.scene.surface import MASK_MARGIN_PX, Surface, background_masks, surface
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.pixels import confidence_threshold, pixel_colors

MAX_VERTICES = 2_000_000
"""Largest number of vertices of the dynamic surfaces of all frames."""
_JPEG_QUALITY = 90
_TRIANGLE_STRIP = 5  # glTF's primitive mode
_ROUNDING = 0.1  # largest step of a coordinate, in short edges
_CLAMP, _LINEAR = 33071, 9729  # WebGL's constants


class Texture(NamedTuple):
    """Part of a picture of a frame."""

    rgb: UInt8[np.ndarray, "ph pw 3"]
    """The pixels."""
    row: int
    """Row of the frame at which it starts."""
    column: int
    """Column of the frame at which it starts."""


def static_surfaces(scene: Scene, appearance: Appearance) -> list[Surface]:
    """Surfaces of the background: those of a few frames, without pixels that others contradict."""
    if appearance.frame_alone:
        return []
    threshold = confidence_threshold(scene, appearance.drop_static, moving=False)
    chosen = [scene.select(t, min_confidence=threshold) for t in range(len(scene))]
    masks = background_masks(scene, chosen, appearance.mask_dilation + MASK_MARGIN_PX)
    found = []
    for t, mask in sorted(masks.items()):
        pixels = np.flatnonzero(mask)
        wrong = np.zeros_like(mask)
        wrong.reshape(-1)[pixels] = ~agreement(scene, t, pixels).kept
        found.append(surface(scene, t, mask & ~_opened(wrong), appearance.step_static))
    return [part for part in found if len(part.quads)]


def _opened(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mask without specks, which would be holes in a surface."""
    import cv2

    square = np.ones((3, 3), np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, square).astype(bool)


def moving_surfaces(scene: Scene, appearance: Appearance) -> list[Surface]:
    """Surfaces of the dynamic pixels of each frame; of all pixels with `frame_alone`."""
    threshold = confidence_threshold(scene, appearance.drop_moving, moving=True)
    masks = []
    for t in range(len(scene)):
        mask = scene.select(t, min_confidence=threshold)
        if not appearance.frame_alone:
            mask &= grow(scene.dynamic[t], appearance.mask_dilation)
        masks.append(mask)
    count = sum(int(mask.sum()) for mask in masks)
    step = max(appearance.step_moving, int(np.ceil(np.sqrt(count / MAX_VERTICES))))
    return [surface(scene, t, mask, step) for t, mask in enumerate(masks)]


def texture(scene: Scene, part: Surface, color: str, limits: Limits | None) -> Texture:
    """The texture of a surface; `color` is a value of `Appearance.color`."""
    h, w = scene.size_hw
    if len(part.pixels) == 0:
        return Texture(np.zeros((1, 1, 3), np.uint8), 0, 0)
    rows, columns = np.divmod(part.pixels, w)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    image = scene.images[part.frame]
    if color != "rgb":
        assert limits is not None
        pixels = np.arange(h * w)
        image = pixel_colors(scene, part.frame, pixels, color, limits).reshape(h, w, 3)
    return Texture(np.ascontiguousarray(image[top:bottom, left:right]), top, left)


def vertex_colors(
    scene: Scene, part: Surface, color: str, limits: Limits | None
) -> UInt8[np.ndarray, "k 3"]:
    """Colours of the vertices; `color` is a value of `Appearance.color`."""
    if color == "rgb":
        return part.colors
    assert limits is not None
    return pixel_colors(scene, part.frame, part.pixels, color, limits)


def glb(part: Surface, picture: Texture, origin: np.ndarray, width: int) -> bytes:
    """Binary glTF of a surface, relative to `origin`; `width`: of the frame in pixels.

    A surface without vertices becomes a file without a mesh.
    """
    gltf = GltfFile()
    if len(part.pixels) == 0:
        gltf.node("nothing")
        return gltf.to_bytes({})
    with io.BytesIO() as file:
        Image.fromarray(picture.rgb).save(file, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
        source = gltf.image(file.getvalue(), "image/jpeg")
    sampler = gltf.add("samplers", magFilter=_LINEAR, minFilter=_LINEAR, wrapS=_CLAMP, wrapT=_CLAMP)
    index = gltf.add("textures", source=source, sampler=sampler)
    material = gltf.add(
        "materials", extensions={"KHR_materials_unlit": {}}, doubleSided=True,
        pbrMetallicRoughness={"baseColorTexture": {"index": index}, "metallicFactor": 0.0},
    )  # fmt: skip
    rows, columns = np.divmod(part.pixels, width)
    ph, pw = picture.rgb.shape[:2]
    uv = np.stack([(columns - picture.column + 0.5) / pw, (rows - picture.row + 0.5) / ph], axis=-1)
    small = np.uint16 if len(part.pixels) < 65535 else np.uint32
    position, place = _positions(gltf, part, origin)
    primitive = {
        "mode": _TRIANGLE_STRIP, "material": material,
        "indices": gltf.accessor(triangle_strip(part.quads).astype(small)),
        "attributes": {
            "POSITION": position,
            "TEXCOORD_0": gltf.accessor(
                np.rint(65535 * uv).astype(np.uint16), normalized=True, vertices=True
            ),
        },
    }  # fmt: skip
    gltf.node("surface", mesh=gltf.add("meshes", primitives=[primitive]), **place)
    return gltf.to_bytes({})


def _positions(gltf: GltfFile, part: Surface, origin: np.ndarray) -> tuple[int, dict[str, Any]]:
    """Accessor of the vertices, and the transform of their node: 16 bits where these suffice."""
    points = (part.points_world - origin).astype(np.float32)
    low, span = points.min(axis=0), float(np.ptp(points, axis=0).max())
    edges = np.linalg.norm(points[part.quads[:, 0]] - points[part.quads[:, 1]], axis=-1)
    if not span / 65535 < _ROUNDING * np.percentile(edges, 5):
        return gltf.accessor(points, limits=True, vertices=True), {}
    gltf.require("KHR_mesh_quantization")
    whole = np.rint((points - low) * (65535 / span)).astype(np.uint16)
    index = gltf.accessor(whole, normalized=True, limits=True, vertices=True)
    return index, {"translation": low.tolist(), "scale": [span] * 3}


def triangle_strip(quads: Int[np.ndarray, "m 4"]) -> Int[np.ndarray, " k"]:
    """Quads in rows as one strip of triangles; degenerate triangles join the rows."""
    if len(quads) == 0:
        return np.zeros(0, np.int64)
    before = np.concatenate([quads[:1, [0, 0, 0, 0]], quads[:-1]])
    starts = (before[:, 3] != quads[:, 0]) | (before[:, 2] != quads[:, 1])
    a, b, c, d = quads.T
    rows = np.stack([before[:, 2], a, a, b, d, c], axis=-1)
    used = np.repeat(starts[:, None], 6, axis=1)
    used[:, 4:] = True
    return np.asarray(rows[used])
