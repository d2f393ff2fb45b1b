"""Frames and truth of a sequence as a protocol takes them, and what of both is missing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dyn3r.datasets.sequence import Reader, Sequence
from dyn3r.errors import InputError
from dyn3r.evaluation.protocols import Protocol, find_protocol
from dyn3r.evaluation.truth import Truth
from dyn3r.io.images import Fit, frame_mapping, prepare_image, resize_nearest
from dyn3r.types import Clip, FrameMapping

MOST_GAPS = 3
"""Gaps of a sequence that are named."""
ASPECT_TOLERANCE = 0.02
"""Relative difference of the aspect ratios of an image and its depth.

Source: that of ScanNet, whose colour has 1296x968 pixels and whose depth 640x480, is 0.004."""


def read_sequences(protocol: Protocol, root: Path, names: tuple[str, ...] = ()) -> list[Sequence]:
    """The sequences of a data set that a protocol takes, with the frames that it takes.

    `names` chooses some of them; otherwise those of the protocol that are under `root`.

    Raises:
        InputError: another data set or layout, unknown names, nothing left, no truth to compare.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the root of the data set with --root")
    reader: Reader = importlib.import_module(f"dyn3r.datasets.{protocol.dataset}").sequences
    found = {s.name: s for s in reader(root)}
    if unknown := sorted(set(names) - set(found)):
        raise InputError(f"{root} has no sequence {unknown[0]!r:.60}: it has {', '.join(found)}")
    wanted = names or protocol.sequences or tuple(found)
    chosen = [found[n] for n in wanted if n in found and n not in protocol.exclude]
    if not chosen:
        raise InputError(
            f"{root} has none of the sequences of {protocol.name}: it has {', '.join(found)}, "
            "which --sequences can choose"
        )
    _check_truth(root, chosen, protocol)
    return [_frames(sequence, protocol) for sequence in chosen]


def _check_truth(root: Path, chosen: list[Sequence], protocol: Protocol) -> None:
    """Refuse a data set of which no sequence has what the protocol compares."""
    known = {truth for sequence in chosen for truth in _truths(sequence)}
    if not known & set(protocol.tasks):
        raise InputError(
            f"{root} has no true {' or '.join(protocol.tasks)}, which {protocol.name} compares: "
            f"found {', '.join(['images', *sorted(known)])}"
        )


def _truths(sequence: Sequence) -> list[str]:
    """Which tasks a sequence has truth for."""
    cameras = sequence.has_cameras or sequence.K is not None
    there = {
        "masks": sequence.mask is not None,
        "cameras": cameras or sequence.T_world_camera is not None,
        "depth": sequence.depth is not None,
    }
    return [task for task, known in there.items() if known]


def _frames(sequence: Sequence, protocol: Protocol) -> Sequence:
    """The frames that a protocol takes; those of a prepared sequence were picked before."""
    if protocol.drop_last:
        sequence = sequence.select(range(len(sequence) - 1))
    if sequence.prepared_for is None:
        if len(sequence) <= protocol.start:
            raise InputError(
                f"{sequence.name}: {protocol.name} takes the frames from number "
                f"{protocol.start} on, found {len(sequence)}"
            )
        return sequence.take(start=protocol.start, stride=protocol.stride, limit=protocol.limit)
    if not _same_frames(find_protocol(sequence.prepared_for), protocol):
        raise InputError(
            f"{sequence.name}: its frames were prepared for {sequence.prepared_for}: use that "
            f"protocol, or the data set as it unpacks for {protocol.name}"
        )
    return sequence.take(limit=protocol.limit)


def _same_frames(prepared: Protocol, protocol: Protocol) -> bool:
    """Whether frames that were picked for `prepared` are those that a protocol takes.

    `--num-frames` shortens `protocol.limit`, which takes the first of them.
    """
    rules = [(p.dataset, p.start, p.stride, p.drop_last) for p in (prepared, protocol)]
    return rules[0] == rules[1]


def prepare_clip(
    sequence: Sequence, size: int, *, fit: Fit = "crop", stretch: bool = False
) -> Clip:
    """The frames of a sequence as the network reads them (SPEC 2).

    `fit`: see `dyn3r.io.images.frame_mapping`. `stretch`: resized to the size of fit crop, without
    a crop (DATASETS.md, 1.2, no_crop). Raises InputError for frames of different sizes.
    """
    first = sequence.image(0)
    hw = (first.shape[0], first.shape[1])
    mapping = frame_mapping(hw, size=size, fit="crop" if stretch else fit)
    if stretch:
        mapping = FrameMapping(hw, mapping.size_hw, (0, 0), mapping.size_hw)
    frames = np.empty((len(sequence), *mapping.size_hw, 3), np.uint8)
    for i in range(len(sequence)):
        image = first if i == 0 else sequence.image(i)
        if image.shape != first.shape:
            raise InputError(
                f"{sequence.name}: frame {sequence.frame_names[i]} has another size than the first"
            )
        frames[i] = prepare_image(Image.fromarray(image), mapping)
    times = np.arange(len(sequence)) / sequence.fps
    times = times if sequence.times_s is None else sequence.times_s - sequence.times_s[0]
    return Clip(frames, mapping, sequence.frame_names, times, sequence.name, sequence.fps)


