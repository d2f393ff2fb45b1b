"""Values that pass between the stages. Frozen, documented, and free of behaviour beyond access.

Letters in shapes: n frames, m directed pairs (edges), h w pixels of the prepared frames, gh gw the
patch grid, c = decoder layers x heads. Camera axes are x right, y down, z forward (OpenCV).
Integer pixel coordinates are pixel centres.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from dyn3r.errors import InputError
from dyn3r.types.free_memory import return_free_memory
from dyn3r.types.input_report import InputReport

if TYPE_CHECKING:  # a second saved for everything that needs no network, e.g. `dyn3r view`
    import torch
    from torch import Tensor

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) with 0 <= done <= total; stage is a short human phrase."""


def package_version() -> str:
    """The installed version of dyn3r; `unknown` in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dyn3r")
    except PackageNotFoundError:
        return "unknown"


def no_progress(stage: str, done: int, total: int) -> None:
    """The progress callback that reports nothing."""


def no_observer(name: str, value: object) -> None:
    """The observer that ignores everything."""


def no_surroundings(stage: str) -> AbstractContextManager[None]:  # noqa: ARG001 (a callback)
    """The context around a stage that does nothing."""
    return nullcontext()


@dataclass(frozen=True)
class WindowFolder:
    """Where the finished windows of a long clip are kept, so that a later run can go on."""

    path: Path
    """A folder of its own."""
    replace: bool = False
    """Whether windows of another run are removed; else they are an error."""


@dataclass(frozen=True)
class RunContext:
    """What accompanies a run and changes no result."""

    progress: Progress = no_progress
    """Called while a stage works."""
    observe: Callable[[str, object], None] = no_observer
    """Called as observe(name, value) with intermediate values, for explanations and debugging."""
    around: Callable[[str], AbstractContextManager[None]] = no_surroundings
    """Entered around every stage, with its name: for what belongs to the process, such as the
    number of threads, which the library itself leaves alone."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each stage so far."""
    windows: WindowFolder | None = None
    """Where finished windows are kept, and found again; None: in a temporary folder."""
    device: str = "cpu"
    """PyTorch device of the networks of all stages; `reconstruct` takes that of the model."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the time of a stage; a stage that is entered again adds up.

        What earlier stages have freed goes back to the system first.
        """
        start = time.monotonic()
        return_free_memory()
        with self.around(name):
            yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start


@dataclass(frozen=True)
class Lens:
    """Lens distortion of a source whose frames were undistorted.

    The undistorted image has the size of the source, its principal point, and `zoom` times its
    focal lengths: it shows x = (u - cx) / (zoom fx), y alike. In the source this is at
    u = fx x_d + cx. With r2 = x^2 + y^2, `perspective` has OpenCV's

        x_d = x (1 + k1 r2 + k2 r2^2 + ...) / (1 + k4 r2 + ...) + 2 p1 x y + p2 (r2 + 2 x^2)
        y_d = y (the same ratio)                      + p1 (r2 + 2 y^2) + 2 p2 x y

    and `fisheye` x_d = x theta_d / r, theta = atan(r), theta_d = theta (1 + k1 theta^2 + ...).
    """

    model: Literal["perspective", "fisheye"]
    focal_xy: tuple[float, float]
    """Focal lengths (fx, fy) of the source in pixels."""
    centre_xy: tuple[float, float]
    """Principal point (cx, cy) of the source in pixels; integers are pixel centres."""
    radial: tuple[float, ...] = ()
    """k1, k2, ... of the numerator, or of the angle."""
    denominator: tuple[float, ...] = ()
    """Coefficients of the denominator."""
    tangential: tuple[float, float] = (0.0, 0.0)
    """p1, p2."""
    zoom: float = 1.0
    """Focal length of the undistorted image over that of the source; above 1 where the undistorted
    image would have pixels that the source does not show."""

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """Intrinsics of the undistorted image at source resolution."""
        (fx, fy), (cx, cy), zoom = self.focal_xy, self.centre_xy, self.zoom
        return np.array([[zoom * fx, 0, cx], [0, zoom * fy, cy], [0, 0, 1]])


