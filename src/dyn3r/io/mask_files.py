"""Motion masks from files, matched with the frames of a clip and brought to their pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from PIL import Image

from dyn3r.errors import InputError
from dyn3r.geometry.lens import undistort
from dyn3r.io.archives import open_arrays
from dyn3r.io.arguments import checked_path
from dyn3r.io.images import IMAGE_SUFFIXES, images_in, open_image, resize_nearest
from dyn3r.io.matching import Match, Rows, match_rows
from dyn3r.io.regular_files import read_text
from dyn3r.types import Clip, FrameMapping
from dyn3r.types.input_report import InputNote

MasksMean = Literal["auto", "moving", "static"]
"""What white pixels (labels, opaque pixels) of a mask are."""

# Lossy formats blur masks, so they are not mask files.
_MASK_SUFFIXES = IMAGE_SUFFIXES - {".jpg", ".jpeg"}
_MANY = 0.5  # share of the pixels that moving objects rarely cover
_MAX_LABELS = 32  # most values, or colours, of an image of labels


class KnownMasks(NamedTuple):
    """Masks of a clip that are known."""

    clip: Clip
    """The clip; its report says how masks were matched and understood, and what they cover."""
    masks: Bool[np.ndarray, "n h w"]
    """True on dynamic pixels of the prepared frames."""


def read_masks(path: str | Path, clip: Clip, *, mean: MasksMean = "auto") -> np.ndarray:
    """The masks of `known_masks`: (n, h, w), True on dynamic pixels."""
    return known_masks(path, clip, mean=mean).masks


def known_masks(path: str | Path, clip: Clip, *, mean: MasksMean = "auto") -> KnownMasks:
    """Read motion masks for the frames of `clip`.

    Masks are matched by name, number or order (`dyn3r.io.matching`). A mask is the alpha channel if
    that varies, else grey or colour. Pixels of half the full value and more count, and any value
    above 0 in images of labels (palettes, a few colours, no value of one half). Masks at source
    resolution are undistorted with the clip.

    Args:
        path: a folder of PNGs (or other lossless images), or an `.npz` with one array
            (k, H, W) under `mask`, `masks` or `dynamic`; at source resolution or already at the
            size of the prepared frames.
        clip: the frames they belong to.
        mean: what counts is `moving` (white on objects, as DAVIS has it) or `static` (black on what
            is to be left out, as COLMAP and nerfstudio have it). `auto`: static in their layouts,
            or if most pixels count, also at the border of the image; else moving.

    Raises:
        InputError: nothing there, sizes that don't fit, or masks that can't be matched.
    """
    source = checked_path(path, "the masks")
    if mean not in get_args(MasksMean):
        raise InputError(f"masks mean {', '.join(get_args(MasksMean))}, not {mean!r:.40}")
    names: list[str] = []
    if source.is_dir():
        files = [f for f in images_in(source) if f.suffix.lower() in _MASK_SUFFIXES]
        if not files:
            raise InputError(f"{source} has no mask images (PNG) in it")
        names = [f.name for f in files]
        match, picks = _match(Rows(len(files), names), clip, source)
        marked = _marked_in_files([files[k] for k in picks], clip.mapping)
    elif source.suffix.lower() == ".npz":
        arrays = _masks_of_npz(source)
        rows = Rows(len(arrays), [str(k) for k in range(len(arrays))])
        match, picks = _match(rows, clip, source)
        marked = _marked(_onto_frames(_levels(arrays[picks]), clip.mapping, source))
    else:
        raise InputError(f"{source} is neither a folder of masks nor an .npz file")
    is_static, reason = _is_static(marked, mean, source, names)
    masks = ~marked if is_static else marked
    note = _note(match, masks, reason, is_static=is_static, asked=mean != "auto")
    return KnownMasks(replace(clip, report=clip.report.adding(note)), masks)


def match_frames(stems: Sequence[str], names: Sequence[str], source: Path) -> list[int]:
    """Index of the file or array row of each frame of a clip, as `match_rows` finds it.

    Raises:
        InputError: a frame has none, or there are two ways to match that differ.
    """
    match = match_rows(Rows(len(stems), stems), names, None, source, every_frame=True)
    return [row for row in match.rows if row is not None]


def _match(rows: Rows, clip: Clip, source: Path) -> tuple[Match, list[int]]:
    match = match_rows(rows, clip.names, None, source, every_frame=True)
    return match, [row for row in match.rows if row is not None]


def _is_static(
    marked: Bool[np.ndarray, "n h w"], mean: MasksMean, source: Path, names: Sequence[str]
) -> tuple[bool, str]:
    """Whether marked pixels are the static ones, and why, for people."""
    if mean != "auto":
        return mean == "static", "as asked"
    if names and all(_is_colmap_name(name) for name in names):
        return True, "as COLMAP names masks"
    transforms = source.parent / "transforms.json"
    if names and transforms.is_file():
        pattern = rf'"mask_path"\s*:\s*"(\./)?{re.escape(source.name)}/'
        if re.search(pattern, read_text(transforms)):
            return True, "as transforms.json beside them says"
    border = np.concatenate([marked[:, [0, -1]].ravel(), marked[:, :, [0, -1]].ravel()])
    if marked.mean() > _MANY and border.mean() > _MANY:
        return True, f"as they are on {100 * marked.mean():.0f} % of the pixels"
    return False, ""


def _is_colmap_name(name: str) -> bool:
    """`IMAGE.jpg.png`."""
    return Path(Path(name).stem).suffix.lower() in IMAGE_SUFFIXES


def _note(
    match: Match, masks: Bool[np.ndarray, "n h w"], reason: str, *, is_static: bool, asked: bool
) -> InputNote:
    """How masks were matched and understood; a warning where a person should check it."""
    share = float(masks.mean())
    what = f"{match}; white pixels are {'static' if is_static else 'moving'}"
    what += f", {reason}" if reason else ""
    doubtful = match.is_doubtful or share == 0 or share > _MANY
    text = f"{what}; {100 * share:.1f} % of the pixels move"
    if not asked and (doubtful or reason.startswith("as they are")):
        other = "moving" if is_static else "static"
        text += f" (--known.masks-mean {other} if that is wrong)"
        doubtful = True
    return InputNote("masks", text, warning=doubtful)


def _marked_in_files(files: Sequence[Path], mapping: FrameMapping) -> Bool[np.ndarray, "n h w"]:
    """Marked pixels of images."""
    colors, alphas = [], []
    for t, file in enumerate(files):
        color, alpha = _color_and_alpha(open_image(file))
        own = mapping.of_frame(t)
        colors.append(_onto_frames(color, own, file))
        alphas.append(colors[-1] if alpha is None else _onto_frames(alpha, own, file))
    alpha = np.stack(alphas)
    varies = any(alphas[k] is not colors[k] for k in range(len(files)))
    if varies and (alpha < 0.5).any() and (alpha >= 0.5).any():
        return alpha >= 0.5
    return _marked(np.stack(colors))


def _color_and_alpha(
    image: Image.Image,
) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"] | None]:
    """Brightness, or 1 where there is a label, and opacity, all 0..1; None: no alpha."""
    alpha = None
    if image.has_transparency_data:
        alpha = _levels(np.asarray(image.convert("RGBA").getchannel("A")))
    if image.mode == "P":
        return (np.asarray(image) > 0).astype(np.float32), alpha  # the label, not the colour
    if image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    values = np.asarray(image)
    if values.ndim == 2:
        return _levels(values), alpha
    brightest = values.max(axis=2)
    is_grey = (brightest == values.min(axis=2)).all()
    if not is_grey and len(image.getcolors(1 << 24) or ()) <= _MAX_LABELS:
        return (brightest > 0).astype(np.float32), alpha
    return _levels(brightest), alpha


def _levels(values: Shaped[np.ndarray, "*k H W"]) -> Float32[np.ndarray, "*k H W"]:
    """Values as 0..1; numbers of labels stay far below 1."""
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    largest = float(np.nan_to_num(values).max(initial=0))
    is_real = values.dtype.kind == "f" and largest <= 1
    full = 1.0 if is_real else 255.0 if largest <= 255 else max(65535.0, largest)
    if values.dtype == np.uint16:
        full = 65535.0
    return np.nan_to_num(values.astype(np.float32) / np.float32(full))


def _marked(levels: Float32[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Pixels of half the full value or more; of labels, all above 0."""
    half = levels >= 0.5
    if not half.any() and len(np.unique(levels)) <= _MAX_LABELS:
        marked: np.ndarray = levels > 0
        return marked
    return half


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


def _onto_frames(
    levels: Float32[np.ndarray, "*n H W"], mapping: FrameMapping, source: Path
) -> Float32[np.ndarray, "*n h w"]:
    """Masks at source resolution resized, cropped and undistorted; those of the frames as is."""
    hw = levels.shape[-2:]
    if hw == mapping.source_hw and not mapping.is_mixed:
        resized = resize_nearest(levels, mapping)
        stack = resized.reshape(-1, *resized.shape[-2:])
        return undistort(stack, mapping, nearest=True).reshape(resized.shape)
    if hw == mapping.size_hw:
        return levels
    (source_h, source_w), (height, width) = mapping.source_hw, mapping.size_hw
    sizes = "sizes differ" if mapping.is_mixed else f"{source_w}x{source_h}"
    raise InputError(
        f"{source}: a mask of {hw[1]}x{hw[0]} pixels fits neither the source ({sizes}) nor the "
        f"prepared frames ({width}x{height})"
    )
