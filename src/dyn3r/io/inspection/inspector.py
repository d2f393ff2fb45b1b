"""All checks of the frames of a clip, on small grey copies that are kept while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress, pairwise

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from dyn3r.geometry.keypoints import find_keypoints
from dyn3r.io.inspection.cuts import MAX_NAMED, find_cuts
from dyn3r.io.inspection.interlacing import MIN_FRAMES, is_combed
from dyn3r.io.inspection.neighbours import MAX_FEATURES, compare
from dyn3r.io.inspection.overlays import find_overlays
from dyn3r.io.inspection.texture import has_texture, is_found_again
from dyn3r.types import Clip, FrameMapping
from dyn3r.types.input_report import InputNote

LONG_SIDE_PX = 320
"""Frames are looked at with this long side, or that of the source, so that `--size` changes little
in what is found."""


MANY_REPEATED = 0.1
"""Repeated frames of this share are a warning: the frame rate is not that of the camera."""
ALL_FIELDS, SOME_FIELDS = 32, 8
"""Interlacing is looked for in so many frames at the beginning, then in every so many."""


class Inspector:
    """Collects the frames of a clip while they are read, and judges them."""

    def __init__(self, mapping: FrameMapping) -> None:
        """Frames of this mapping; only what lies within their crops is looked at."""
        size = np.array(mapping.size_hw[::-1]) / _scale(mapping.of_frame(0))
        shrink = min(1.0, LONG_SIDE_PX / size.max())
        self._mapping = mapping
        self._size = tuple(np.maximum(np.rint(size * shrink), 1).astype(int).tolist())
        self._greys: list[np.ndarray] = []
        self._combed: list[bool] = []

    @property
    def interlaced(self) -> bool:
        """Whether the frames so far show two moments each."""
        return bool(np.mean(self._combed) >= MIN_FRAMES)

    def add(self, image: Image.Image) -> None:
        """Look at a source image (RGB)."""
        if len(self._greys) < ALL_FIELDS or len(self._greys) % SOME_FIELDS == 0:
            self._combed.append(is_combed(np.asarray(image.convert("L"))))
        self._greys.append(self.small(image))

    def small(self, image: Image.Image) -> UInt8[np.ndarray, "h w"]:
        """The part of a source image that is looked at, small and grey."""
        mapping = self._mapping.of_frame(len(self._greys))
        scale, crop = _scale(mapping), np.array(mapping.crop_xy)
        corners = crop / scale, (crop + mapping.size_hw[::-1]) / scale
        box = tuple(np.clip(corners, 0, mapping.source_hw[::-1]).ravel().tolist())
        part = image.resize(self._size, Image.Resampling.BOX, box, reducing_gap=2.0)
        return np.asarray(part.convert("L"))

    def inspected(self, clip: Clip) -> Clip:
        """The clip with what was found in its frames, and notes on it."""
        greys = np.stack(self._greys)
        unusable = without_texture(greys)
        if unusable.all():
            text = "no frame has enough texture for motion and depth to be measured"
            return _noted(clip, [InputNote("frames", text, warning=True)])
        index = np.flatnonzero(~unusable)
        repeated = index[1:][(np.diff(greys[index].astype(np.int16), axis=0) == 0).all((1, 2))]
        features = [find_keypoints(grey, MAX_FEATURES) for grey in greys[index]]
        neighbours = [compare(*pair) for pair in pairwise(features)]
        cuts, alone = find_cuts(features, neighbours)
        notes = [texture_note(clip.names, unusable)] if unusable.any() else []
        notes += [_repeated(clip.names, repeated, len(index))] if len(repeated) else []
        if alone.any():
            notes.append(alone_note([clip.names[k] for k in index[alone]]))
        if sum(compared.differ for compared in neighbours) and not cuts and not alone.any():
            notes.append(far_apart_note(sum(compared.differ for compared in neighbours)))
        notes += [_cut(clip, index[list(cuts)])] if cuts else []
        unusable[index[alone]] = True
        if alone.any():  # the matches of such a frame are wrong, so its neighbours are compared
            neighbours = [compare(*pair) for pair in pairwise(compress(features, ~alone))]
        at_rest = not cuts and not clip.mapping.is_mixed
        overlay = find_overlays(greys[index[~alone]], neighbours) if at_rest else None
        notes += [] if overlay is None else [_overlaid(overlay, clip.mapping)]
        return replace(
            _noted(clip, notes),
            unusable=unusable if unusable.any() else None,
            overlay=None if overlay is None else _resized(overlay, clip.size_hw),
            cuts=tuple(int(index[k]) for k in cuts),
        )


def without_texture(greys: UInt8[np.ndarray, "n h w"]) -> Bool[np.ndarray, " n"]:
    """Frames without texture: nor faint texture that the frame before or after shows as well."""
    out = np.array([not has_texture(grey) for grey in greys], bool)
    for t in np.flatnonzero(out).tolist():
        near = [k for k in (t - 1, t + 1) if 0 <= k < len(greys)]
        out[t] = not any(is_found_again(greys[t], greys[k]) for k in near)
    return out


def _scale(mapping: FrameMapping) -> Float[np.ndarray, "2"]:
    return np.array(mapping.scale_xy)


def _noted(clip: Clip, notes: Sequence[InputNote]) -> Clip:
    return replace(clip, report=clip.report.adding(*notes))


def frame_has_texture(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether a frame has texture, as an `Inspector` judges it."""
    return has_texture(small_grey(image))


