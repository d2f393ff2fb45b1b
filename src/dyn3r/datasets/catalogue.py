"""Catalogue of published data sets: where they are, on which terms, and what is open.

Facts are those of docs/design/DATASETS.md. None of the addresses could be reached from the machine
on which dyn3r is developed: sizes and licences say how sure they are, and no checksum is known, so
that of the first download is recorded and holds from then on (`dyn3r.datasets.download`).

    "not verified"  general knowledge, not read at the source
    "second hand"   as others state it
    "see page"      not found: read the page of the data set
"""

from __future__ import annotations

from dataclasses import dataclass

from dyn3r.errors import InputError

SEE_PAGE = "see page"


@dataclass(frozen=True)
class Archive:
    """One file to download."""

    url: str
    bytes: int | None = None
    """Its exact size, where it is known."""
    sha256: str | None = None
    """Its checksum, where it is known."""

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class CatalogueEntry:
    """A published data set."""

    name: str
    """Its name for `dyn3r datasets get`, and that of its folder."""
    title: str
    use: str
    """evaluation or training"""
    licence: str
    size: str
    page: str
    """Where its authors describe it."""
    agreement: str | None = None
    """What has to be agreed to by hand, if anything."""
    archives: tuple[Archive, ...] = ()
    """Files that anybody may download; empty if it must be fetched by hand."""
    by_hand: tuple[str, ...] = ()
    """Steps to fetch it by hand, where FOLDER is its folder; for an open set what else there is."""

    @property
    def is_open(self) -> bool:
        """Whether dyn3r may download it."""
        return bool(self.archives) and self.agreement is None


_TUM = "https://cvg.cit.tum.de/rgbd/dataset/freiburg3/rgbd_dataset_freiburg3_{}_{}.tgz"
_SINTEL = "http://files.is.tue.mpg.de/sintel/"

