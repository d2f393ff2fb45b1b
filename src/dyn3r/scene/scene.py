"""Scene: the result of a run. Frames, depth, cameras and motion in one value.

Camera axes are x right, y down, z forward; integer pixel coordinates are pixel centres; lengths
have one arbitrary scale per scene unless the metadata says "metres". See docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from dyn3r.errors import InputError
from dyn3r.geometry.pixels import confidence_threshold, median_depth, unproject_pixels
from dyn3r.io.numbers import checked_number, checked_whole
from dyn3r.scene.checks import checked_fields
from dyn3r.scene.file import read_fields, write_fields
from dyn3r.scene.verdict import Verdict
from dyn3r.types import FrameMapping
from dyn3r.types.input_report import InputReport

Which = Literal["all", "static", "dynamic"]


class PointCloud(NamedTuple):
    """Coloured points; unpacks as `points_world, colors`."""

    points_world: Float32[np.ndarray, "k 3"]
    colors: UInt8[np.ndarray, "k 3"]


PER_FRAME = (
    "depth", "confidence", "dynamic", "sigma_log_depth", "frame_quality", "dynamic_map",
    "dynamic_probability",
)  # fmt: skip
"""Fields of a Scene with a row for each frame, besides images, cameras, names and times."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A clip with its geometry. Checked when made; see `save` and `load` for the file.

    Letters in shapes: n frames, h w pixels of the prepared frames, gh gw the patch grid.

    Raises:
        InputError: shapes that do not fit together, values that are not finite or out of range,
            cameras that are no rigid transforms, metadata that JSON can't hold.
    """

    # Shape checkers leave the constructor alone: it converts numbers to the types below and refuses
    # what does not fit, with messages for people.
    __no_type_check__: ClassVar[bool] = True

    images: UInt8[np.ndarray, "n h w 3"]
    """RGB, 0..255."""
    depth: Float32[np.ndarray, "n h w"]
    """z along the optical axis, above 0; 0 where it is unknown."""
    confidence: Float32[np.ndarray, "n h w"]
    """0 or more, larger is more certain: 1 / `sigma_log_depth`. 0 where the pixel is rejected: its
    depth is unknown or floats in front of what other frames see."""
    dynamic: Bool[np.ndarray, "n h w"]
    """True on pixels of moving objects."""
    K: Float[np.ndarray, "n 3 3"]
    """Intrinsics of the prepared frames in pixels, without skew, for integer pixel centres."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Maps camera coordinates to world coordinates."""
    mapping: FrameMapping
    """Prepared pixels <-> source pixels; the same for every frame."""
    names: tuple[str, ...]
    """One per frame."""
    times_s: Float[np.ndarray, " n"]
    """Seconds since the start of the source."""
    fps: float = 0.0
    """Frames per second of these frames; 0 if unknown."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What JSON can hold: model, options, versions, timings, warnings."""
    sigma_log_depth: Float32[np.ndarray, "n h w"] | None = None
    """Standard deviation of log depth: 0.05 means 5 %. None if it was not estimated."""
    up_world: Float[np.ndarray, " 3"] | None = None
    """Unit vector in world coordinates that points up. None if it was not estimated."""
    ground_height: float | None = None
    """Height (up_world . point) of the ground; None without a ground plane."""
    frame_quality: Float[np.ndarray, " n"] | None = None
    """0..1 per frame: share of its pixels where the pairs agree, 0 for a lost frame."""
    dynamic_map: Float32[np.ndarray, "n gh gw"] | None = None
    """The motion score behind `dynamic` on the patch grid, 0..1."""
    dynamic_probability: UInt8[np.ndarray, "n h w"] | None = None
    """Probability of every pixel to be dynamic, 0..255; `dynamic` is where it exceeds 127. None for
    known masks. Masks at another limit: `dyn3r.scene.sensitivity`."""

    def __post_init__(self) -> None:
        for name, value in checked_fields(vars(self)).items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return (int(self.images.shape[1]), int(self.images.shape[2]))

    @property
    def notes(self) -> list[str]:
        """Notes on the run, from the metadata."""
        notes = self.metadata.get("notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    @property
    def verdict(self) -> Verdict | None:
        """How far the parts of the result can be trusted, and why; None if it was not judged."""
        try:
            return Verdict.from_json(self.metadata.get("verdict"))
        except InputError:  # absent, or written by something else
            return None

    @property
    def unit(self) -> str:
        """The unit of length, from the metadata: `arbitrary units` unless the run knew it."""
        return str(self.metadata.get("unit", "arbitrary units"))

    @property
    def report(self) -> InputReport:
        """The input report of the clip, from the metadata. Raises InputError if it is damaged."""
        return InputReport.from_json(self.metadata.get("input", []))

    @property
    def median_depth(self) -> float:
        """Median of the known depths (1.0 if none is known): the scene's natural unit of length."""
        return median_depth(self.depth)

    def confidence_threshold(self, drop: float) -> float:
        """The confidence that a share `drop` (0..1) of the kept pixels of the clip lies below."""
        checked_number(drop, "the share of pixels to drop", low=0, high=1)
        return confidence_threshold(self.confidence, drop)

    def select(
        self, t: int, *, min_confidence: float = 0.0, which: Which = "all"
    ) -> Bool[np.ndarray, "h w"]:
        """The pixels of frame t that have a point: depth known, not rejected, confident enough.

        `np.flatnonzero(scene.select(t, ...))` are the pixel indices (row-major) of the points that
        `points(t, ...)` returns, in its order.
        """
        checked_whole(t, "the frame", low=-len(self), high=len(self) - 1)
        if which not in ("all", "static", "dynamic"):
            raise InputError(f"which must be all, static or dynamic, not {which!r}")
        confidence = self.confidence[t]
        chosen = (self.depth[t] > 0) & (confidence > 0) & (confidence >= min_confidence)
        if which == "static":
            chosen &= ~self.dynamic[t]
        elif which == "dynamic":
            chosen &= self.dynamic[t]
        return chosen

    def points(self, t: int, *, min_confidence: float = 0.0, which: Which = "all") -> PointCloud:
        """World points and colours of the pixels that `select` chooses in frame t."""
        return self.points_of(t, self.select(t, min_confidence=min_confidence, which=which))

    def points_of(self, t: int, chosen: Bool[np.ndarray, "h w"]) -> PointCloud:
        """World points and colours of the pixels of frame t that are True in `chosen`."""
        rows, columns = np.nonzero(chosen)
        return PointCloud(
            unproject_pixels(
                columns, rows, self.depth[t, rows, columns], self.K[t], self.T_world_camera[t]
            ),
            self.images[t, rows, columns],
        )

    def K_source(self) -> Float[np.ndarray, "n 3 3"]:
        """Intrinsics at the resolution of the source images (integer pixel centres)."""
        return self.mapping.K_to_source(self.K)

    def at_source(
        self, values: np.ndarray, *, outside: Any = 0, frame: int | None = None
    ) -> np.ndarray:
        """A map (h,w,...) of one frame at source resolution, by nearest neighbour.

        `frame`: which frame it belongs to; it must be given where source images differ in size.

        Nearest, because averaging across an edge invents depths between the two sides; the result
        is blocky where the source is larger. Source pixels outside the crop window get `outside`.
        """
        height, width = self.size_hw
        if values.shape[:2] != (height, width):
            raise InputError(f"the map must have {height}x{width} pixels, not {values.shape[:2]}")
        if frame is None and self.mapping.is_mixed:
            raise InputError("source images differ in size: say which frame the map belongs to")
        mapping = self.mapping if frame is None else self.mapping.of_frame(frame)
        source_h, source_w = mapping.source_hw
        u = mapping.from_source(np.stack([np.arange(source_w)] * 2, -1).astype(float))[:, 0]
        v = mapping.from_source(np.stack([np.arange(source_h)] * 2, -1).astype(float))[:, 1]
        columns, rows = np.rint(u).astype(int), np.rint(v).astype(int)
        out = values[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
        out[(rows < 0) | (rows >= height)] = outside
        out[:, (columns < 0) | (columns >= width)] = outside
        return out

    def depth_source(self, t: int) -> Float32[np.ndarray, "source_h source_w"]:
        """Depth of frame t at source resolution (see `at_source`); 0 where it is unknown.

        Goes with `K_source()`. Edge-aware upsampling is not done here.
        """
        checked_whole(t, "the frame", low=-len(self), high=len(self) - 1)
        return self.at_source(self.depth[t], frame=t)

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        precision: Literal["half", "full"] = "half",
    ) -> Path:
        """Write the native file, whole or not at all, and return its path.

        `path` ends in `.dyn3r`, or is a folder that gets a `scene.dyn3r`. Images, masks, cameras
        and times are exact. Depth, confidence and sigma are rounded to half precision
        relative to a power of two per frame (relative error at most 2^-11 = 0.05 %) unless
        `precision` is "full". What was loaded saves to the same bytes again. docs/scene-format.md.

        Raises:
            OutputError: the file exists and `overwrite` is False, or can't be written.
        """
        return write_fields(vars(self), path, overwrite=overwrite, precision=precision)

    @staticmethod
    def load(path: str | Path) -> Scene:
        """Read a scene from its file or from the folder that holds `scene.dyn3r`.

        Raises:
            InputError: not a scene, damaged, too large, or written by a newer dyn3r.
        """
        where, fields = read_fields(path)
        try:
            return Scene(**fields)
        except InputError as error:
            raise InputError(f"{where} is damaged: {error}") from error

    def export(
        self, format: str, path: str | Path, *, overwrite: bool = False, **options: Any
    ) -> Path:
        """Write the scene for another program: `scene.export("colmap", "out", source="clip.mp4")`.

        `format` is a name of `dyn3r.export.FORMATS`, `options` are the fields of
        `dyn3r.export.ExportOptions`. Returns `path`. docs/exports.md.

        Raises:
            InputError, OutputError, MissingExtraError: see `dyn3r.export.export`.
        """
        from dyn3r.export import ExportOptions, export

        if unknown := sorted(set(options) - set(ExportOptions.__dataclass_fields__)):
            raise InputError(f"there is no export option {unknown[0]!r:.40}")
        return export(self, format, path, ExportOptions(**options), overwrite=overwrite)

    def show(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        block: bool | None = None,
        embed: bool = False,
        height: int = 600,
    ) -> Any:
        """Show the scene: in a notebook below the cell, else in the browser. docs/viewer.md.

        Returns the `Viewer` (`url`, `play`, `stop`, ...). A script waits here until Ctrl-C unless
        `block` is False; a notebook or prompt goes on. `embed` puts the scene itself into the
        notebook, `height` pixels high, so that it needs no server and stays when the notebook is
        saved or sent (megabytes; returns None).

        Raises:
            InputError: nothing can listen on `host`, or `embed` outside a notebook.
        """
        from dyn3r.viewer.notebook import show

        return show(self, host=host, port=port, block=block, embed=embed, height=height)