def small_grey(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "a b"]:
    """A frame as an `Inspector` looks at it."""
    h, w = image.shape[:2]
    mapping = FrameMapping((h, w), (h, w), (0, 0), (h, w))
    return Inspector(mapping).small(Image.fromarray(image))


def texture_note(names: Sequence[str], unusable: Bool[np.ndarray, " n"]) -> InputNote:
    """The note on frames without texture."""
    chosen = np.flatnonzero(unusable)
    return InputNote(
        "frames",
        f"{len(chosen)} of {len(names)} have no texture ({listed(names, chosen)}): no depth and no "
        "points there, and cameras between those of the other frames",
    )


def _repeated(names: Sequence[str], chosen: np.ndarray, frames: int) -> InputNote:
    if len(chosen) == frames - 1:
        return InputNote("frames", "all frames are the same picture", warning=True)
    text = f"{len(chosen)} are the frame before once more ({listed(names, chosen)})"
    return InputNote("frames", text, warning=len(chosen) >= MANY_REPEATED * frames)


def alone_note(names: Sequence[str]) -> InputNote:
    """The note on frames of another place among others."""
    named = listed(names, np.arange(len(names)))
    return InputNote(
        "frames",
        f"{len(names)} show another place than the frames around them ({named}): "
        "left out as frames without texture are",
        warning=True,
    )


def far_apart_note(count: int) -> InputNote:
    """The note on neighbouring frames that are too far apart."""
    return InputNote(
        "frames",
        f"{count} neighbouring frames have too little in common: take frames that are nearer in "
        "time",
        warning=True,
    )


def _cut(clip: Clip, cuts: np.ndarray) -> InputNote:
    named = [f"{clip.names[k]} ({clip.times_s[k]:.3g} s)" for k in cuts[:MAX_NAMED]]
    more = ["..."] if len(cuts) > MAX_NAMED else []
    return InputNote("cuts", f"{len(cuts)}, before {', '.join(named + more)}", warning=True)


def _overlaid(overlay: Bool[np.ndarray, "h w"], mapping: FrameMapping) -> InputNote:
    """Overlays with their boxes in pixels of the source."""
    count, _, boxes, _ = cv2.connectedComponentsWithStats(overlay.astype(np.uint8))
    size, scale = np.array(mapping.size_hw[::-1]), np.array(mapping.scale_xy)
    per_pixel = size / scale / overlay.shape[::-1]
    texts = []
    for left, top, width, height, _ in boxes[1:4]:
        x, y = np.rint(np.array(mapping.crop_xy) / scale + per_pixel * (left, top)).astype(int)
        w, h = np.rint(per_pixel * (width, height)).astype(int)
        texts.append(f"{w}x{h} at ({x}, {y})")
    more = ["..."] if count > 4 else []
    return InputNote(
        "overlays",
        f"{count - 1} that stay put, {overlay.mean():.1%} of the picture "
        f"({', '.join(texts + more)} in pixels of the source): left out of motion and geometry, "
        "no points there",
    )


def listed(names: Sequence[str], chosen: np.ndarray) -> str:
    """Frames by their names: all if they are few, else the first and the last."""
    if len(chosen) <= 3:
        return ", ".join(names[k] for k in chosen)
    return f"{names[chosen[0]]} to {names[chosen[-1]]}"


def _resized(mask: Bool[np.ndarray, "a b"], size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask at another size; every pixel that it touches."""
    grown: UInt8[np.ndarray, "h w"] = cv2.resize(
        mask.astype(np.uint8) * 255, size_hw[::-1], interpolation=cv2.INTER_LINEAR
    )
    return grown > 64