_ENTRIES = (
    CatalogueEntry(
        "davis", "DAVIS 2017 (and 2016), 480p: videos with masks of objects", "evaluation",
        licence=SEE_PAGE,
        size="about 800 MB (second hand)",
        page="https://davischallenge.org",
        archives=(
            Archive(
                "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip"
            ),
        ),
    ),
    CatalogueEntry(
        "sintel", "MPI Sintel: rendered film with depth and cameras", "evaluation",
        licence=SEE_PAGE,
        size="1.8 GB (second hand) + depth",
        page="http://sintel.is.tue.mpg.de",
        archives=(
            Archive(f"{_SINTEL}MPI-Sintel-training_images.zip"),
            Archive(f"{_SINTEL}MPI-Sintel-depth-training-20150305.zip"),
        ),
        by_hand=(
            "optical flow is in MPI-Sintel-training_extras.zip (3.3 GB, second hand): fetch it "
            "from the page and unpack it in FOLDER",
        ),
    ),
    CatalogueEntry(
        "tum", "TUM RGB-D, freiburg3 sitting and walking: people in an office", "evaluation",
        licence="CC BY 4.0 (not verified)",
        size=SEE_PAGE,
        page="https://cvg.cit.tum.de/data/datasets/rgbd-dataset",
        archives=tuple(
            Archive(_TUM.format(people, camera))
            for people in ("sitting", "walking")
            for camera in ("static", "xyz", "halfsphere", "rpy")
        ),
    ),
    CatalogueEntry(
        "bonn", "Bonn RGB-D Dynamic: people and objects that move in a room", "evaluation",
        licence=SEE_PAGE,
        size="16.4 GB (second hand)",
        page="https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset",
        archives=(
            Archive(
                "https://www.ipb.uni-bonn.de/html/projects/rgbd_dynamic2019/rgbd_bonn_dataset.zip",
                bytes=16_395_422_367,
            ),
        ),
    ),
    CatalogueEntry(
        "kitti", "KITTI depth: street scenes with LiDAR depth", "evaluation",
        licence="CC BY-NC-SA 3.0 (second hand)",
        size="about 14 GB (not verified) + pictures",
        page="https://www.cvlibs.net",
        by_hand=(
            "from the page (depth evaluation) fetch data_depth_annotated.zip and unpack it in "
            "FOLDER",
            "for every drive of FOLDER/val fetch DATE_drive_NNNN_sync.zip (raw data) and unpack it "
            "in FOLDER: the pictures are only there",
            "the intrinsics are in DATE_calib.zip (raw data); unpack it in FOLDER too",
            "for `dyn3r benchmark kitti-selection` data_depth_selection.zip is enough, unpacked in "
            "FOLDER",
        ),
    ),
    CatalogueEntry(
        "kitti-odometry", "KITTI odometry: street scenes with the path of the car", "evaluation",
        licence="CC BY-NC-SA 3.0 (second hand)",
        size=SEE_PAGE,
        page="https://www.cvlibs.net",
        by_hand=(
            "from the page (odometry) fetch the colour pictures, the calibration and the ground "
            "truth poses",
            "unpack them so that FOLDER/sequences/NN/calib.txt and FOLDER/poses/NN.txt exist",
        ),
    ),
    CatalogueEntry(
        "nyu", "NYU Depth v2: rooms, single pictures with depth", "evaluation",
        licence=SEE_PAGE,
        size="2.8 GB (not verified)",
        page="https://huggingface.co/datasets/sayakpaul/nyu_depth_v2",
        by_hand=(
            "the page is a copy that published evaluations use, not the authors' own; read its "
            "terms",
            "fetch data/val-000000.tar and data/val-000001.tar",
            "unpack both in FOLDER, so that FOLDER/val/official/*.h5 exist",
            "or put the authors' nyu_depth_v2_labeled.mat and splits.mat in FOLDER",
        ),
    ),
    CatalogueEntry(
        "scannet", "ScanNet v2: rooms, recorded with a depth camera", "evaluation",
        licence="ScanNet's terms of use (see page)",
        size=SEE_PAGE,
        page="https://github.com/ScanNet/ScanNet",
        agreement="a form, signed with an institutional address and mailed",
        by_hand=(
            "sign the terms of use on the page and mail them; you get a download script",
            "fetch the .sens files of scene0707_00 to scene0806_00, the 100 test scenes",
            "put them at FOLDER/SCENE/SCENE.sens",
        ),
    ),
    CatalogueEntry(
        "adt", "Aria Digital Twin, clips of TAPVid-3D", "evaluation",
        licence="Project Aria ADT licence; annotations CC BY 4.0",
        size=SEE_PAGE,
        page="https://github.com/google-deepmind/tapnet",
        agreement="the Project Aria ADT licence",
        by_hand=(
            "accept the licence of Aria Digital Twin; you get a list of downloads",
            "make the .npz files of the minival clips as the page says (tapnet/tapvid3d)",
            "put the .npz files in FOLDER",
        ),
    ),
    CatalogueEntry(
        "dycheck", "DyCheck iPhone: casual videos of moving objects", "evaluation",
        licence=SEE_PAGE,
        size="about 28 GB",
        page="https://github.com/KAIR-BAIR/dycheck",
        by_hand=(
            "fetch the sequences from the Google Drive folder that the page names (raw), or from "
            "that of https://github.com/vye16/shape-of-motion (with refined cameras and depth)",
            "put them at FOLDER/SEQUENCE",
        ),
    ),
    CatalogueEntry(
        "pointodyssey", "PointOdyssey: rendered scenes with tracks", "training",
        licence="CC BY-NC-SA 4.0",
        size=SEE_PAGE,
        page="https://pointodyssey.com",
        by_hand=(
            "fetch train.tar.gz and test.tar.gz from the Google Drive folder that the page names",
            "unpack them so that FOLDER/train/SEQUENCE/anno.npz exist",
        ),
    ),
    CatalogueEntry(
        "tartanair", "TartanAir v1: rendered flights", "training",
        licence="CC BY 4.0 (not verified)",
        size="up to 3 TB in all",
        page="https://github.com/castacks/tartanair_tools",
        by_hand=(
            "run the page's download script for the left camera's pictures and depth, Hard only",
            "unpack them so that FOLDER/ENVIRONMENT/Hard/P000/pose_left.txt exist",
        ),
    ),
    CatalogueEntry(
        "spring", "Spring: rendered film with disparity and cameras", "training",
        licence="CC BY 4.0 (not verified)",
        size=SEE_PAGE,
        page="https://spring-benchmark.org",
        by_hand=(
            "from the page (DOI 10.18419/DARUS-3376) fetch train_frame_left.zip, "
            "train_disp1_left.zip and train_cam_data.zip",
            "unpack them in FOLDER, so that FOLDER/spring/train/0001 exists",
        ),
    ),
    CatalogueEntry(
        "waymo", "Waymo Open, perception 1.4.2: street scenes with LiDAR depth", "training",
        licence="Waymo's terms, non-commercial (see page)",
        size=SEE_PAGE,
        page="https://waymo.com/open",
        agreement="registration and Waymo's non-commercial terms",
        by_hand=(
            "register on the page and accept the terms",
            "fetch individual_files/training/*.tfrecord of version 1.4.2",
            "prepare them with DUSt3R's preprocess_waymo.py, with FOLDER as its output",
        ),
    ),
)  # fmt: skip

CATALOGUE: dict[str, CatalogueEntry] = {entry.name: entry for entry in _ENTRIES}
"""Name -> data set, sets for evaluation first."""


def catalogue_entry(name: str) -> CatalogueEntry:
    """Find a data set by its name. Raises InputError, with all names, for an unknown one."""
    if name not in CATALOGUE:
        raise InputError(f"no data set is called {name!r:.60}; there are {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
