"""`dyn3r run`: a video in, a 4D scene out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dyn3r.commands.console import Flag, progress_bars
from dyn3r.errors import InputError
from dyn3r.types import Progress, no_progress

if TYPE_CHECKING:
    from dyn3r.scene import Scene


WAYS = ("auto", "attention", "flow", "both", "none")


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
    """An embedded model (compact), a published one (dust3r-512-dpt, monst3r-512-dpt, ...), a
    checkpoint file or a hub folder."""
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
    flow contradicts a still scene; both; none: everything is static; or a folder of masks (PNG at
    source resolution, white = moving). auto: as the model recommends."""
    flow: Literal["dis", "raft", "raft-small"] = "dis"
    """How optical flow is measured; dis needs no weights."""
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
    solver: Literal["fast", "adam"] = "fast"
    """How cameras are found; adam is the published solver, slow, for comparison."""
    memory_gb: float = 2.0
    """Pairwise predictions beyond this size go to a temporary file instead of memory."""
    overwrite: Flag = False
    """Replace the results in OUT."""
    pictures: Flag = True
    """Write overview.mp4, contact_sheet.png and camera_path.png next to the scene."""
    quiet: Annotated[Flag, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing but errors."""

    def __call__(self) -> None:
        from dyn3r.alignment import AlignmentOptions
        from dyn3r.clip import read_clip, read_masks
        from dyn3r.files import check_output_folder
        from dyn3r.network.model import load_model
        from dyn3r.network.predict import InferenceOptions
        from dyn3r.pairs import parse_graph
        from dyn3r.pipeline import Options, reconstruct
        from dyn3r.scene import Scene

        started = time.monotonic()
        check_output_folder(self.output, overwrite=self.overwrite)
        if self.graph != "auto":
            parse_graph(self.graph)
        options = Options(
            graph=self.graph,
            motion=self.motion if self.motion in WAYS else "none",  # type: ignore[arg-type]
            flow=self.flow,
            inference=InferenceOptions(memory_gb=self.memory_gb),
            alignment=AlignmentOptions(
                window=self.window, overlap=self.overlap, solver=self.solver
            ),
        )
        earlier = None if self.continue_from is None else Scene.load(self.continue_from)
        masks_from = None if self.motion in WAYS else Path(self.motion)
        if masks_from is not None and not masks_from.exists():
            raise InputError(
                f"--motion is {', '.join(WAYS)} or a folder of masks; {masks_from} does not exist"
            )
        if not self.source.exists():
            raise InputError(f"{self.source} does not exist")
        with progress_bars(self.quiet) as progress:
            progress("loading the model", 0, 1)
            model = load_model(
                self.model, device=self.device, precision=self.precision, progress=progress
            )
            progress("loading the model", 1, 1)
            clip = read_clip(
                self.source,
                fps=self.fps,
                num_frames=self.num_frames,
                size=self.size or model.image_size,
                start=self.start,
                progress=progress,
            )
            masks = None if masks_from is None else read_masks(masks_from, clip)
            scene = reconstruct(
                clip, model, options, masks=masks, continue_from=earlier, progress=progress
            )
            files = write_results(
                scene, self.output, overwrite=self.overwrite, pictures=self.pictures,
                progress=progress,
            )  # fmt: skip
        if not self.quiet:
            _report(scene, files, self.output, time.monotonic() - started)


def write_results(
    scene: Scene,
    output: Path,
    *,
    overwrite: bool,
    pictures: bool,
    progress: Progress = no_progress,
) -> list[Path]:
    """The scene and its pictures, all of them or none; returns what was written."""
    from dyn3r.files import atomic_folder
    from dyn3r.pictures import write_camera_path, write_contact_sheet, write_overview_video

    writers: list[tuple[str, Any]] = [("scene.dyn3r", scene.save)]
    if pictures:
        writers += [
            ("contact_sheet.png", lambda path: write_contact_sheet(scene, path)),
            ("camera_path.png", lambda path: write_camera_path(scene, path)),
            ("overview.mp4", lambda path: write_overview_video(scene, path)),
        ]
    with atomic_folder(output, overwrite=overwrite) as folder:
        for done, (name, write) in enumerate(writers):
            progress("writing results", done, len(writers))
            write(folder / name)
    progress("writing results", len(writers), len(writers))
    return [output / name for name, _ in writers]


def _report(scene: Scene, files: Sequence[Path], output: Path, seconds: float) -> None:
    for note in scene.metadata.get("notes", []):
        print(f"note: {note}")
    print(f"{len(scene)} frames of {scene.size_hw[1]}x{scene.size_hw[0]} in {seconds:.1f} s")
    print("wrote " + ", ".join(str(file) for file in files))
    print(f"look at it:  dyn3r view {output}")