@dataclass(frozen=True)
class FrameMapping:
    """How prepared pixels lie on the source picture (after its EXIF rotation).

    A source picture is resized to `resized_hw`, then the window of `size_hw` whose top-left pixel
    is `crop_xy` is cut out. Pixel centres are integers on both sides:
    u_prepared = (u_source + 0.5) * scale_x - 0.5 - crop_x. The pixels of the frames are square;
    where those of the source are not, the two scales differ. With a `lens` the source pixels here
    are those of the undistorted source; `dyn3r.geometry.lens.distort` goes on to the source itself.
    """

    source_hw: tuple[int, int]
    """Source height and width in pixels, EXIF rotation applied."""
    resized_hw: tuple[int, int]
    """Height and width after resizing, before the crop."""
    crop_xy: tuple[int, int]
    """Left and top of the crop window in resized pixels."""
    size_hw: tuple[int, int]
    """Height and width of the prepared frames; multiples of 16."""
    lens: Lens | None = None
    """Distortion that was removed; None: the frames are as the source shows them."""
    frame_lenses: tuple[Lens, ...] = ()
    """Distortion that was removed from each frame, if it differs; `lens` is None then."""
    one_field: bool = False
    """True: of an interlaced source the even rows were used; odd rows were made from these."""
    pixel_aspect: float = 1.0
    """Width of a source pixel over its height; pixels of the frames are square."""
    frame_mappings: tuple[FrameMapping, ...] = ()
    """The mapping of each frame, with its lens, if source images differ in size; `lens` and
    `frame_lenses` are empty then."""

    @property
    def is_mixed(self) -> bool:
        """Whether source images differ in size; then only `of_frame` and K are mapped."""
        return bool(self.frame_mappings)

    def of_frame(self, t: int) -> FrameMapping:
        """The mapping of frame t, with its own lens if it has one."""
        if self.frame_mappings:
            return self.frame_mappings[t]
        if not self.frame_lenses:
            return self
        return replace(self, lens=self.frame_lenses[t], frame_lenses=())

    def part(self, rows: Sequence[int]) -> FrameMapping:
        """The mapping of some of the frames, in order."""
        own: dict[str, tuple[Lens, ...] | tuple[FrameMapping, ...]] = {
            name: tuple(getattr(self, name)[k] for k in rows)
            for name in ("frame_lenses", "frame_mappings")
            if getattr(self, name)
        }
        return replace(self, **own)  # type: ignore[arg-type]

    @property
    def is_undistorted(self) -> bool:
        """Whether lens distortion was removed."""
        mappings = self.frame_mappings or (self,)
        return bool(self.frame_lenses) or any(mapping.lens is not None for mapping in mappings)

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Prepared pixels per source pixel along x and along y."""
        assert not self.frame_mappings  # they differ: take `of_frame`
        return (
            self.resized_hw[1] / self.source_hw[1],
            self.resized_hw[0] / self.source_hw[0],
        )

    def to_source(self, uv: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
        """Prepared pixel coordinates (u, v) -> source pixel coordinates."""
        scale, crop = np.asarray(self.scale_xy), np.asarray(self.crop_xy)
        return (uv + crop + 0.5) / scale - 0.5

    def from_source(self, uv: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
        """Source pixel coordinates (u, v) -> prepared pixel coordinates."""
        scale, crop = np.asarray(self.scale_xy), np.asarray(self.crop_xy)
        return (uv + 0.5) * scale - 0.5 - crop

    def K_to_source(self, K: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
        """Intrinsics of the prepared frames -> intrinsics at source resolution (pixels)."""
        if self.frame_mappings:
            assert len(K) == len(self.frame_mappings)
            return np.stack([own.K_to_source(k) for own, k in zip(self.frame_mappings, K)])
        return _affine_K(K, 1 / np.asarray(self.scale_xy), self.to_source)

    def K_from_source(self, K: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch 3 3"]:
        """Intrinsics at source resolution -> intrinsics of the prepared frames (pixels)."""
        if self.frame_mappings:
            assert len(K) == len(self.frame_mappings)
            return np.stack([own.K_from_source(k) for own, k in zip(self.frame_mappings, K)])
        return _affine_K(K, np.asarray(self.scale_xy), self.from_source)


def _affine_K(
    K: np.ndarray, scale_xy: np.ndarray, move: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    out = np.array(K, dtype=np.float64)
    out[..., 0, :2] *= scale_xy[0]
    out[..., 1, :2] *= scale_xy[1]
    out[..., :2, 2] = move(np.asarray(K, dtype=np.float64)[..., :2, 2])
    return out


@dataclass(frozen=True)
class Clip:
    """Frames prepared for the network, all of one size, with the way back to the source."""

    images: UInt8[np.ndarray, "n h w 3"]
    """RGB, 0..255; h and w are multiples of 16."""
    mapping: FrameMapping
    """Prepared pixels <-> source pixels; `of_frame` where source images differ in size."""
    names: tuple[str, ...]
    """One per frame: the file's name, or `frame_000012` with the frame's index in the video."""
    times_s: Float[np.ndarray, " n"]
    """Seconds since the start of the source; for folders of images the index divided by `fps`."""
    source: str
    """The path it was read from (for people; never used to find anything again)."""
    fps: float
    """Frames per second of the frames kept."""
    report: InputReport = field(default_factory=InputReport)
    """What was found in the input, and what was done about it; for people."""
    unusable: Bool[np.ndarray, " n"] | None = None
    """True for frames without texture: no depth, and a camera between those of the others."""
    overlay: Bool[np.ndarray, "h w"] | None = None
    """True on pixels of logos and displays that stay put in every frame: no motion, no points."""
    cuts: tuple[int, ...] = ()
    """Frames with which another shot begins; each shot has a world of its own."""
    focal_px: float | Float[np.ndarray, " n"] | None = None
    """Focal length in pixels of the frames, as the file states it; one for each frame where source
    images differ in size. None: it says nothing."""
    focal_sigma: float = 0.0
    """Standard error of the logarithm of `focal_px`."""

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise InputError("a clip needs at least one frame")
        if len(self.names) != len(self.images) or len(self.times_s) != len(self.images):
            raise InputError("a clip needs one name and one time for every frame")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the prepared frames in pixels."""
        return (int(self.images.shape[1]), int(self.images.shape[2]))

    def part(self, rows: slice | Int[np.ndarray, " m"]) -> Clip:
        """Some of the frames, in order."""
        index = np.arange(len(self))[rows]
        shot = np.searchsorted(np.array(self.cuts), index, side="right")
        focal = self.focal_px
        return replace(
            self,
            images=self.images[rows],
            mapping=self.mapping.part(index.tolist()),
            focal_px=focal[rows] if isinstance(focal, np.ndarray) else focal,
            names=tuple(self.names[k] for k in index),
            times_s=self.times_s[rows],
            unusable=None if self.unusable is None else self.unusable[rows],
            cuts=tuple(int(k) + 1 for k in np.flatnonzero(np.diff(shot))),
        )


