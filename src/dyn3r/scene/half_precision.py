"""Maps in half precision relative to a power of two."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt16

_SUBNORMAL = np.float64(2.0**-24)


def encode_half(
    values: Float[np.ndarray, "*shape"],
) -> tuple[UInt16[np.ndarray, "*shape"], int]:
    """Bit patterns of halves, and the exponent e with value ~ half * 2^e, of values >= 0.

    e puts the largest value into [2^14, 2^15), so halves are normal (relative error <= 2^-11) down
    to 2^-28 of it. Smaller positive values stay positive. Encoding decoded values is exact.
    """
    largest = float(values.max(initial=0.0))
    if largest == 0:
        return np.zeros(values.shape, np.uint16), 0
    exponent = int(np.frexp(largest)[1]) - 15
    # Rounding may carry the largest value up to 2^15, whose own exponent is one more.
    if np.float16(np.ldexp(largest, -exponent)) == 2.0**15:
        exponent += 1
    scaled = np.ldexp(values.astype(np.float64), -exponent)
    scaled = np.where(values > 0, np.maximum(scaled, _SUBNORMAL), 0.0)
    return scaled.astype(np.float16).view(np.uint16), exponent


def decode_half(bits: UInt16[np.ndarray, "*shape"], exponent: int) -> Float32[np.ndarray, "*shape"]:
    """Values of bit patterns and exponent, the inverse of `encode_half`."""
    values = np.ldexp(bits.view(np.float16).astype(np.float64), exponent)
    return values.astype(np.float32)
