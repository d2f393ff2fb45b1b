"""Pictures that are bytes within a larger file."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.io.images import BROKEN, first_line


def decode_rgb(
    data: bytes, where: str, size_hw: tuple[int, int] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of a JPEG or PNG.

    Args:
        data: the encoded picture.
        where: its file and frame, for messages.
        size_hw: height and width that the file announces; checked before decoding.

    Raises:
        InputError: damaged, of another format or size, or larger than Pillow's limit.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if size_hw is not None and (image.height, image.width) != size_hw:
                raise InputError(
                    f"{where}: the picture is {image.width}x{image.height}, "
                    f"expected {size_hw[1]}x{size_hw[0]}"
                )
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InputError(f"{where}: too many pixels to be read safely") from error
    except Image.UnidentifiedImageError as error:  # its message names an object in memory
        raise InputError(f"{where}: expected a JPEG or PNG of {len(data)} bytes") from error
    except BROKEN as error:
        raise InputError(f"{where}: no readable picture: {first_line(error)}") from error
