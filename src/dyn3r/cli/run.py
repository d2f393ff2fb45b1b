"""`dyn3r run`: a video in, a 4D scene out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dyn3r.cli.console import Flag, progress_bars
from dyn3r.errors import InputError
from dyn3r.types import Clip, Progress, no_progress

if TYPE_CHECKING:
    from dyn3r.motion.estimation import Findings
    from dyn3r.network.model import Model
    from dyn3r.options import Options
    from dyn3r.scene import Scene
    from dyn3r.types import Priors


WAYS = ("auto", "attention", "flow", "both", "learned", "flow+learned", "none")
SWITCH = {"auto": None, "on": True, "off": False}


@dataclass(frozen=True)
class Run:
    """Turn a video, or a folder of pictures, into a 4D scene.

    Writes OUT/scene.dyn3r (open it with `dyn3r view OUT`), OUT/overview.mp4 (frames, depth, motion,
    confidence side by side), OUT/contact_sheet.png and OUT/camera_path.png.
    """

    source: tyro.conf.Positional[Path]
    """A video file, a folder of pictures (natural order) or one picture."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder for the results; must be new or empty unless --overwrite."""
    model: str = "compact"
    """An embedded model (compact, compact-static), a published one (dust3r-512-dpt,
    monst3r-512-dpt, ...), a checkpoint file or a hub folder."""
    fps: float = 0.0
    """Keep every round(video_fps/fps)-th frame of a video; 0 keeps all."""
    num_frames: int | None = None
    """Keep at most this many frames."""
    start: float = 0.0
    """Seconds of the video to skip."""
    size: int | None = None
    """Long side of the frames in pixels, a multiple of 16; default: as the model was trained."""
    graph: str = "auto"
    """Pairs to compare: complete, swin-W, swinstride-W, swin2stride-W, logwin-W (each also with
    -noncyclic) or oneref-R. auto: swinstride-5-noncyclic (-4- above 95 frames)."""
    motion: str = "auto"
    """How what moves is found. attention: in the network's attention (Easi3R); flow: where optical
    flow contradicts a still scene; both; learned: by a motion head, which networks trained here
    have and published ones lack; flow+learned: both of these together; none: everything is static;
    or a folder of masks (PNG at source resolution, white = moving). auto: as the model
    recommends."""
    motion_model: str | None = None
    """Another model that finds what moves, named as in --model; --model then makes the geometry
    alone. Published numbers say MonST3R weights are best for masks and DUSt3R weights for cameras.
    """
    second_pass: Literal["auto", "on", "off"] = "auto"
    """Predict points once more with what moves ignored (Easi3R). auto: yes, but not where bundle
    adjustment is on by the model's recommendation and flow says what moves: it changes nothing
    there, and takes a seventh of the time."""
    flow: Literal["dis", "raft", "raft-small"] = "dis"
    """How optical flow is measured; dis needs no weights."""
    flow_term: Flag = True
    """Cameras must agree with measured optical flow as well (MonST3R's third loss); much steadier
    paths, a few seconds."""
    bundle: Literal["auto", "on", "off"] = "auto"
    """After the alignment, make cameras, focal length and depth agree with measured optical flow
    (bundle adjustment); with small models much better cameras and depth, a few seconds. off: as
    published; auto: as the model recommends."""
    mover_depth: Literal["auto", "network", "ground"] = "auto"
    """How far away moving things are. network: as the model says; ground: as far as what they stand
    on (small models hardly see people); auto: as the model recommends."""
    stereo: Literal["auto", "on", "off"] = "auto"
    """At the end, draw the depth anew from all frames at once with the cameras found (plane sweep
    and a small network): sharper, a few seconds. auto: as the model recommends."""
    refine: str = "auto"
    """How the masks found are made better. edges: a vote over time, then along the edges of the
    pictures; sam2: SAM 2 (extra sam2; weights from the hub) or sam2:FOLDER with its weights; none;
    auto: masks from flow as the model recommends (ours: edges), others not."""
    save_masks: Flag = False
    """Also write the masks, refined or not, as PNG at source resolution into OUT/masks."""
    mode: Literal["global", "feedforward"] = "global"
    """global: all cameras are found together. feedforward: every frame is compared with the first
    alone and written to OUT/frames as it comes; fast, nothing is optimised, for short paths."""
    live: Flag = False
    """With --mode feedforward: open a page in which the frames appear as they come."""
    port: int = 8080
    """Of the --live page; if it is taken, one of the next twenty."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the transformer; auto: bfloat16 where the hardware multiplies it fast."""
    window: int = 100
    """Frames whose cameras are found together in a longer clip; 0: all. Larger: less drift, more
    memory."""
    overlap: float = 0.5
    """Share of a window that the next one takes over as it is."""
    continue_from: Annotated[Path | None, tyro.conf.arg(metavar="OUT")] = None
    """An earlier result for the beginning of the source: only what follows it is computed, in the
    same world. Read the source with the same --fps and --size, from any frame of it."""
    cameras: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Known cameras: a transforms.json, a COLMAP model, a TUM or KITTI path, an .npz, a scene of
    ours (docs/alignment.md). Frames without one are found as always."""
    cameras_are: Literal["fixed", "start"] = "fixed"
    """fixed: known cameras and --fov hold to the last digit. start: the search begins there."""
    fov: float | None = None
    """Horizontal field of view of the source in degrees, if it is known."""
    solver: Literal["fast", "adam"] = "fast"
    """How cameras are found; adam is the published solver, slow, for comparison."""
    pixels: int = 0
    """Pixels of a frame that the alignment finds cameras from. More: closer to the full objective,
    slower in proportion, and seldom better cameras. 0: 1536, or 384 before bundle adjustment."""
    memory_gb: float = 2.0
    """Pairwise predictions beyond this size go to a temporary file instead of memory; so does
    measured flow."""
    overwrite: Flag = False
    """Replace the results in OUT."""
    pictures: Flag = True
    """Write overview.mp4, contact_sheet.png and camera_path.png next to the scene."""
    explain: Flag = False
    """Also draw what the method sees, into OUT/explain: attention maps, clusters, flow, residual,
    masks, of every frame as a video and of some as PNG."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing but errors."""

    def __call__(self) -> None:
        if self.mode == "feedforward":
            from dyn3r.cli.run_feedforward import run_feedforward

            run_feedforward(self)
        else:
            self._run_global()

    def _run_global(self) -> None:
        from dyn3r.io.atomic import check_output_folder
        from dyn3r.io.clip import read_clip, read_masks
        from dyn3r.network.pair_graph import parse_graph
        from dyn3r.pipeline import reconstruct
        from dyn3r.scene import Scene

        started = time.monotonic()
        check_output_folder(self.output, overwrite=self.overwrite)
        if self.graph != "auto":
            parse_graph(self.graph)
        options, masks_from = self._options(), self._masks_from()
        earlier = None if self.continue_from is None else Scene.load(self.continue_from)
        with progress_bars(self.quiet) as progress:
            model, motion_model = self.models(progress)
            clip = read_clip(
                self.source,
                fps=self.fps,
                num_frames=self.num_frames,
                size=self.size or model.image_size,
                start=self.start,
                progress=progress,
            )
            masks = None if masks_from is None else read_masks(masks_from, clip)
            options = replace(
                options, alignment=replace(options.alignment, priors=self._presets(clip))
            )
            seen: list[Findings] = []
            scene = reconstruct(
                clip, model, options, motion_model=motion_model, masks=masks,
                continue_from=earlier, on_findings=seen.append if self.explain else None,
                progress=progress,
            )  # fmt: skip
            files = write_results(
                scene, self.output, overwrite=self.overwrite, pictures=self.pictures,
                findings=seen[0] if seen else None,
                masks_of=self.source if self.save_masks else None, progress=progress,
            )  # fmt: skip
        if not self.quiet:
            report(scene, files, self.output, time.monotonic() - started)

    def models(self, progress: Progress) -> tuple[Model, Model | None]:
        """The model and, if one was named, the model for motion."""
        from dyn3r.network.model import load_model

        progress("loading the model", 0, 1)
        model, motion_model = (
            None if name is None else
            load_model(name, device=self.device, precision=self.precision, progress=progress)
            for name in (self.model, self.motion_model)
        )  # fmt: skip
        progress("loading the model", 1, 1)
        assert model is not None
        return model, motion_model

    def _options(self) -> Options:
        from dyn3r.alignment import AlignmentOptions
        from dyn3r.network.predict import InferenceOptions
        from dyn3r.options import Options

        return Options(
            graph=self.graph,
            motion=self.motion if self.motion in WAYS else "none",  # type: ignore[arg-type]
            flow=self.flow,
            second_pass=SWITCH[self.second_pass],
            flow_term=self.flow_term,
            bundle=SWITCH[self.bundle],
            stereo=SWITCH[self.stereo],
            mover_depth=self.mover_depth,
            refine=self.refine,
            inference=InferenceOptions(memory_gb=self.memory_gb),
            alignment=AlignmentOptions(
                window=self.window, overlap=self.overlap, solver=self.solver, pixels=self.pixels
            ),
        )

    def _presets(self, clip: Clip) -> Priors:
        """What is known of the cameras."""
        from dyn3r.io.camera_files import known_field_of_view
        from dyn3r.scene.known_cameras import read_cameras
        from dyn3r.types import Priors

        fixed = self.cameras_are == "fixed"
        known = Priors(fix_K=fixed, fix_T=fixed)
        if self.cameras is not None:
            known = read_cameras(self.cameras, clip, fixed=fixed)
        if self.fov is not None:
            if known.K is not None:
                raise InputError(f"{self.cameras} says what --fov says: leave one of them out")
            known = replace(known, K=known_field_of_view(self.fov, clip).K)
        return known

    def _masks_from(self) -> Path | None:
        """The folder of masks, if one was given; besides, what contradicts itself is refused."""
        masks_from = None if self.motion in WAYS else Path(self.motion)
        if masks_from is not None and not masks_from.exists():
            raise InputError(
                f"--motion is {', '.join(WAYS)} or a folder of masks; {masks_from} does not exist"
            )
        if self.motion_model is not None and (masks_from or self.motion == "none"):
            raise InputError("--motion-model is of no use where motion is not looked for")
        if self.save_masks and self.continue_from is not None:
            raise InputError(
                "--save-masks can't go with --continue-from, as the source may lack the earlier "
                "frames: use dyn3r export OUT --to masks afterwards"
            )
        if self.live:
            raise InputError("--live needs --mode feedforward: else all frames come at the end")
        if not self.source.exists():
            raise InputError(f"{self.source} does not exist")
        return masks_from


