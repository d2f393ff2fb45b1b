"""Lens models of nerfstudio, instant-ngp and COLMAP as `Lens`, by their names.

What is not supported is refused by name: distortion is never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from dyn3r.errors import InputError
from dyn3r.types import Lens

_PERSPECTIVE = (
    "PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV",
)  # fmt: skip
_FISHEYE = (
    "OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE",
)  # fmt: skip
LARGEST_COEFFICIENT = 1e6
"""Largest absolute coefficient of a lens model."""


def lens_of(
    model: str,
    coefficients: Mapping[str, float],
    K: Float[np.ndarray, "3 3"],
    *,
    rational: bool = False,
) -> Lens | None:
    """Distortion of a camera; None without any.

    Args:
        model: name of the model, in the words of COLMAP and nerfstudio.
        coefficients: `k` or `k1`, `k2`, ...; `p1`, `p2`.
        K: intrinsics in source pixels, integer pixel centres.
        rational: k4, k5, k6 belong to a denominator (COLMAP's FULL_OPENCV).

    Raises:
        InputError: a model that is not supported.
    """
    name = check_model(model)
    given = {key: value for key, value in coefficients.items() if value != 0}
    is_fisheye = name in _FISHEYE
    known = {"k", "k1", "k2", "k3", "k4"} | ({"k5", "k6"} if rational else set())
    known |= set() if is_fisheye else {"p1", "p2"}
    if unknown := sorted(given.keys() - known):
        raise _not_supported(f"the lens model {name} with {unknown[0]}")
    if not given and not is_fisheye:
        return None
    k1, k2, k3, k4, k5, k6 = (given.get(f"k{i}", 0.0) for i in range(1, 7))
    radial = (k1 or given.get("k", 0.0), k2, k3, k4)
    return Lens(
        "fisheye" if is_fisheye else "perspective",
        focal_xy=(float(K[0, 0]), float(K[1, 1])),
        centre_xy=(float(K[0, 2]), float(K[1, 2])),
        radial=radial[:3] if rational else radial,
        denominator=(k4, k5, k6) if rational else (),
        tangential=(given.get("p1", 0.0), given.get("p2", 0.0)),
    )


def check_model(model: str) -> str:
    """Name of the model in capitals. Raises InputError unless it is supported."""
    if model.upper() not in _PERSPECTIVE + _FISHEYE:
        raise _not_supported(f"the lens model {model.upper()!r:.40}")
    return model.upper()


def _not_supported(what: str) -> InputError:
    return InputError(
        f"{what} is not supported: undistort the images first, for example with "
        "colmap image_undistorter, and take its images and cameras"
    )
