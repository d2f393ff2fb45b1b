"""Published evaluation protocols as tables of data (docs/design/DATASETS.md, 1.2 to 2.9).

A protocol says which frames of which sequences are taken, how they are brought to the network, what
is compared and how it is averaged. Conventions that contradict each other have their own names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dyn3r.datasets.adt import CLIPS
from dyn3r.datasets.davis import VAL_2016, VAL_2017
from dyn3r.datasets.kitti import VAL_DRIVES
from dyn3r.datasets.scannet import UNUSABLE
from dyn3r.datasets.tum import DYNAMIC
from dyn3r.errors import InputError

Task = Literal["masks", "cameras", "depth"]
Average = Literal["frames", "sequences", "pixels"]


@dataclass(frozen=True)
class Published:
    """A row of a published table."""

    method: str
    values: dict[str, float]
    """Metric name -> value, in the unit of `METRICS`."""
    source: str
    """Where it was read."""


@dataclass(frozen=True)
class Protocol:
    """How a data set is evaluated."""

    name: str
    """AUTHORS/DATA, such as `easi3r/davis-16`."""
    dataset: str
    """Reader: a module of `dyn3r.datasets`."""
    tasks: tuple[Task, ...]
    """What is compared, where there is truth."""
    average: Average
    """Over what the published mean is taken: all frames of all sequences together, sequences, or
    sequences weighted by their valid pixels."""
    sequences: tuple[str, ...] | None = None
    """The sequences of the published table; None: all that there are."""
    count: int | None = None
    """Number of sequences of the published table, where they are not listed; None: unknown."""
    frames: int | None = None
    """Number of frames of the published table, all sequences together; None: unknown."""
    exclude: tuple[str, ...] = ()
    """Sequences without usable truth."""
    start: int = 0
    stride: int = 1
    limit: int | None = None
    """Frames start, start + stride, ..., at most `limit`."""
    drop_last: bool = False
    """Leave out the last frame of a sequence, which has no truth."""
    stretch: bool = False
    """Frames are resized to multiples of 16 with another aspect ratio, in place of a crop."""
    depth_alignment: str = "median"
    """One of `dyn3r.evaluation.depth_metrics.ALIGNMENTS`, per sequence."""
    max_depth: float = float("inf")
    """True depth at or beyond it is left out."""
    clip: float = float("inf")
    """Largest value of the aligned prediction."""
    remarks: str = ""
    """What a reader of the numbers must know."""
    published: tuple[Published, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the table shows."""
        return tuple(name for task in self.tasks for name in TASK_METRICS[task])


TASK_METRICS: dict[Task, tuple[str, ...]] = {
    "masks": ("JM", "JR", "false moving"),
    "cameras": ("ATE", "RPEt", "RPEr", "ATE/path", "focal", "registered"),
    "depth": ("abs rel", "d<1.25"),
}
METRICS: dict[str, str] = {
    "JM": "mean intersection over union of the masks of each frame",
    "JR": "share of frames with intersection over union above 0.5",
    "false moving": "share of the static pixels that are called moving",
    "ATE": "rms error of camera centres after a similarity, in the unit of the truth",
    "RPEt": "rms translation error between consecutive frames, in the unit of the truth",
    "RPEr": "rms rotation error between consecutive frames, degrees",
    "ATE/path": "ATE as a share of the length of the true path",
    "focal": "mean of |f / true f - 1|",
    "registered": "share of the frames that have a camera (of colmap; others have all)",
    "abs rel": "mean of |depth / true depth - 1| after alignment",
    "d<1.25": "share of pixels within 25 % after alignment",
}
"""Name -> definition, with its unit."""

SINTEL_POSE = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5",
    "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
)  # fmt: skip
"""Source: SPEC 11."""
BONN = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
"""Source: DATASETS.md, 2.4."""

_EASI3R = "Easi3R, as quoted in DATASETS.md"


def _masks(rows: dict[str, tuple[float, float]], source: str) -> tuple[Published, ...]:
    return tuple(Published(m, {"JM": jm, "JR": jr}, source) for m, (jm, jr) in rows.items())


def _cameras(rows: dict[str, tuple[float, ...]], source: str) -> tuple[Published, ...]:
    names = ("ATE", "RPEt", "RPEr")
    return tuple(Published(m, dict(zip(names, v)), source) for m, v in rows.items())


def _depth(rows: dict[str, tuple[float, float]], source: str) -> tuple[Published, ...]:
    return tuple(Published(m, {"abs rel": a, "d<1.25": d}, source) for m, (a, d) in rows.items())


