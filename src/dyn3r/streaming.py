"""Frame by frame: every frame is paired with one reference, nothing is optimised (SPEC 9).

Source: MonST3R's "real-time" mode. docs/streaming.md says what it is good for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby, pairwise, repeat
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from dyn3r.errors import GeometryError, InputError
from dyn3r.flow import FlowEstimator, flow_estimator, measure_flow
from dyn3r.geometry.cameras import focal_from_points, intrinsics, invert, transform
from dyn3r.geometry.registration import solve_camera
from dyn3r.io.images import check_size
from dyn3r.io.inspection.inspector import texture_note
from dyn3r.io.stream_preparation import Frame, PreparedFrame, frames_of_clip, frames_of_stream
from dyn3r.motion.flow_residual import flow_residual_motion
from dyn3r.motion.options import FlowCueOptions
from dyn3r.network.model import Model
from dyn3r.network.predict import encode_frames, predict_pairs
from dyn3r.scene.frame_results import FrameResult, scene_from_frames
from dyn3r.types import Clip, Tokens, package_version
from dyn3r.types.input_report import InputNote, InputReport

__all__ = [
    "FrameResult",
    "StreamOptions",
    "scene_from_frames",
    "stream_metadata",
    "stream_scene",
]

MAX_LEAD = 300
"""At most so many frames are held back until two have texture."""
MIN_DEPTH = 1e-6
POINTS_FOR_CAMERA = 4000
"""About as many pixels of a frame are used to find its camera."""
MIN_INLIERS = 0.2
"""A frame is lost if a smaller share of its points agrees with any one camera."""
FLOW_BACK = (1, 3)
"""Flow is measured to the frames so many before: a short and a longer baseline."""


@dataclass(frozen=True)
class StreamOptions:
    """Options of frame-by-frame mode."""

    reference: Literal["first", "middle"] = "first"
    """The frame that all others are paired with, whose camera is the world. `middle` is nearer to
    all of them and needs a whole clip."""
    motion: Literal["auto", "flow", "none"] = "auto"
    """`flow`: moving objects from optical flow to earlier frames; `none`: nothing is masked.
    `auto`: flow if the checkpoint recommends it. Attention needs several pairs of every frame and
    cannot be read here."""
    flow: Literal["dis", "raft", "raft-small"] = "dis"
    """The optical flow estimator."""
    size: int | None = None
    """Long side of the prepared frames in pixels, a multiple of 16; default: as trained."""
    crop_borders: bool = True
    """Leave out bars around the picture that the first frames have. A clip has lost them before."""
    split_cuts: bool = True
    """Begin again with a new reference and a new world where another shot begins."""

    def __post_init__(self) -> None:
        if self.reference not in ("first", "middle"):
            raise InputError(f"the reference is first or middle, not {self.reference!r}")
        if self.motion not in ("auto", "flow", "none"):
            raise InputError(
                f"motion in frame-by-frame mode is auto, flow or none, not {self.motion!r}: "
                "attention needs several pairs of every frame"
            )
        if self.size is not None:
            check_size(self.size)


def resolve_stream(options: StreamOptions, model: Model) -> StreamOptions:
    """The options with "auto" decided by the model's recommendation.

    Raises InputError for a many-view network.
    """
    if model.is_many_view:
        raise InputError(
            f"streaming needs a two-view network: {model.name} is a many-view network, which sees "
            "all frames at once (dyn3r run)"
        )
    if options.motion != "auto":
        return options
    return replace(options, motion="none" if model.recommendation.cue == "attention" else "flow")


def stream_scene(
    frames: Clip | Iterable[Frame],
    model: Model,
    options: StreamOptions | None = None,
) -> Iterator[FrameResult]:
    """Depth and camera of every frame, in order, each as soon as its image is there.

    The first result waits for eight frames, in which bars and interlacing are looked for (of a clip
    for the second frame, as depth wants two views). From then on every frame gives its result at
    once, after one encoding and one decoded pair. Memory does not grow. Where another shot begins,
    the next frame is waited for, and a new reference and world begin.

    Args:
        frames: a clip, or any iterable of images of one size: frames of `stream_frames`, PIL
            images, uint8 arrays (h,w,3). They are prepared as `read_clip` does.
        model: the network.
        options: see `StreamOptions`.

    Raises:
        InputError: `middle` asked of a stream; while iterating: no frames, or of different sizes.
        GeometryError: while iterating: the reference has no usable depth.
    """
    options = resolve_stream(options or StreamOptions(), model)
    references = None
    if options.reference == "middle":
        if not isinstance(frames, Clip):
            raise InputError("the middle frame can only be the reference of a whole clip")
        references = list(map(_middle, pairwise((0, *frames.cuts, len(frames))), repeat(frames)))
    return _run(_prepared(frames, model, options), model, options, references)


def _middle(bounds: tuple[int, int], clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """The middle frame of a shot and the one before, of those with texture."""
    shot = clip.part(slice(*bounds))
    usable = shot.images if shot.unusable is None else shot.images[~shot.unusable]
    usable = usable if len(usable) else shot.images
    middle = len(usable) // 2
    return usable[middle], usable[max(middle - 1, 0)]


def _prepared(
    frames: Clip | Iterable[Frame], model: Model, options: StreamOptions
) -> Iterator[PreparedFrame]:
    if isinstance(frames, Clip):
        return frames_of_clip(frames)
    size = model.image_size if options.size is None else options.size
    return frames_of_stream(
        frames, size, fit=model.fit(options.size),
        crop_borders=options.crop_borders, split_cuts=options.split_cuts,
    )  # fmt: skip


def _run(
    frames: Iterator[PreparedFrame],
    model: Model,
    options: StreamOptions,
    references: Sequence[tuple[np.ndarray, np.ndarray]] | None,
) -> Iterator[FrameResult]:
    """All shots. `references`: reference and partner of each; None: its first frames."""
    came = False
    for number, shot in groupby(frames, key=lambda frame: frame.shot):
        came = True
        reference = None if references is None else references[number]
        yield from _run_shot(shot, model, options, reference)
    if not came:
        raise InputError("there are no frames: at least one is needed")


def _run_shot(
    frames: Iterator[PreparedFrame],
    model: Model,
    options: StreamOptions,
    reference_and_partner: tuple[np.ndarray, np.ndarray] | None,
) -> Iterator[FrameResult]:
    """Hand over frame by frame; the first is held back until it has a partner.

    Frames without texture have no partners and no depth.
    """
    waiting = _until_partners(frames)
    textured = [frame for frame in waiting if frame.usable] or waiting
    image, partner = reference_and_partner or (textured[0].image, textured[-1].image)
    reference = _Reference(model, image, partner)
    masks = _Masks(options) if options.motion == "flow" else None
    results = (
        (frame, reference.place(frame) if frame.usable else reference.hold(frame))
        for frame in chain(waiting, frames)
    )
    if masks is None:
        yield from (result for _, result in results)
        return
    first: FrameResult | None = None
    held: list[FrameResult] = []
    for frame, result in results:
        if first is None and not masks.past and frame.usable:
            first = result
        elif first is not None and not frame.usable:
            held.append(result)
        elif first is not None:
            yield masks.compare(first, [result])
            masks.past.append(first)
            yield from held
            first, held = None, []
            yield masks.apply(result)
        else:
            yield masks.apply(result) if frame.usable else result
    if first is not None:
        yield from (first, *held)


def _until_partners(frames: Iterator[PreparedFrame]) -> list[PreparedFrame]:
    """Frames up to the second one with texture; all if there are few, MAX_LEAD at most."""
    out: list[PreparedFrame] = []
    textured = 0
    for frame in frames:
        out.append(frame)
        textured += frame.usable
        if textured == 2 or len(out) == MAX_LEAD:
            break
    return out


class _Reference:
    """The frame that all others are seen against: its tokens, its points, and the focal length."""

    def __init__(self, model: Model, image: np.ndarray, partner: np.ndarray) -> None:
        self.model, self.image = model, image
        self.tokens = encode_frames(model, image[None])
        pair = self._pair(partner)
        self.points, self.confidence = pair[0], pair[1]
        self.size_hw = (int(image.shape[0]), int(image.shape[1]))
        weights = np.log(self.confidence.clip(1.0))
        f_px = focal_from_points(torch.from_numpy(self.points), torch.from_numpy(weights))
        if not bool(torch.isfinite(f_px)):
            raise GeometryError("the network sees no depth at all in the reference frame")
        self.K = intrinsics(f_px.double(), self.size_hw).numpy()
        self.last = np.eye(4)

    def place(self, frame: PreparedFrame) -> FrameResult:
        """The frame's camera by PnP, and its depth in that camera."""
        if np.array_equal(frame.image, self.image):
            points, confidence = self.points, self.confidence
            T_world_camera, quality = np.eye(4), 1.0
        else:
            own, own_confidence, points, confidence = self._pair(frame.image)
            points = points * self._scale(own, own_confidence)
            T_world_camera, quality = self._camera(points, confidence)
        self.last = T_world_camera
        depth = self._depth(points, T_world_camera)
        return FrameResult(
            index=frame.index, name=frame.name, time_s=frame.time_s, image=frame.image,
            depth=depth, confidence=np.where(depth > 0, confidence, 0).astype(np.float32),
            dynamic=np.zeros(self.size_hw, bool), K=self.K, T_world_camera=T_world_camera,
            quality=quality, mapping=frame.mapping, report=frame.report, shot=frame.shot,
        )  # fmt: skip

    def hold(self, frame: PreparedFrame) -> FrameResult:
        """A frame without depth, with the camera of the frame before."""
        unknown = np.zeros(self.size_hw, np.float32)
        return FrameResult(
            index=frame.index, name=frame.name, time_s=frame.time_s, image=frame.image,
            depth=unknown, confidence=unknown, dynamic=np.zeros(self.size_hw, bool), K=self.K,
            T_world_camera=self.last, quality=0.0, mapping=frame.mapping, report=frame.report,
            shot=frame.shot,
        )  # fmt: skip

    def _pair(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """points1, conf1, points2, conf2 of the pair (reference, image), all in its camera."""
        tokens = self.tokens
        if not np.array_equal(image, self.image):
            tokens = Tokens.join([self.tokens, encode_frames(self.model, image[None])])
        images = np.stack([self.image, image][: len(tokens.features)])
        edges = np.array([[0, len(images) - 1]])
        seen = predict_pairs(self.model, images, edges, tokens=tokens, scores=False)
        (chunk,) = seen.chunks()
        return tuple(
            values[0].numpy() for values in (chunk.points1, chunk.conf1, chunk.points2, chunk.conf2)
        )

    def _scale(self, own: np.ndarray, own_confidence: np.ndarray) -> float:
        """Brings a pair to the scale of the reference's points: median of the depth ratios."""
        usable = (own[..., 2] > MIN_DEPTH) & (self.points[..., 2] > MIN_DEPTH)
        if not usable.any():
            return 1.0
        sure = np.minimum(own_confidence, self.confidence)
        usable &= sure >= np.median(sure[usable])
        return float(np.median(self.points[usable][:, 2] / own[usable][:, 2]))

    def _camera(self, points: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, float]:
        """T_world_camera from the sure points, and the share of them that agrees with it.

        Points of moving objects count too: view 2 is predicted as it is at its own time.
        """
        h, w = self.size_hw
        stride = max(1, round((h * w / POINTS_FOR_CAMERA) ** 0.5))
        v, u = np.mgrid[stride // 2 : h : stride, stride // 2 : w : stride]
        sure = confidence[v, u] >= np.quantile(confidence[v, u], 0.3)
        uv = np.stack([u[sure], v[sure]], -1).astype(np.float64)
        found = solve_camera(points[v, u][sure].astype(np.float64), uv, self.K)
        if found is None or found[1] < MIN_INLIERS:
            return self.last, 0.0
        return found

    def _depth(self, points: np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
        T_camera_world = invert(torch.from_numpy(T_world_camera)).float()
        camera = transform(T_camera_world, torch.from_numpy(points).reshape(-1, 3))
        z = camera[:, 2].reshape(self.size_hw).numpy()
        return np.where(np.isfinite(z) & (z > MIN_DEPTH), z, 0).astype(np.float32)


class _Masks:
    """Masks of moving objects from optical flow to earlier frames."""

    def __init__(self, options: StreamOptions) -> None:
        self.estimator: FlowEstimator = flow_estimator(options.flow)
        self.past: deque[FrameResult] = deque(maxlen=max(FLOW_BACK))

    def apply(self, result: FrameResult) -> FrameResult:
        """The result with its mask, by comparison with frames before."""
        back = [k for k in FLOW_BACK if k <= len(self.past)]
        masked = self.compare(result, [self.past[-k] for k in back or [1]])
        self.past.append(result)
        return masked

    def compare(self, result: FrameResult, others: Sequence[FrameResult]) -> FrameResult:
        """The result with the mask of pixels whose flow contradicts a static scene."""
        seen = [result, *others]
        images = np.stack([r.image for r in seen])
        edges = np.array([[0, k + 1] for k in range(len(others))])
        motion = flow_residual_motion(
            None, images, measure_flow(images, edges, self.estimator),
            inverse_depth=np.stack([_inverse(r.depth) for r in seen]),
            options=FlowCueOptions(),
        )  # fmt: skip
        return replace(result, dynamic=motion.masks[0])


def _inverse(depth: np.ndarray) -> Float[np.ndarray, "h w"]:
    """Inverse depth with median 1; far away where it is unknown."""
    known = depth > 0
    if not known.any():
        return np.ones(depth.shape)
    median = float(np.median(depth[known]))
    inverse = np.divide(median, depth, out=np.zeros(depth.shape), where=known)
    return inverse.clip(0.02, 5.0)


def stream_metadata(
    model: Model, source: str, options: StreamOptions, results: Sequence[FrameResult]
) -> dict[str, Any]:
    """Metadata of a Scene from frame-by-frame mode."""
    notes = ["frame-by-frame mode: every frame against one reference, nothing was optimised"]
    blank = np.array([not r.depth.any() for r in results])
    lost = [r.name for r, empty in zip(results, blank) if r.quality == 0 and not empty]
    if lost:
        notes.append(
            f"lost frames: {len(lost)}, the first is {lost[0]}: too far from the reference"
        )
    shots = results[-1].shot + 1
    if shots > 1:
        notes.append(f"{shots} shots, each in a world of its own: places and scales do not compare")
    return {
        "dyn3r_version": package_version(),
        "source": source,
        "mode": "stream",
        "model": model.about,
        "device": str(model.device),
        "options": asdict(options),
        "input": _report(results, blank).to_json(),
        "notes": notes,
    }


def _report(results: Sequence[FrameResult], blank: Bool[np.ndarray, " n"]) -> InputReport:
    """The input report: frames read, what was found in them, and those without texture."""
    h, w = results[0].mapping.source_hw
    report = InputReport((InputNote("frames", f"{len(results)} of {w}x{h} pixels"),))
    report = report.adding(*results[-1].report.notes)
    told = any("no texture" in note.text for note in report.notes)  # of a clip
    if blank.any() and not told:
        report = report.adding(texture_note([result.name for result in results], blank))
    return report
