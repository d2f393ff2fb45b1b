"""NYU-v2 as HDF5 and prepared: exact pictures and depth, gaps in the numbering, h5py missing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dyn3r.datasets.nyu import sequences
from dyn3r.errors import InputError, MissingExtraError
from tests.datasets.plane_world import PlaneWorld, plane_world, reprojection_error_px, save_png

NUMBERS = ("00001", "00002", "00010")


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(3)


def planted(world: PlaneWorld, i: int) -> np.ndarray:
    """Depth as stored, with unknown pixels in one corner."""
    depth = world.depth[i].astype(np.float32)
    depth[:2, :3] = 0
    depth[3, 0], depth[3, 1] = np.nan, np.inf
    return depth


def write_prepared(base: Path, world: PlaneWorld) -> None:
    (base / "nyu_depths").mkdir(parents=True)
    for i, number in enumerate(NUMBERS):
        save_png(base / f"nyu_images/{number}.png", world.images[i])
        save_png(base / f"nyu_depth_imgs/{number}.png", world.images[i])
        np.save(base / f"nyu_depths/{number}.npy", planted(world, i))


def write_h5(base: Path, world: PlaneWorld) -> None:
    h5py = pytest.importorskip("h5py")
    (base / "official").mkdir(parents=True)
    for i, number in enumerate(NUMBERS):
        with h5py.File(base / f"official/{number}.h5", "w") as content:
            content["rgb"] = world.images[i].transpose(2, 0, 1)
            content["depth"] = planted(world, i)


def write_labelled(base: Path, world: PlaneWorld, test: list[int] | None = None) -> Path:
    """The authors' archive: HDF5 behind MATLAB's header, axes in MATLAB's order reversed."""
    h5py = pytest.importorskip("h5py")
    base.mkdir(parents=True, exist_ok=True)
    file = base / "nyu_depth_v2_labeled.mat"
    with h5py.File(file, "w", userblock_size=512) as content:
        content["images"] = world.images.transpose(0, 3, 2, 1)
        depths = np.stack([planted(world, i) for i in range(len(world))])
        content["depths"] = depths.transpose(0, 2, 1)
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0"))
    if test is not None:
        savemat(base / "splits.mat", {"testNdxs": np.array(test, np.uint16)[:, None]})
    return file


@pytest.mark.parametrize("below", ["", "val"])
def test_the_archive_of_the_authors(world: PlaneWorld, tmp_path: Path, below: str) -> None:
    write_labelled(tmp_path / below, world, test=[3, 1])
    found = sequences(tmp_path)
    assert [s.name for s in found] == ["00001", "00003"]
    for sequence, i in zip(found, (0, 2)):
        np.testing.assert_array_equal(sequence.image(0), world.images[i])
        expected = np.nan_to_num(planted(world, i), posinf=0)
        np.testing.assert_array_equal(sequence.depth(0), expected)
    (tmp_path / below / "splits.mat").unlink()
    assert [s.name for s in sequences(tmp_path)] == ["00001", "00002", "00003"]


def test_bad_archives_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file = write_labelled(tmp_path, world, test=[1, 4])
    with pytest.raises(InputError, match=r"splits.mat: expected testNdxs, numbers from 1 to 3"):
        sequences(tmp_path)
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.ones(2)})
    with pytest.raises(InputError, match=r"splits.mat: expected testNdxs"):
        sequences(tmp_path)
    for content in (b"", b"MATLAB 5.0 MAT-file".ljust(200, b"x")):
        (tmp_path / "splits.mat").write_bytes(content)
        with pytest.raises(InputError, match=r"splits.mat cannot be read"):
            sequences(tmp_path)
    with h5py.File(file, "r+") as archive:
        del archive["depths"]
        archive["depths"] = np.zeros((3, 48, 64), np.float32)  # not reversed
    with pytest.raises(
        InputError, match=r"expected images \(N,3,W,H\) and depths \(N,W,H\), found"
    ):
        sequences(tmp_path)
    with h5py.File(file, "w") as archive:
        archive["images"] = np.zeros((1, 3, 8, 6), np.float32)
        archive["depths"] = np.zeros((1, 8, 6), np.uint16)
    (tmp_path / "splits.mat").unlink()
    (sequence,) = sequences(tmp_path)
    with pytest.raises(InputError, match="images are float32, expected uint8"):
        sequence.image(0)
    with pytest.raises(InputError, match="depth is uint16"):
        sequence.depth(0)
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(InputError, match=r"labeled.mat cannot be read"):
        sequences(tmp_path)
    with pytest.raises(InputError, match=r"labeled.mat cannot be read"):
        sequence.image(0)