_DAVIS = {
    "16": {"DUSt3R + flow": (0.421, 0.457), "MonST3R + flow": (0.409, 0.422),
           "Easi3R (DUSt3R)": (0.531, 0.604), "Easi3R (MonST3R)": (0.577, 0.716)},
    "17": {"DUSt3R + flow": (0.352, 0.353), "MonST3R + flow": (0.386, 0.382),
           "Easi3R (DUSt3R)": (0.490, 0.564), "Easi3R (MonST3R)": (0.565, 0.686)},
    "all": {"DUSt3R + flow": (0.359, 0.340), "MonST3R + flow": (0.367, 0.343),
            "Easi3R (DUSt3R)": (0.445, 0.496), "Easi3R (MonST3R)": (0.530, 0.634)},
}  # fmt: skip
"""JM, JR without SAM 2. Source: Easi3R's table; DATASETS.md, 2.1."""


def _davis(split: str, sequences: tuple[str, ...] | None, frames: int | None) -> Protocol:
    return Protocol(
        name=f"easi3r/davis-{split}",
        dataset="davis",
        tasks=("masks",),
        average="frames",
        sequences=sequences,
        count=None if sequences else 90,
        frames=frames,
        remarks="Mean over all frames of all sequences together. The truth is any object of the "
        "annotation, moving or not. A network that finds the salient object in single images "
        "reaches a JM of about 69 % on 16.",
        published=_masks(_DAVIS[split], _EASI3R),
    )


_SECTIONS = {"sintel": "2.2", "bonn": "2.4", "kitti": "2.5"}
"""Sections of DATASETS.md."""
_MEDIAN = "Median scale per sequence."
_MONST3R_SINTEL = Protocol(
    "monst3r/sintel-depth", "sintel", ("depth",), "pixels", count=23, frames=1064, stretch=True,
    max_depth=70.0, clip=70.0, remarks=_MEDIAN,
    published=_depth({"MonST3R": (0.348, 0.550)}, "a user of MonST3R; DATASETS.md, 2.2"),
)  # fmt: skip
_MONST3R_BONN = Protocol(
    "monst3r/bonn", "bonn", ("depth",), "pixels", BONN, frames=550, start=30, limit=110,
    stretch=True, max_depth=70.0, remarks=f"{_MEDIAN} Depth is matched by time.",
)  # fmt: skip
_MONST3R_KITTI = Protocol(
    "monst3r/kitti", "kitti", ("depth",), "pixels", VAL_DRIVES, limit=110, stretch=True,
    remarks=_MEDIAN,
)  # fmt: skip


def _cut3r(protocol: Protocol, rows: dict[str, tuple[float, float]]) -> Protocol:
    """The protocol with the alignment of CUT3R's table of depth at one scale per sequence.

    Its program aligns by the least absolute error, not by the medians (DATASETS.md, 1.3).
    """
    section = _SECTIONS[protocol.dataset]
    return replace(
        protocol,
        name=protocol.name.replace("monst3r/", "cut3r/"),
        depth_alignment="scale_weiszfeld",
        remarks=protocol.remarks.replace(_MEDIAN, "Scale of least absolute error per sequence."),
        published=_depth(rows, f"CUT3R, scale; DATASETS.md, {section}"),
    )


def _lad2(protocol: Protocol, rows: dict[str, tuple[float, float]]) -> Protocol:
    """The protocol with the alignment by which MonST3R scored its own method (DATASETS.md, 0)."""
    source = f"MonST3R, scale and shift; DATASETS.md, {_SECTIONS[protocol.dataset]}"
    return replace(
        protocol,
        name=f"{protocol.name}-lad2",
        depth_alignment="lad2",
        remarks="Scale and shift per sequence by 1000 small steps from the median scale, which "
        "move each by about 0.1: no fit, and it depends on the unit of the truth.",
        published=_depth(rows, source),
    )


