"""Motion masks from files, matched with the frames of a clip and brought to their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from dyn3r.errors import InputError
from dyn3r.io.archives import open_arrays
from dyn3r.io.arguments import checked_path
from dyn3r.io.images import IMAGE_SUFFIXES, natural_key, open_image, resize_nearest, visible_files
from dyn3r.io.matching import Rows, match_rows
from dyn3r.types import Clip, FrameMapping

# Lossy formats blur masks, so they are not mask files.
_MASK_SUFFIXES = IMAGE_SUFFIXES - {".jpg", ".jpeg"}


def read_masks(path: str | Path, clip: Clip) -> Bool[np.ndarray, "n h w"]:
    """Read motion masks for the frames of `clip`; True on dynamic pixels.

    Masks are matched by name with the frames (`dog_07.png` with `dog_07.jpg`); or, if there are as
    many masks as frames, by their order; or by the number at the end of their names (mask `00012`
    for `frame_000012`). Any value above 0 counts as dynamic, as in the DAVIS label images.

    Args:
        path: a folder of PNGs (or other lossless images), or an `.npz` with one array
            (k, H, W) under `mask`, `masks` or `dynamic`; at source resolution or already at the
            size of the prepared frames.
        clip: the frames they belong to.

    Raises:
        InputError: nothing there, sizes that don't fit, or masks that can't be matched.
    """
    source = checked_path(path, "the masks")
    if source.is_dir():
        files = sorted(
            (f for f in visible_files(source) if f.suffix.lower() in _MASK_SUFFIXES),
            key=natural_key,
        )
        if not files:
            raise InputError(f"{source} has no mask images (PNG) in it")
        picks = match_frames([f.stem for f in files], clip.names, source)
        return np.stack(
            [_onto_frames(_mask_values(files[k]), clip.mapping, files[k]) for k in picks]
        )
    if source.suffix.lower() == ".npz":
        masks = _masks_of_npz(source)
        picks = match_frames([str(k) for k in range(len(masks))], clip.names, source)
        return _onto_frames(masks[picks] > 0, clip.mapping, source)
    raise InputError(f"{source} is neither a folder of masks nor an .npz file")


def match_frames(stems: Sequence[str], names: Sequence[str], source: Path) -> list[int]:
    """Index of the file or array row of each frame of a clip, as `match_rows` finds it.

    Raises:
        InputError: a frame has none, or there are two ways to match that differ.
    """
    match = match_rows(Rows(len(stems), stems), names, None, source, every_frame=True)
    return [row for row in match.rows if row is not None]


def _mask_values(file: Path) -> Bool[np.ndarray, "H W"]:
    image = open_image(file)
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    values = np.asarray(image) > 0  # palette images: the label, not the colour
    return np.any(values, axis=2) if values.ndim == 3 else values


def _masks_of_npz(source: Path) -> Shaped[np.ndarray, "k H W"]:
    with open_arrays(source) as arrays:
        known = [k for k in ("mask", "masks", "dynamic") if k in arrays]
        keys = known[:1] or (arrays.names if len(arrays.names) == 1 else [])
        if not keys:
            raise InputError(f"{source} needs an array named 'mask' of shape (frames, H, W)")
        header = arrays.header(keys[0])
        if len(header.shape) != 3 or 0 in header.shape or header.dtype.kind not in "buif":
            raise InputError(
                f"the masks in {source} must be numbers of shape (frames, H, W), not "
                f"{header.dtype} {header.shape}"
            )
        return arrays.read(keys[0])


def _onto_frames(masks: np.ndarray, mapping: FrameMapping, source: Path) -> np.ndarray:
    hw = masks.shape[-2:]
    if hw == mapping.source_hw:
        return resize_nearest(masks, mapping)
    if hw == mapping.size_hw:
        return masks
    (source_h, source_w), (height, width) = mapping.source_hw, mapping.size_hw
    raise InputError(
        f"{source}: a mask of {hw[1]}x{hw[0]} pixels fits neither the source "
        f"({source_w}x{source_h}) nor the prepared frames ({width}x{height})"
    )