@dataclass(frozen=True)
class Tokens:
    """What the encoder makes of frames; computed once per frame and never changed."""

    features: Float[Tensor, "n tokens dim"]
    """Row-major over the patch grid."""
    grid_hw: tuple[int, int]
    """Rows and columns of the patch grid."""
    detail: tuple[Float[Tensor, "n _ _ _"], ...] = ()
    """Features of the picture at 1/2, 1/4 and 1/8 of its size; empty for published networks."""

    def __getitem__(self, rows: Int[Tensor, " m"] | slice) -> Tokens:
        """The tokens of some frames, repeated as often as they are named."""
        return Tokens(self.features[rows], self.grid_hw, tuple(d[rows] for d in self.detail))

    @classmethod
    def join(cls, parts: Sequence[Tokens]) -> Tokens:
        """One after the other; all on the same patch grid."""
        import torch

        detail = tuple(torch.cat(level) for level in zip(*(part.detail for part in parts)))
        return cls(torch.cat([part.features for part in parts]), parts[0].grid_hw, detail)


class PairChunk(NamedTuple):
    """A run of consecutive edges of `PairPredictions`, as float32 torch tensors."""

    rows: slice
    edges: Int[Tensor, "k 2"]
    points1: Float[Tensor, "k h w 3"]
    conf1: Float[Tensor, "k h w"]
    points2: Float[Tensor, "k h w 3"]
    conf2: Float[Tensor, "k h w"]


