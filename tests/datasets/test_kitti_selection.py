"""KITTI depth selection: closed-form truth of single pictures, folders that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dyn3r.datasets.kitti_selection import sequences
from dyn3r.errors import InputError
from tests.datasets.plane_world import (
    PlaneWorld,
    numbers,
    plane_world,
    reprojection_error_px,
    save_png,
    save_text,
)

DRIVE, FRAME = "2011_09_26_drive_0002_sync", "0000000008_image_02"
OTHER = "0000000005_image_03"
CROPPED = "depth_selection/val_selection_cropped"


@pytest.fixture(scope="module")
def world() -> PlaneWorld:
    return plane_world(2)


@pytest.fixture
def root(world: PlaneWorld, tmp_path: Path) -> Path:
    base = tmp_path / CROPPED
    for i, frame in enumerate((FRAME, OTHER)):
        depth = np.round(world.depth[i] * 256).astype(np.uint16)
        depth[::2] = 0
        save_png(base / f"image/{DRIVE}_image_{frame}.png", world.images[i])
        save_png(base / f"groundtruth_depth/{DRIVE}_groundtruth_depth_{frame}.png", depth)
        save_png(base / f"velodyne_raw/{DRIVE}_velodyne_raw_{frame}.png", depth)
        save_text(base / f"intrinsics/{DRIVE}_image_{frame}.txt", numbers(world.K))
    return tmp_path


@pytest.mark.parametrize("above", ["", "depth_selection", CROPPED])
def test_truth_is_the_closed_form(root: Path, world: PlaneWorld, above: str) -> None:
    found = {s.name: s for s in sequences(root / above)}
    assert list(found) == [f"{DRIVE}_{OTHER}", f"{DRIVE}_{FRAME}"]
    for i, frame in enumerate((FRAME, OTHER)):
        sequence = found[f"{DRIVE}_{frame}"]
        assert (len(sequence), sequence.unit) == (1, "metre")
        np.testing.assert_array_equal(sequence.image(0), world.images[i])
        np.testing.assert_allclose(sequence.K[0], world.K, atol=1e-6)
        depth = sequence.depth(0)
        np.testing.assert_array_equal(depth[::2], 0)
        np.testing.assert_allclose(depth[1::2], world.depth[i][1::2], atol=2e-3)
    assert reprojection_error_px(found[f"{DRIVE}_{FRAME}"], plane_world(1)) < 0.05


def test_K_is_unknown_without_its_folder(root: Path) -> None:
    (root / CROPPED / "intrinsics").rename(root / "elsewhere")
    assert all(s.K is None for s in sequences(root))


def test_what_does_not_fit_is_refused(root: Path, tmp_path: Path) -> None:
    base = root / CROPPED
    K = base / f"intrinsics/{DRIVE}_image_{FRAME}.txt"
    for text, said in (("1 2 3", "expected 9 numbers, found '1 2 3'"), ("x " * 9, "9 numbers"),
                       ("0 " * 9, "without a focal length")):  # fmt: skip
        K.write_text(text)
        with pytest.raises(InputError, match=said):
            sequences(root)
    K.unlink()
    with pytest.raises(InputError, match=f"{K.name} does not exist"):
        sequences(root)
    (base / f"groundtruth_depth/{DRIVE}_groundtruth_depth_{OTHER}.png").unlink()
    with pytest.raises(InputError, match=f"_image_{OTHER}.png has no true depth: expected"):
        sequences(root)
    (base / "image/0000.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"0000.png: expected a name such as DRIVE_sync_image_"):
        sequences(root)
    (base / "groundtruth_depth").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"is not the depth selection of KITTI: .* found image, "):
        sequences(base)
