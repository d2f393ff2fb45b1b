"""DAVIS: palette and grey masks, void, empty truth, lists of sequences, half unpacked roots."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.datasets.davis import VAL_2016, VAL_2017, sequences
from dyn3r.errors import InputError
from tests.datasets.davis_tree import break_mask, squares, write_sequence

FRAMES = {
    "bike-packing": 69, "blackswan": 50, "bmx-trees": 80, "breakdance": 84, "camel": 90,
    "car-roundabout": 75, "car-shadow": 40, "cows": 104, "dance-twirl": 90, "dog": 60,
    "dogs-jump": 66, "drift-chicane": 52, "drift-straight": 50, "goat": 90, "gold-fish": 78,
    "horsejump-high": 50, "india": 81, "judo": 34, "kite-surf": 50, "lab-coat": 47, "libby": 49,
    "loading": 50, "mbike-trick": 79, "motocross-jump": 40, "paragliding-launch": 80,
    "parkour": 100, "pigs": 79, "scooter-black": 43, "shooting": 40, "soapbox": 99,
}  # fmt: skip
"""Frames of the validation sequences. Source: DATASETS.md, 2.1."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_sequence(tmp_path / "DAVIS", "long", squares(5))
    write_sequence(tmp_path / "DAVIS", "brief", squares(3))
    return tmp_path


def write_palette(file: Path, numbers: np.ndarray) -> None:
    """A picture of object numbers with the colours of DAVIS 2017; 255 is void."""
    h, w = numbers.shape
    image = Image.frombytes("P", (w, h), numbers.astype(np.uint8).tobytes())
    colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0)] + [(0, 0, 0)] * 253
    image.putpalette([v for colour in colours for v in colour])
    image.save(file)


def test_lists_have_the_published_numbers_of_frames() -> None:
    assert len(VAL_2016) == 20
    assert len(VAL_2017) == 30
    assert sum(FRAMES[name] for name in VAL_2016) == 1376
    assert sum(FRAMES[name] for name in VAL_2017) == 1999


@pytest.mark.parametrize("below", ["", "DAVIS"])
def test_frames_and_grey_masks(below: str, root: Path) -> None:
    brief, long = sequences(root / below)
    assert (brief.name, long.name) == ("brief", "long")
    assert (len(brief), len(long)) == (3, 5)
    assert long.frame_names == ("00000", "00001", "00002", "00003", "00004")
    assert long.mask_kind == "any object"
    assert long.prepared_for is None
    assert long.depth is None
    assert long.T_world_camera is None
    for i in range(5):
        np.testing.assert_array_equal(long.mask(i), squares(5)[i])
        np.testing.assert_array_equal(long.image(i)[..., 1] > 128, squares(5)[i])


def test_any_label_of_a_palette_is_foreground_and_so_is_void(root: Path) -> None:
    numbers = np.zeros((48, 64), np.uint8)
    numbers[0:4], numbers[4:8], numbers[8:12] = 1, 2, 255
    folder = root / "DAVIS/Annotations/480p/brief"
    write_palette(folder / "00000.png", numbers)
    write_palette(folder / "00001.png", np.zeros((48, 64)))
    brief = sequences(root)[0]
    np.testing.assert_array_equal(brief.mask(0), numbers > 0)
    assert not brief.mask(1).any()


def test_a_coloured_or_damaged_mask_is_refused_by_name(root: Path) -> None:
    folder = root / "DAVIS/Annotations/480p/brief"
    Image.new("RGB", (64, 48)).save(folder / "00001.png")
    break_mask(root / "DAVIS", "brief", 2)
    brief = sequences(root)[0]
    assert brief.mask(0).any()
    with pytest.raises(InputError, match=r"00001\.png is a picture of mode RGB"):
        brief.mask(1)
    with pytest.raises(InputError, match=r"00002\.png cannot be read"):
        brief.mask(2)


def test_another_resolution_and_sequences_without_masks(root: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (root / "DAVIS" / kind / "480p").rename(root / "DAVIS" / kind / "Full-Resolution")
    assert len(sequences(root)) == 2
    shutil.rmtree(root / "DAVIS/Annotations/Full-Resolution/long")
    assert [s.name for s in sequences(root)] == ["brief"]
    shutil.rmtree(root / "DAVIS/Annotations/Full-Resolution/brief")
    with pytest.raises(InputError, match="has masks in"):
        sequences(root)


def test_bad_roots_are_refused(root: Path) -> None:
    (root / "DAVIS/Annotations/480p/long/00002.png").unlink()
    with pytest.raises(InputError, match=r"long: 5 pictures in .* do not match 4 masks"):
        sequences(root)
    shutil.rmtree(root / "DAVIS/Annotations")
    with pytest.raises(InputError, match="expected Annotations/480p/SEQUENCE, found JPEGImages"):
        sequences(root)
    shutil.rmtree(root / "DAVIS/JPEGImages")
    with pytest.raises(InputError, match=r"expected JPEGImages.* found an empty folder"):
        sequences(root)
    with pytest.raises(InputError, match="found no such folder"):
        sequences(root / "nowhere")
