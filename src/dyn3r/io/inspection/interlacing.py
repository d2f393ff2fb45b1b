"""Interlaced frames: even and odd rows were taken at different times.

Where something moves, neighbouring rows then differ more than rows of the same field, which are
twice as far apart. In a picture it is the other way round.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

BLOCK_PX = 16
MIN_DIFFERENCE = 5.0
"""Mean difference of neighbouring rows in a combed block, in grey levels."""
RATIO = 1.25
"""Rows of different fields differ by this factor more than rows of one field."""
MIN_SHARE = 0.02
"""Share of the blocks of a frame that are combed."""
MIN_FRAMES = 0.25
"""Share of the frames that are combed: of a film at 24 frames per second that was made into
television, two of five are."""


def is_combed(grey: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether a frame at source resolution shows two moments."""
    return combed_share(grey) >= MIN_SHARE


def combed_share(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Share of the blocks in which rows of different fields contradict each other."""
    rows, columns = (side // BLOCK_PX * BLOCK_PX for side in (grey.shape[0] - 2, grey.shape[1]))
    if rows < BLOCK_PX or columns < BLOCK_PX:
        return 0.0
    here = grey[:rows, :columns]
    near, far = (cv2.absdiff(here, grey[k : rows + k, :columns]) for k in (1, 2))
    size = (columns // BLOCK_PX, rows // BLOCK_PX)
    near, far = (
        cv2.resize(difference.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for difference in (near, far)
    )
    return float(((near > MIN_DIFFERENCE) & (near > RATIO * far)).mean())


def one_field(image: Image.Image) -> Image.Image:
    """The frame at the moment of its even rows; odd rows are the mean of their neighbours."""
    rows = np.asarray(image).astype(np.uint16)
    even = rows[::2]
    below = np.concatenate([even[1:], even[-1:]])[: len(rows) // 2]
    rows[1::2] = (even[: len(below)] + below + 1) // 2
    return Image.fromarray(rows.astype(np.uint8))