def truth_of(sequence: Sequence, mapping: FrameMapping, protocol: Protocol) -> Truth:
    """The truth that a protocol compares, at the resolution of prepared frames.

    True depth at or beyond the protocol's `max_depth` is left out (0). Cameras of which no frame
    is known are no truth.

    Raises:
        InputError: no truth for any task of the protocol; files that are missing or damaged.
    """
    depth = dynamic = T = K = None
    if "depth" in protocol.tasks and sequence.depth is not None:
        depth = resampled(sequence.depth, sequence, mapping)
        depth = np.where(depth < protocol.max_depth, depth, np.float32(0))
    if "masks" in protocol.tasks and sequence.mask is not None:
        dynamic = resampled(sequence.mask, sequence, mapping)
    if "cameras" in protocol.tasks:
        T = sequence.T_world_camera
        if T is not None and not np.isfinite(T).all(axis=(1, 2)).any():
            T = None
        K = None if sequence.K is None else mapping.K_from_source(sequence.K)
    if depth is dynamic is T is K is None:
        tasks = ", ".join(protocol.tasks)
        raise InputError(
            f"{sequence.name} has no truth for {tasks}, which {protocol.name} compares"
        )
    return Truth(depth=depth, dynamic=dynamic, T_world_camera=T, K=K)


def resampled(
    read: Callable[[int], np.ndarray], sequence: Sequence, mapping: FrameMapping
) -> np.ndarray:
    """Maps of every frame, resized and cropped like the frames; `read`: `depth` or `mask`.

    Raises InputError for a mask of another size than the image, and for depth of another shape.
    """
    out = None
    for i, name in enumerate(sequence.frame_names):
        values = read(i)
        (h, w), (source_h, source_w) = values.shape, mapping.source_hw
        same = values.shape == mapping.source_hw
        if not same and values.dtype != bool:  # depth may come from another sensor
            same = abs(w * source_h / (h * source_w) - 1) < ASPECT_TOLERANCE
        if not same:
            what = "mask" if values.dtype == bool else "depth"
            raise InputError(
                f"{sequence.name}: the true {what} of frame {name} is {w}x{h}, expected the shape "
                f"of its image, {source_w}x{source_h}"
            )
        own = FrameMapping((h, w), mapping.resized_hw, mapping.crop_xy, mapping.size_hw)
        if out is None:
            out = np.empty((len(sequence), *mapping.size_hw), values.dtype)
        out[i] = resize_nearest(values, own)
    assert out is not None
    return out


def numbering_gaps(names: tuple[str, ...]) -> list[str]:
    """Where the numbers of frames leave one out, in words; the smallest step is the right one.

    Names that are no numbers after a common word, such as time stamps, have no gaps.
    """
    parts = [re.fullmatch(r"(|.*[^\d.])(\d+)", name) for name in names]
    if len({part and part[1] for part in parts}) != 1 or parts[0] is None:
        return []
    steps = np.diff([int(part[2]) for part in parts if part])
    if len(steps) == 0 or steps.min() < 1:
        return []
    gaps = np.flatnonzero(steps > steps.min())
    said = [f"no frame between {names[i]} and {names[i + 1]}" for i in gaps[:MOST_GAPS]]
    return said if len(gaps) <= MOST_GAPS else [*said, f"{len(gaps) - MOST_GAPS} more gaps"]


def truth_gaps(sequence: Sequence, truth: Truth) -> list[str]:
    """How many frames lack a truth that others have, in words."""
    lacking = {}
    if truth.T_world_camera is not None:
        lacking["camera"] = int((~np.isfinite(truth.T_world_camera).all(axis=(1, 2))).sum())
    if truth.depth is not None and sequence.depth is not None:
        empty = np.flatnonzero(~(truth.depth > 0).any(axis=(1, 2)))  # perhaps all is too far
        lacking["depth"] = sum(not (sequence.depth(int(i)) > 0).any() for i in empty)
    n = len(sequence)
    return [
        f"{count} of {n} frames have no true {what}" for what, count in lacking.items() if count
    ]
