"""Header of the native file of a scene, `scene.json` (docs/scene-format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from dyn3r.geometry.lens import MAX_ZOOM
from dyn3r.io.numbers import FOCAL_PX
from dyn3r.types import FrameMapping, Lens

Size = tuple[int, int]
Fields = Mapping[str, Any]
"""The fields of a Scene by name."""

FORMAT = "dyn3r scene"
VERSION = 3
"""1: `uncertainty` in place of `sigma_log_depth`, no `up_world`; still read, without those. 2: the
same without `mapping.frames`; written where images have one size."""
MAX_SOURCE_PIXELS = 1 << 28
"""Most pixels of a source image; exports at source resolution allocate that many."""
MAX_COEFFICIENTS = 8
"""Most coefficients of one kind of a lens."""
MAPS = ("depth", "confidence", "sigma_log_depth", "dynamic_map")
PROBABILITY = "dynamic_probability"
"""A map of 8 bits, beside those of `MAPS`."""


def make_header(fields: Fields, precision: str) -> dict[str, Any]:
    """Header of the fields of a Scene; exponents are added while maps are written."""
    mapping, grid, quality = fields["mapping"], fields["dynamic_map"], fields["frame_quality"]
    up = fields["up_world"]
    return {
        "format": FORMAT,
        "version": VERSION if mapping.is_mixed else 2,
        "frames": len(fields["images"]),
        "size_hw": [int(x) for x in fields["images"].shape[1:3]],
        "precision": precision,
        "maps": maps_of(fields),
        **({PROBABILITY: True} if fields[PROBABILITY] is not None else {}),
        "grid_hw": None if grid is None else list(grid.shape[1:]),
        "mapping": _mapping_header(mapping),
        "fps": fields["fps"],
        "names": list(fields["names"]),
        "times_s": fields["times_s"].tolist(),
        "K": fields["K"].tolist(),
        "T_world_camera": fields["T_world_camera"].tolist(),
        "frame_quality": None if quality is None else quality.tolist(),
        "up_world": None if up is None else up.tolist(),
        "ground_height": fields["ground_height"],
        "metadata": fields["metadata"],
    }


def _mapping_header(mapping: FrameMapping) -> dict[str, Any]:
    """A mapping without what is at its default; those of frames have no `frames` of their own."""
    optional: dict[str, Any] = {
        "lens": None if mapping.lens is None else asdict(mapping.lens),
        "frame_lenses": [asdict(lens) for lens in mapping.frame_lenses],
        "one_field": mapping.one_field,
        "pixel_aspect": None if mapping.pixel_aspect == 1 else mapping.pixel_aspect,
        "frames": [_mapping_header(frame) for frame in mapping.frame_mappings],
    }
    return {
        "source_hw": [int(x) for x in mapping.source_hw],
        "resized_hw": [int(x) for x in mapping.resized_hw],
        "crop_xy": [int(x) for x in mapping.crop_xy],
        **{name: value for name, value in optional.items() if value},
    }


def maps_of(fields: Fields) -> list[str]:
    """Names of the maps that a Scene has."""
    return [name for name in MAPS if fields[name] is not None]


def parse_header(
    header: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Size], dict[str, list[int]]]:
    """Fields of the Scene except images, size of every map, and exponents ({}: full precision).

    Raises KeyError, TypeError, ValueError or OverflowError for a header that is not valid.
    """
    n = _whole(header["frames"], 1, 10**6)
    h, w = _pair(header["size_hw"], 1)
    maps = [name for name in MAPS if name in header["maps"]]
    if not {"depth", "confidence"} <= set(maps):
        raise ValueError("depth or confidence is not among the maps")
    half = {"half": True, "full": False}[header["precision"]]
    sizes = {
        name: _pair(header["grid_hw"], 1) if name == "dynamic_map" else (h, w) for name in maps
    }
    exponents = {}
    if half:
        for name in maps:
            listed = _list(header["exponents"][name], n)
            exponents[name] = [_whole(e, -1100, 1100) for e in listed]
    fields: dict[str, Any] = {
        key: np.asarray(header[key], dtype=np.float64)
        for key in ("times_s", "K", "T_world_camera", "frame_quality", "up_world")
        if header.get(key) is not None
    }
    fields["names"] = tuple(_list(header["names"], n))
    fields["fps"] = float(header["fps"])
    if header.get("ground_height") is not None:
        fields["ground_height"] = float(header["ground_height"])
    if not isinstance(header["metadata"], dict):
        raise ValueError("metadata is no dictionary")
    fields["metadata"] = header["metadata"]
    mapping, every = _mapping(header["mapping"], (h, w), n), header["mapping"].get("frames")
    if every is not None:
        frames = tuple(_mapping(frame, (h, w), 0) for frame in _list(every, n))
        mapping = replace(mapping, frame_mappings=frames)
    fields["mapping"] = mapping
    if not {"times_s", "K", "T_world_camera"} <= set(fields):
        raise ValueError("times or cameras are missing")
    return fields, sizes, exponents


def _mapping(value: Any, size_hw: Size, n: int) -> FrameMapping:
    """The mapping of all frames, or of one, which has no lenses of n frames."""
    source_hw = _pair(value["source_hw"], 1)
    if source_hw[0] * source_hw[1] > MAX_SOURCE_PIXELS:
        raise ValueError(f"source images of {source_hw[1]}x{source_hw[0]} pixels")
    lenses = _list(value["frame_lenses"], n) if "frame_lenses" in value else []
    return FrameMapping(
        source_hw=source_hw,
        resized_hw=_pair(value["resized_hw"], 1),
        crop_xy=_pair(value["crop_xy"], -(2**16)),
        size_hw=size_hw,
        lens=_lens(value["lens"]) if value.get("lens") is not None else None,
        frame_lenses=tuple(map(_lens, lenses)),
        one_field={True: True, False: False}[value.get("one_field", False)],
        pixel_aspect=_pixel_aspect(value.get("pixel_aspect", 1.0)),
    )


def _lens(value: Any) -> Lens:
    """The lens of a mapping."""

    def number(item: Any) -> float:
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            raise ValueError("a lens must have numbers")
        if not abs(item) <= FOCAL_PX[1]:
            raise ValueError("a number of the lens is out of all range")
        return float(item)

    def numbers(key: str) -> tuple[float, ...]:
        listed = value[key]
        if not isinstance(listed, list) or len(listed) > MAX_COEFFICIENTS:
            raise ValueError(f"{key} of the lens is no short list")
        return tuple(map(number, listed))

    focal, centre, tangential = (numbers(key) for key in ("focal_xy", "centre_xy", "tangential"))
    if not len(focal) == len(centre) == len(tangential) == 2 or min(focal) < FOCAL_PX[0]:
        raise ValueError("the lens has no focal lengths")
    if not 1 <= number(value["zoom"]) <= MAX_ZOOM:
        raise ValueError("the zoom of the lens is out of range")
    return Lens(
        {"perspective": "perspective", "fisheye": "fisheye"}[value["model"]],  # type: ignore[arg-type]
        (focal[0], focal[1]), (centre[0], centre[1]), numbers("radial"), numbers("denominator"),
        (tangential[0], tangential[1]), number(value["zoom"]),
    )  # fmt: skip


def _pixel_aspect(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.1 <= value <= 10:
        raise ValueError("the aspect of the pixels is out of range")
    return float(value)


def _pair(value: Any, low: int) -> Size:
    first, second = _list(value, 2)
    return _whole(first, low, 2**16), _whole(second, low, 2**16)


def _whole(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]} is no whole number in {low}..{high}")
    return value


def _list(value: Any, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise ValueError(f"a list of {length} was expected")
    return value