PROTOCOLS: tuple[Protocol, ...] = (
    _davis("16", VAL_2016, 1376),
    _davis("17", VAL_2017, 1999),
    _davis("all", None, None),
    Protocol(
        "monst3r/sintel-pose", "sintel", ("cameras",), "sequences", SINTEL_POSE, frames=643,
        published=_cameras(
            {"DUSt3R": (0.417, 0.250, 5.796), "MonST3R": (0.108, 0.042, 0.732),
             "CUT3R": (0.213, 0.066, 0.621)}, "MonST3R and CUT3R, as quoted in DATASETS.md, 2.2"),
    ),
    Protocol(
        "dyn3r/sintel-masks", "sintel", ("masks",), "frames", count=23, drop_last=True,
        remarks="Mean over all frames of all sequences together. The truth is any pixel whose flow "
        "is not that of the camera.",
    ),
    _MONST3R_SINTEL,
    _lad2(_MONST3R_SINTEL, {"MonST3R": (0.335, 0.585)}),
    _cut3r(_MONST3R_SINTEL, {"MonST3R": (0.378, 0.558)}),
    Protocol(
        "monst3r/tum", "tum", ("cameras",), "sequences", DYNAMIC, frames=720, stride=3, limit=90,
        remarks="The first 90 of every third associated frame (0.1 s apart).",
        published=_cameras(
            {"DUSt3R": (0.083, 0.017, 3.567), "MonST3R": (0.098, 0.019, 0.935),
             "CUT3R": (0.046, 0.015, 0.473)}, "CUT3R; DATASETS.md, 2.3"),
    ),
    Protocol(
        "easi3r/tum", "tum", ("cameras",), "sequences", DYNAMIC, stride=30,
        remarks="Every 30th associated frame of the whole sequence (1 s apart).",
        published=_cameras(
            {"DUSt3R": (0.100, 0.087, 2.692), "MonST3R": (0.183, 0.148, 6.985),
             "Easi3R (DUSt3R) + flow": (0.070, 0.061, 2.361)}, "Easi3R; DATASETS.md, 2.3"),
    ),
    _MONST3R_BONN,
    _cut3r(_MONST3R_BONN, {"MonST3R": (0.067, 0.963), "CUT3R": (0.078, 0.937)}),
    _lad2(_MONST3R_BONN, {"MonST3R": (0.063, 0.964)}),
    _MONST3R_KITTI,
    _cut3r(_MONST3R_KITTI, {"MonST3R": (0.168, 0.744), "CUT3R": (0.118, 0.881)}),
    _lad2(
        _MONST3R_KITTI,
        {"MonST3R": (0.104, 0.895), "MonST3R, updated setting": (0.089, 0.911)},
    ),
    Protocol(
        "dyn3r/kitti-selection", "kitti_selection", ("depth",), "pixels", stretch=True,
        remarks="Single images, median scale per image.",
    ),
    Protocol("dyn3r/kitti-odometry", "kitti_odometry", ("cameras",), "sequences"),
    Protocol(
        "monst3r/nyu", "nyu", ("depth",), "pixels", count=654, stretch=True,
        remarks="Single images, median scale per image.",
        published=(Published("MonST3R", {"abs rel": 0.091}, "a re-implementer; DATASETS.md, 2.6"),),
    ),
    Protocol(
        "monst3r/scannet", "scannet", ("cameras",), "sequences", count=94,
        exclude=UNUSABLE, stride=3, limit=90,
        published=_cameras(
            {"DUSt3R": (0.081, 0.028, 0.784), "MonST3R": (0.077, 0.018, 0.529),
             "CUT3R": (0.099, 0.022, 0.600)}, "CUT3R; DATASETS.md, 2.7"),
    ),
    Protocol(
        "easi3r/adt", "adt", ("cameras",), "sequences", CLIPS, frames=480, stride=5,
        published=_cameras(
            {"DUSt3R": (0.042, 0.025, 1.212), "Easi3R (DUSt3R) + flow": (0.042, 0.015, 0.655),
             "Easi3R (MonST3R) + flow": (0.039, 0.016, 0.640)}, "Easi3R; DATASETS.md, 2.9"),
    ),
    Protocol(
        "easi3r/dycheck", "dycheck", ("cameras",), "sequences", count=12, stride=10, stretch=True,
        published=_cameras(
            {"DUSt3R": (0.035, 0.030, 2.323), "Easi3R (DUSt3R) + flow": (0.021, 0.014, 1.092)},
            "Easi3R; DATASETS.md, 2.8"),
    ),
    Protocol(
        "dyn3r/folder", "folder", ("cameras", "depth", "masks"), "sequences",
        remarks="Truth folders of your own (docs/metrics.md).",
    ),
)  # fmt: skip

DEFAULTS = {
    "davis": "easi3r/davis-16",
    "sintel": "monst3r/sintel-pose",
    "tum": "monst3r/tum",
    "bonn": "cut3r/bonn",
    "kitti": "cut3r/kitti",
    "kitti-selection": "dyn3r/kitti-selection",
    "kitti-odometry": "dyn3r/kitti-odometry",
    "nyu": "monst3r/nyu",
    "scannet": "monst3r/scannet",
    "adt": "easi3r/adt",
    "dycheck": "easi3r/dycheck",
    "folder": "dyn3r/folder",
}
"""Data set -> the protocol that is used unless another is named."""


def find_protocol(name: str) -> Protocol:
    """The protocol of that name, or the default one of a data set.

    Raises:
        InputError: an unknown name; the message lists the known ones.
    """
    wanted = DEFAULTS.get(name, name)
    for protocol in PROTOCOLS:
        if protocol.name == wanted:
            return protocol
    known = ", ".join([*DEFAULTS, *(p.name for p in PROTOCOLS)])
    raise InputError(f"unknown data set or protocol {name!r:.60}: choose one of {known}")