@pytest.mark.parametrize("write", [write_prepared, write_h5])
@pytest.mark.parametrize("below", ["", "val"])
def test_pictures_and_depth_are_exact(world: PlaneWorld, tmp_path: Path, write, below: str) -> None:
    write(tmp_path / below, world)
    found = sequences(tmp_path)
    assert [s.name for s in found] == list(NUMBERS)
    for i, sequence in enumerate(found):
        assert (sequence.frame_names, sequence.unit) == ((NUMBERS[i],), "metre")
        assert sequence.K is None
        assert sequence.T_world_camera is None
        np.testing.assert_array_equal(sequence.image(0), world.images[i])
        expected = np.nan_to_num(planted(world, i), posinf=0)
        np.testing.assert_array_equal(sequence.depth(0), expected)
        assert (sequence.depth(0) == 0).sum() == 8
    assert reprojection_error_px(found[0], plane_world(1)) < 0.05


def test_raw_goes_first(world: PlaneWorld, tmp_path: Path) -> None:
    write_h5(tmp_path, world)
    write_prepared(tmp_path, replace(world, images=world.images * 0))
    np.testing.assert_array_equal(sequences(tmp_path)[0].image(0), world.images[0])


def test_without_h5py_the_hint_is_given(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "official").mkdir()
    (tmp_path / "official/00001.h5").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"00001.h5 needs the package 'h5py'"):
        sequences(tmp_path)


def test_bad_h5_is_refused(world: PlaneWorld, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_h5(tmp_path, world)
    first, second, third = (tmp_path / f"official/{number}.h5" for number in NUMBERS)
    first.write_bytes(second.read_bytes()[:900])
    with h5py.File(second, "w") as content:
        content["rgb"] = world.images[0]  # (H,W,3)
        content.create_dataset("depth", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(64, 64))
    with h5py.File(third, "w") as content:
        content["depth"] = np.zeros((4, 4), np.uint8)
    found = sequences(tmp_path)
    with pytest.raises(InputError, match=r"00001.h5 cannot be read"):
        found[0].image(0)
    with pytest.raises(InputError, match=r"rgb is uint8 \(48, 64, 3\), expected uint8 \(3, H, W\)"):
        found[1].image(0)
    with pytest.raises(InputError, match=r"'depth' of shape \(1048576, 1048576\) is no picture"):
        found[1].depth(0)
    with pytest.raises(InputError, match=r"no array 'rgb', found depth"):
        found[2].image(0)
    with pytest.raises(InputError, match=r"depth is uint8 \(4, 4\), expected float32"):
        found[2].depth(0)


def test_bad_roots_are_refused(world: PlaneWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not NYU-v2: expected .* found no such folder"):
        sequences(tmp_path / "nowhere")
    write_prepared(tmp_path, world)
    np.save(tmp_path / "nyu_depths/00002.npy", np.zeros((2, 3, 1), np.float32))
    with pytest.raises(InputError, match=r"00002.npy: depth is float32 \(2, 3, 1\), expected"):
        sequences(tmp_path)[1].depth(0)
    (tmp_path / "nyu_depths/00002.npy").unlink()
    with pytest.raises(InputError, match=r"3 pictures of nyu_images do not match 2 .npy files"):
        sequences(tmp_path)
    (tmp_path / "nyu_depths").rename(tmp_path / "depths")
    with pytest.raises(InputError, match=r"do not match 0 .npy files"):
        sequences(tmp_path)
    (tmp_path / "nyu_images").rename(tmp_path / "images")
    with pytest.raises(InputError, match=r"found depths, images, nyu_depth_imgs"):
        sequences(tmp_path)
