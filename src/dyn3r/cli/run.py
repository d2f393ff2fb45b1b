"""`dyn3r run`: a video in, a 4D scene out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dyn3r.alignment.clip_windows import WindowOptions
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.cli import run_windows
from dyn3r.cli.console import Flag, limit_threads, progress_bars
from dyn3r.cli.frames import FrameOptions, expected_seconds, plan_frames
from dyn3r.cli.overall import PREVIEW, Overall
from dyn3r.cli.results import (
    check_source,
    is_result,
    load_models,
    report,
    result_files,
    write_results,
)
from dyn3r.cli.terminal import say
from dyn3r.errors import InputError
from dyn3r.motion.options import MotionOptions
from dyn3r.network.options import InferenceOptions
from dyn3r.options import FlowOptions, Options, RefinementOptions, windows_of
from dyn3r.types import Clip, Priors, Progress, RunContext, no_observer

if TYPE_CHECKING:
    import numpy as np

    from dyn3r.cli.run_view import RunPage
    from dyn3r.network.model import Model
    from dyn3r.scene import Scene
    from dyn3r.scene.findings import Findings, Recorder


@dataclass(frozen=True)
class KnownInputs:
    """What is known about the clip beforehand."""

    masks: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Masks of moving objects (PNG at source resolution); motion is then not estimated."""
    masks_mean: Literal["auto", "moving", "static"] = "auto"
    """What white is in the masks: moving objects (DAVIS), or the static rest (COLMAP, nerfstudio).
    auto: found out, and said."""
    cameras: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Known cameras: transforms.json, a COLMAP model, a TUM or KITTI trajectory, .npz, a dyn3r
    scene (docs/known-cameras.md). Frames without one are estimated."""
    quaternion: Literal["auto", "xyzw", "wxyz"] = "auto"
    """Order of the quaternions in a TUM trajectory. auto: xyzw, or wxyz where the file shows it."""
    fov: float | None = None
    """Horizontal field of view of the source in degrees."""
    fixed: bool = True
    """Keep known cameras and field of view exactly; off: they are the initial values."""


@dataclass(frozen=True)
class InputOptions:
    """What is done about the files as they are (docs/files.md)."""

    split_cuts: bool = True
    """By default the longest shot of a clip with cuts is reconstructed, and the others are named.
    With --no-split-cuts all shots are taken for one."""
    keep_borders: Flag = False
    """Do not crop bars around the picture (letterbox, pillarbox)."""
    fit: Literal["auto", "crop", "cover", "area"] = "auto"
    """How images become frames whose sides are multiples of 16. crop: as the published programs,
    which cut off up to 15 pixels of the short side; cover: to the nearest multiple; area: as
    cover, and frames of wide or square pictures have about as many pixels as others. auto: as the
    model and --size suggest (docs/frames.md)."""


@dataclass(frozen=True)
class Run:
    """Turn a video, or a folder of images, into a 4D scene.

    Examples:

        dyn3r run cat.mp4 -o cat
        dyn3r run cat.mp4 -o cat --fps 10 --size 320 --explain
        dyn3r run frames/ -o cat --model monst3r-512-dpt --method easi3r --motion.refine sam2

    Writes OUT/scene.dyn3r (open it with `dyn3r view OUT`), OUT/overview.mp4 (frames, depth, motion,
    confidence and the scene in 3-D side by side), OUT/contact_sheet.png and OUT/camera_path.png.
    """

    source: tyro.conf.Positional[Path]
    """A video file, a folder of images (natural order) or one image."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the results; must be new or empty unless --overwrite."""
    model: str = "compact"
    """The embedded model (compact), a published one (da3-small, da3-base, monst3r-512-dpt, ...), a
    checkpoint file or a hub folder. `dyn3r models` lists them."""
    method: Literal["auto", "dust3r", "monst3r", "easi3r", "vggt4d", "refined"] = "auto"
    """The recipe. dust3r: one pass, static scene; monst3r: motion from flow, flow and smoothness
    terms; easi3r: motion from attention, second pass; vggt4d: the same for many-view networks
    (da3-small, da3-base); refined: motion from flow, bundle adjustment, multi-view depth. auto: as
    the checkpoint recommends, else easi3r."""
    motion_model: str | None = None
    """Another model that finds motion; --model then makes the geometry only."""
    pairs: str = "auto"
    """Pairs to compare: complete, swin-W, swinstride-W, swin2stride-W, logwin-W (each also
    -noncyclic) or oneref-R. auto: swinstride-5-noncyclic (4 above 95 frames), before bundle
    adjustment swinstride-3-noncyclic-alternating (each pair in one direction)."""
    fps: float = 0.0
    """Keep every round(video_fps/fps)-th frame of a video; 0: see --every."""
    num_frames: int | None = None
    """Number of frames, spread evenly over the video; with --fps or --every: the first so many."""
    start: float = 0.0
    """Seconds of the video to skip."""
    end: float | None = None
    """Seconds from the beginning of the video at which to end."""
    every: int | None = None
    """Keep every N-th frame. Default: all of up to 90 frames; of more, every N-th so that at most
    90 are kept."""
    all_frames: Flag = False
    """Keep all frames, however many."""
    size: int | None = None
    """Long side of the frames in pixels, a multiple of 16; default: as the model was trained,
    and where that is small, larger for pictures wider than 16:9 and smaller for squares."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the transformer; auto: bfloat16 where the hardware multiplies it fast."""
    threads: int = 0
    """Cores that may be used; 0: all."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="OUT")] = None
    """The OUT of this command, where it was stopped or killed: finished windows are taken over. Or
    an earlier result for the beginning of the source: only later frames are computed, in the same
    world. Use the same --fps and --size."""
    save_masks: Flag = False
    """Also write the masks as PNG at source resolution into OUT/masks."""
    explain: Flag = False
    """Also draw the motion cues into OUT/explain: attention maps, clusters, flow, residuals."""
    no_pictures: Flag = False
    """Do not write overview.mp4, contact_sheet.png and camera_path.png."""
    view: Flag = False
    """Open a page in the browser that shows the run while it computes: stage, depth and masks as
    they are found, a rough scene, the refined one. It stays until Ctrl-C."""
    view_port: int = 8080
    """Port of the --view page; if it is taken, one of the next twenty."""
    no_browser: Flag = False
    """With --view: only print the address; do not open it."""
    overwrite: Flag = False
    """Replace the results in OUT."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Print errors only."""
    known: tyro.conf.FlagConversionOff[KnownInputs] = field(default_factory=KnownInputs)
    input: tyro.conf.OmitArgPrefixes[InputOptions] = field(default_factory=InputOptions)
    motion: tyro.conf.FlagConversionOff[MotionOptions] = field(default_factory=MotionOptions)
    flow: tyro.conf.FlagConversionOff[FlowOptions] = field(default_factory=FlowOptions)
    alignment: tyro.conf.FlagConversionOff[AlignmentOptions] = field(
        default_factory=AlignmentOptions
    )
    refinement: tyro.conf.FlagConversionOff[RefinementOptions] = field(
        default_factory=RefinementOptions
    )
    inference: tyro.conf.FlagConversionOff[InferenceOptions] = field(
        default_factory=InferenceOptions
    )
    windows: tyro.conf.FlagConversionOff[WindowOptions] = field(default_factory=WindowOptions)

    def __call__(self) -> None:
        """Carry out the command. Raises the errors of `dyn3r.errors`."""
        from dyn3r.io.atomic import check_output_folder

        started = time.monotonic()
        self._check()
        limit_threads(self.threads)
        check_output_folder(self.output, overwrite=self.overwrite)
        page = self._open_page() if self.view else None
        try:
            with progress_bars(quiet=self.quiet) as bars:
                progress = bars if page is None else page.progress(bars)
                models = load_models(
                    (self.model, self.motion_model), self.device, self.precision, progress
                )
                scene, files = self.reconstruct(models, progress, page=page)
            if not self.quiet:
                report(scene, files, self.output, time.monotonic() - started)
            if page is not None:
                page.finish()
                if not self.quiet:
                    say(f"the page stays at {page.url} until Ctrl-C")
                page.wait()
        finally:
            if page is not None:
                page.stop()

    def _open_page(self) -> RunPage:
        from dyn3r.cli.run_view import RunPage

        page = RunPage(self.source.name or "clip", self.view_port)
        opened = not self.no_browser and page.open_in_browser()
        if not self.quiet or not opened:
            say(f"watch it at {page.url}")
        return page

    def reconstruct(
        self,
        models: tuple[Model, Model | None],
        progress: Progress,
        metadata: dict[str, Any] | None = None,
        page: RunPage | None = None,
    ) -> tuple[Scene, list[Path]]:
        """The scene of the source, and the files that were written. Raises `dyn3r.errors`.

        `metadata`: entries that are added to those of the scene. `page`: shows what is found.
        """
        from dyn3r.io.atomic import atomic_folder
        from dyn3r.scene.findings import Recorder

        recorder = Recorder() if self.explain else None
        overall = Overall(progress, without=(PREVIEW,))
        seen_by = _observer(recorder, page)

        def observe(name: str, value: object) -> None:
            overall.observe(name, value)
            seen_by(name, value)

        context = RunContext(overall, observe, overall.stage)
        with (
            atomic_folder(self.output, overwrite=self.overwrite, is_stale=is_result) as folder,
            run_windows.kept(
                self.output, self.resume, overwrite=self.overwrite, quiet=self.quiet
            ) as windows,
        ):
            scene = self._compute(models, replace(context, windows=windows), overall)
            scene = replace(scene, metadata={**scene.metadata, **(metadata or {})})
            if page is not None:
                page.show_scene(scene)
            written = write_results(
                scene, folder, pictures=not self.no_pictures,
                findings=_findings(recorder, context),
                masks_of=self.source if self.save_masks else None, progress=overall,
            )  # fmt: skip
        run_windows.discard(windows)
        return scene, result_files(written, self.output)

    def _compute(
        self, models: tuple[Model, Model | None], context: RunContext, overall: Overall
    ) -> Scene:
        """The scene of the source."""
        from dyn3r.io.camera_files import without_distortion
        from dyn3r.io.clip import read_clip
        from dyn3r.io.inspection.cuts import longest_shot
        from dyn3r.scene import Scene

        earlier = None
        if self.resume is not None and not run_windows.goes_on(self.output, self.resume):
            earlier = Scene.load(self.resume)
        chosen = plan_frames(self.source, self._frames(), earlier)
        clip = read_clip(
            self.source,
            **chosen.arguments,
            size=models[0].image_size if self.size is None else self.size,
            fit=models[0].fit(self.size) if self.input.fit == "auto" else self.input.fit,
            crop_borders=not self.input.keep_borders,
            progress=context.progress,
        )
        if self.input.split_cuts:
            clip = longest_shot(clip)
        lens = None if earlier is None else earlier.mapping.lens
        if earlier is not None and earlier.mapping.is_undistorted and lens is None:
            raise InputError(
                f"{self.resume} was made with cameras whose lens distortion differs between "
                "frames, and that of new frames is not known"
            )
        if lens is not None:
            clip = without_distortion(clip, lens)
        clip, priors = self._priors(clip)
        options = replace(self.options(), priors=priors)
        windows = windows_of(options, models[0], clip, models[1])
        if self.explain and windows is not None:
            raise InputError(
                "--explain draws frames of one window: give fewer frames, or --windows.frames 0"
            )
        if not self.quiet:
            overall.expected_s = expected_seconds(clip, models[0], options)
            said = run_windows.in_words(windows, options.windows.memory_gb)
            say(chosen.line(self.source, len(clip), overall.expected_s, said), error=True)
        return self._scene(clip, models, options, earlier, context)

    def _scene(
        self,
        clip: Clip,
        models: tuple[Model, Model | None],
        options: Options,
        earlier: Scene | None,
        context: RunContext,
    ) -> Scene:
        """The scene of the clip, or of its new frames appended to an earlier one."""
        from dyn3r.pipeline import reconstruct, resume

        model, motion_model = models
        clip, masks = self._masks(clip)
        if earlier is not None:
            return resume(
                clip, earlier, model, options, motion_model=motion_model, masks=masks,
                context=context,
            )  # fmt: skip
        return reconstruct(
            clip, model, options, motion_model=motion_model, masks=masks, context=context
        )

    def options(self) -> Options:
        """The options of the reconstruction, without known cameras."""
        return Options(
            method=self.method, pairs=self.pairs, motion=self.motion, flow=self.flow,
            alignment=self.alignment, refinement=self.refinement, inference=self.inference,
            windows=self.windows,
        )  # fmt: skip

    def _frames(self) -> FrameOptions:
        return FrameOptions(
            self.fps, self.num_frames, self.start, self.end, self.every, self.all_frames
        )

    def _check(self) -> None:
        """Refuse what is missing or contradicts itself before anything is loaded."""
        if not self.source.exists():
            raise InputError(f"{self.source} does not exist")
        check_source(self.source, self.output)
        self._frames().check()
        run_windows.check(self.output, self.resume, overwrite=self.overwrite)
        if self.known.masks is not None and not self.known.masks.exists():
            raise InputError(f"{self.known.masks} does not exist: give a folder of masks")
        fresh = self.resume is None or run_windows.goes_on(self.output, self.resume)
        if self.save_masks and not fresh:
            raise InputError(
                "--save-masks can't be combined with --resume, as the source may lack the earlier "
                "frames: use dyn3r export OUT --to masks afterwards"
            )

    def _priors(self, clip: Clip) -> tuple[Clip, Priors]:
        """The clip without lens distortion, known cameras and intrinsics."""
        from dyn3r.io.camera_files import known_field_of_view
        from dyn3r.scene.known_cameras import known_cameras

        fixed = self.known.fixed
        priors = Priors(fix_K=fixed, fix_T=fixed)
        if self.known.cameras is not None:
            clip, priors = known_cameras(
                self.known.cameras, clip, fixed=fixed, quaternion=self.known.quaternion
            )
        if self.known.fov is not None:
            if priors.K is not None:
                raise InputError(
                    f"{self.known.cameras} has the intrinsics that --known.fov gives: leave one out"
                )
            priors = replace(priors, K=known_field_of_view(self.known.fov, clip).K)
        return clip, priors

    def _masks(self, clip: Clip) -> tuple[Clip, np.ndarray | None]:
        """The clip with a report of known masks, and these, (n,h,w)."""
        from dyn3r.io.mask_files import known_masks

        if self.known.masks is None:
            return clip, None
        return known_masks(self.known.masks, clip, mean=self.known.masks_mean)


def _observer(recorder: Recorder | None, page: RunPage | None) -> Callable[[str, object], None]:
    """Tells both of them what a run finds."""
    watcher = None if page is None else page.watcher()
    if recorder is None or watcher is None:
        return recorder or watcher or no_observer

    def tell(name: str, value: object) -> None:
        recorder(name, value)
        watcher(name, value)

    return tell


def _findings(recorder: Recorder | None, context: RunContext) -> Findings | None:
    """What the motion cues saw, if it was recorded."""
    from dyn3r.scene.findings import collect_findings

    return None if recorder is None else collect_findings(recorder, context)
