"""Image files: RGB, masks, 16-bit depth, OpenEXR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16
from PIL import Image


def write_rgb(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write RGB as .png, or as .jpg of quality 95 without chroma subsampling."""
    if path.suffix == ".jpg":
        Image.fromarray(image).save(path, format="JPEG", quality=95, subsampling=0)
    else:
        Image.fromarray(image).save(path, format="PNG", compress_level=3)


def write_mask(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write an 8-bit grey PNG: 255 where True, 0 elsewhere."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, format="PNG")


def write_uint16(path: Path, values: UInt16[np.ndarray, "h w"]) -> None:
    """Write a 16-bit grey PNG."""
    Image.fromarray(values).save(path, format="PNG", compress_level=3)


def write_exr(path: Path, values: Float32[np.ndarray, "h w"]) -> None:
    """Write OpenEXR with one 32-bit channel Y (zip compression, lossless)."""
    from fractions import Fraction

    import av

    encoder = av.CodecContext.create("exr", "w")
    encoder.height, encoder.width = values.shape
    encoder.pix_fmt = "grayf32le"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"compression": "zip16", "format": "float"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values, "<f4"), format="grayf32le")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))