def write_results(
    scene: Scene,
    output: Path,
    *,
    overwrite: bool,
    pictures: bool,
    findings: Findings | None = None,
    masks_of: Path | None = None,
    progress: Progress = no_progress,
) -> list[Path]:
    """The scene and its pictures, all of them or none; returns what was written.

    `findings`: also draw these. `masks_of`: the source, to write masks at its resolution.
    """
    from dyn3r.io.atomic import atomic_folder
    from dyn3r.scene.explanation import write_explanation
    from dyn3r.scene.pictures import write_camera_path, write_contact_sheet, write_overview_video

    writers: list[tuple[str, Any]] = [("scene.dyn3r", scene.save)]
    if pictures:
        writers += [
            ("contact_sheet.png", lambda path: write_contact_sheet(scene, path)),
            ("camera_path.png", lambda path: write_camera_path(scene, path)),
            ("overview.mp4", lambda path: write_overview_video(scene, path)),
        ]
    if findings is not None:
        writers.append(("explain", lambda path: write_explanation(findings, scene, path)))
    if masks_of is not None:
        writers.append(("masks", lambda path: scene.export("masks", path, source=masks_of)))
    with atomic_folder(output, overwrite=overwrite) as folder:
        for done, (name, write) in enumerate(writers):
            progress("writing results", done, len(writers))
            write(folder / name)
    progress("writing results", len(writers), len(writers))
    return [output / name for name, _ in writers]


def report(scene: Scene, files: Sequence[Path], output: Path, seconds: float) -> None:
    """Say what was done, and where it is."""
    for note in scene.metadata.get("notes", []):
        print(f"note: {note}")
    print(f"{len(scene)} frames of {scene.size_hw[1]}x{scene.size_hw[0]} in {seconds:.1f} s")
    print("wrote " + ", ".join(str(file) for file in files))
    print(f"look at it:  dyn3r view {output}")