@dataclass(frozen=True)
class PairPredictions:
    """What the network says about every directed pair (i, j), or anybody's predictions like it.

    The big arrays may be half precision and may be memory-mapped files: consumers stream them with
    `chunks` and never hold all of them in float32.
    """

    edges: Int[np.ndarray, "m 2"]
    """Directed pairs (i, j) of frame indices."""
    num_frames: int
    """Frames of the clip; frames without any edge are allowed."""
    points1: np.ndarray | None = None
    """(m,h,w,3) points of frame i in camera i; arbitrary scale per pair. None if heads were off."""
    conf1: np.ndarray | None = None
    """(m,h,w) confidence of points1, above 1."""
    points2: np.ndarray | None = None
    """(m,h,w,3) points of frame j in camera i, at frame j's own time."""
    conf2: np.ndarray | None = None
    """(m,h,w) confidence of points2, above 1."""
    scores1: Float[np.ndarray, "m gh gw c"] | None = None
    """Attention statistic of the view-1 stack: a score for every token of frame **j** (SPEC 4)."""
    scores2: Float[np.ndarray, "m gh gw c"] | None = None
    """Attention statistic of the view-2 stack: a score for every token of frame **i**."""

    def __len__(self) -> int:
        return len(self.edges)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the pointmaps in pixels."""
        if self.points1 is None:
            raise InputError("these predictions hold no pointmaps (the heads were off)")
        return (int(self.points1.shape[1]), int(self.points1.shape[2]))

    def chunks(
        self, pairs_per_chunk: int = 16, device: torch.device | str = "cpu"
    ) -> Iterator[PairChunk]:
        """Stream the pointmaps in order, `pairs_per_chunk` edges at a time, as float32."""
        if self.points1 is None or self.conf1 is None or self.points2 is None or self.conf2 is None:
            raise InputError("these predictions hold no pointmaps (the heads were off)")

        import torch

        def load(array: np.ndarray, rows: slice) -> Tensor:
            return torch.from_numpy(np.array(array[rows], dtype=np.float32)).to(device)

        for start in range(0, len(self.edges), pairs_per_chunk):
            rows = slice(start, min(start + pairs_per_chunk, len(self.edges)))
            yield PairChunk(
                rows,
                torch.from_numpy(np.array(self.edges[rows], dtype=np.int64)).to(device),
                load(self.points1, rows),
                load(self.conf1, rows),
                load(self.points2, rows),
                load(self.conf2, rows),
            )


@dataclass(frozen=True)
class Motion:
    """Which pixels are dynamic, according to one cue or several."""

    masks: Bool[np.ndarray, "n h w"]
    """True on pixels of moving objects."""
    dynamic_map: Float[np.ndarray, "n gh gw"]
    """The score that decided, on the patch grid, 0..1."""
    reason: str
    """One sentence for a person: why motion was or was not found."""
    evidence: object | None = None
    """What the cue that found it saw: `AttentionEvidence`, `FlowEvidence` or `CombinedEvidence`;
    None for given masks. Read by the cue itself and by explanations."""
    unrefined: Bool[np.ndarray, "n h w"] | None = None
    """The masks before refinement; None if they were not refined."""
    refinement: str | None = None
    """One sentence about that refinement."""
    probability: UInt8[np.ndarray, "n h w"] | None = None
    """Probability of every pixel to be dynamic before later stages changed the masks, 0..255 with
    the limit between 127 and 128; None if the cue gives none."""
    unreliable: Bool[np.ndarray, "n h w"] | None = None
    """Pixels that need not move, but whose flow and depth contradict each other; None: none."""

    @cached_property
    def has_motion(self) -> bool:
        """Whether any pixel is dynamic."""
        return bool(self.masks.any())

    @cached_property
    def excluded(self) -> Bool[np.ndarray, "n h w"]:
        """Pixels that cameras and depth are not estimated from: masks before or after refinement
        (SPEC 8), and what is unreliable."""
        out = self.masks
        for more in (self.unrefined, self.unreliable):
            out = out if more is None else out | more
        return out


@dataclass(frozen=True)
class FlowFields:
    """Optical flow measured between frames of a clip."""

    edges: np.ndarray
    """(k, 2) directed pairs (i, j): where does a pixel of frame i go in j. Give both directions."""
    flow: np.ndarray
    """(k, h, w, 2) displacement (u, v) in pixels; any float type."""
    visible: np.ndarray | None = None
    """(k, h, w) bool: False where the flow is not to be believed (occluded, leaves the image)."""
    whitening: np.ndarray | None = None
    """(k, h, w, 3) (a, b, c): W = [[e^a, 0], [c e^b, e^b]] turns an error (du, dv) in pixels into
    one of unit covariance. None: the estimator does not know its errors."""

    def __post_init__(self) -> None:
        if self.edges.ndim != 2 or self.edges.shape[1] != 2:
            raise InputError("measured flow needs edges of shape (k, 2)")
        if self.flow.ndim != 4 or self.flow.shape[-1] != 2 or len(self.flow) != len(self.edges):
            raise InputError("measured flow needs one (h, w, 2) field for every edge")
        if self.visible is not None and self.visible.shape != self.flow.shape[:3]:
            raise InputError("the visibility of measured flow needs shape (k, h, w)")
        if self.whitening is not None and self.whitening.shape != (*self.flow.shape[:3], 3):
            raise InputError("the whitening of measured flow needs shape (k, h, w, 3)")

    def part(self, rows: np.ndarray) -> FlowFields:
        """Some of the pairs: their numbers, or True for each."""
        maps = (self.flow, self.visible, self.whitening)
        return FlowFields(self.edges[rows], *(None if x is None else x[rows] for x in maps))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Priors:
    """Cameras and depth that are known. NaN anywhere in a frame's value: not known for that frame.

    All of it belongs to the prepared frames (the size of the pointmaps); K of the source pictures
    is converted with `FrameMapping.K_from_source` first.
    """

    K: Float[np.ndarray, "n 3 3"] | None = None
    """Intrinsics in pixels. Principal point and aspect ratio are kept even if K is not fixed."""
    T_world_camera: Float[np.ndarray, "n 4 4"] | None = None
    """Camera to world."""
    depth: Float[np.ndarray, "n h w"] | None = None
    """z in the camera, in the unit of T_world_camera; NaN pixels are not known."""
    fix_K: bool = True
    """True: the given K hold to the last digit. False: they are where the focal starts."""
    fix_T: bool = True
    """True: the given cameras hold to the last digit. False: they are a start."""
    fix_depth: bool = True
    """True: the given depths hold to the last digit. False: they are a start."""
    focal_sigma: float = 0.0
    """Standard error of the log focal length of K that is fixed, common to all frames; with bundle
    adjustment it is then a prior. 0: K is exact."""

    @property
    def fixes_focal(self) -> bool:
        """Whether the focal length is known, of some frames at least."""
        return self.K is not None and self.fix_K and bool(np.isfinite(self.K).any())

    @property
    def fixes_all_cameras(self) -> bool:
        """Whether every frame has a known camera that is kept."""
        T = self.T_world_camera
        return T is not None and self.fix_T and bool(np.isfinite(T).all())

    def fixes_depth(self, shape: tuple[int, ...]) -> Bool[np.ndarray, "n h w"]:
        """Where, in maps of this shape, depth must not change."""
        if self.depth is None or not self.fix_depth:
            return np.zeros(shape, bool)
        return np.isfinite(self.depth)


@dataclass(frozen=True)
class Diagnostics:
    """What people and metadata want to know of the geometry; no algorithm reads it."""

    terms: dict[str, float] = field(default_factory=dict)
    """The objective of the alignment at the end, on all pixels: pairs, smoothness, flow,
    depth_prior unweighted, and their weighted sum as total; after bundle adjustment also its
    median errors."""
    notes: tuple[str, ...] = ()
    """Sentences for a person: what could not be determined, and what was done about it."""
    history: Float[np.ndarray, "k 2"] = field(default_factory=lambda: np.zeros((0, 2)))
    """Seconds since the start, and the objective on the sampled pixels."""
    pair_similarity: Float[np.ndarray, "m 4 4"] = field(default_factory=lambda: np.zeros((0, 4, 4)))
    """Maps the points of a pair to the world: s [R | T] as one matrix, rows as in the edges."""

    def added(self, *notes: str, **terms: float) -> Diagnostics:
        """The same with further notes and terms."""
        return replace(self, notes=(*self.notes, *notes), terms={**self.terms, **terms})


@dataclass(frozen=True)
class Geometry:
    """Cameras and depth of every frame in one world, and how uncertain they are. Never NaN."""

    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Camera to world, float64. The unit is arbitrary unless priors fix it."""
    K: Float[np.ndarray, "n 3 3"]
    """Intrinsics in pixels of the prepared frames; principal point (W/2, H/2) unless given."""
    depth: Float[np.ndarray, "n h w"]
    """z in the camera, above 0, float32."""
    sigma_log_depth: Float[np.ndarray, "n h w"]
    """Standard deviation of log depth. After the alignment: how far the pairs disagree about a
    pixel (their mean distance from its point over its depth; 10 where no pair sees it). After the
    last stage: that of the depth here."""
    valid: Bool[np.ndarray, "n h w"]
    """False where no pair sees the pixel; after the last stage where the depth here floats."""
    confidence: Float[np.ndarray, "n h w"]
    """After the alignment the network's, the largest over the pairs; after the last stage
    1 / `sigma_log_depth`. 0 where not `valid`."""
    frame_quality: Float[np.ndarray, " n"]
    """Share of the confidence of a frame's pixels where the pairs agree within 10 % of the depth;
    0 for frames that could not be determined."""
    determined: Bool[np.ndarray, " n"]
    """False: the camera of this frame is a guess (see the notes), not an estimate."""
    parallax: float | None = None
    """Share of the flow's cost that depth explains and a camera that only rotates does not; None
    before bundle adjustment."""
    up_world: Float[np.ndarray, " 3"] | None = None
    """Unit vector in world coordinates that points up; None before the last stage."""
    ground_height: float | None = None
    """Height (up_world . point) of the ground; None without a ground plane."""
    focal_sigma: float | None = None
    """Standard error of the log focal length, where the geometry source states it."""
    depth_sigma: float | None = None
    """Standard error of log depth over the clip, where the geometry source states it."""
    camera_sigma: tuple[float, float] | None = None
    """Standard errors of a camera relative to the first, where the geometry source states them:
    rotation in radians, centre in the unit of length."""
    diagnostics: Diagnostics = field(default_factory=Diagnostics)

    def __len__(self) -> int:
        return len(self.T_world_camera)


class GeometrySource(Protocol):
    """Where the first cameras and depth of a clip come from.

    Pairwise networks give pointmaps of pairs that are aligned; many-view networks give `Geometry`
    in one forward pass over each window of frames (`dyn3r.alignment.many_view`).
    """

    def __call__(
        self, clip: Clip, flow: FlowFields | None, context: RunContext
    ) -> tuple[Geometry, Motion]:
        """Geometry of every frame, and motion as far as the source can tell.

        `flow` is None for a single frame and where no stage uses it.
        """
        ...
