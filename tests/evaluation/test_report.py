"""report.html: every sequence is in it, nothing is fetched, names cannot become markup."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.datasets.davis_tree import squares
from tests.evaluation.scene_of_clip import scene_of

from dyn3r.evaluation.benchmark import THRESHOLDS, Result
from dyn3r.evaluation.protocols import find_protocol
from dyn3r.evaluation.report import write_report
from dyn3r.evaluation.truth import Truth
from dyn3r.evaluation.worst_frames import write_worst_frames
from dyn3r.io.images import frame_mapping
from dyn3r.types import Clip

HOSTILE = """"><script>alert('x')</script><img src=http://evil.example/a.png> & co"""
PROTOCOL = find_protocol("folder")
METRICS = {"JM": 0.5, "JR": 1.0, "ATE": 0.123, "RPEt": None}


class Page(HTMLParser):
    """Tags, links, text and the ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values[name] or "" for name in ("src", "href") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        assert not any(name.startswith("on") for name in values)

    def handle_data(self, data: str) -> None:
        self.text += data


def written(out: Path) -> Page:
    """The page of a run of two sequences, of which one failed and has a hostile name."""
    (out / "frames").mkdir()
    Image.new("RGB", (32, 16)).save(out / "frames/walk.jpg")
    steps = range(len(THRESHOLDS))
    walk = Result(
        "dyn3r/folder", "walk", 3, metrics=METRICS, baseline={"JM": 0.0},
        per_frame={"J": [0.5, None, 1.0], "distance": [0.0, 0.0, 0.0], "abs rel": [None] * 3},
        curves={
            "path": [[0, 0, 0], [1, 0, 0], [1, 0, 1]],
            "true path": [[0, 0, 0], [None] * 3, [1, 0, 1]],
            "masks": {"hits": [9 - i // 2 for i in steps], "found": [18 - i for i in steps],
                      "true": 10},
        },
        about={"settings": {"model": "<b>compact</b>"}, "mask_kind": "moves"},
    )  # fmt: skip
    hostile = Result("dyn3r/folder", HOSTILE, 2, "failed", "no <i>file</i>")
    write_report(out, PROTOCOL, [walk, hostile], shortened=True)
    return Page((out / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Without its plots, which take time."""
    monkeypatch.setattr("dyn3r.evaluation.report.plot", lambda draw, alt: "")
    return written(tmp_path)


def test_every_sequence_has_a_row_and_a_section(page: Page) -> None:
    assert sorted(page.ids) == sorted(["walk", HOSTILE])
    assert page.text.count("walk") == 2
    assert page.text.count("failed: no <i>file</i>") == 2
    for said in ("50.0 %", "0.123", "Partial", "True masks mark: moves", "ATE", "mean over frames"):
        assert said in page.text


def test_nothing_is_fetched(page: Page) -> None:
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert {"#walk", "#" + HOSTILE} <= set(page.links)
    assert not {"script", "link", "iframe", "object", "i", "b"} & set(page.tags)


@pytest.mark.slow
def test_plots_and_worst_frames_are_in_the_page(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    data = [link for link in page.links if link.startswith("data:")]
    plots = [link for link in data if link.startswith("data:image/svg+xml;base64,")]
    assert len(plots) == 1 + 3 + 2  # masks of all, three metrics over time, two views of the path
    for link in plots:
        assert b"<svg" in base64.b64decode(link.partition(",")[2])
    (picture,) = (link for link in data if link.startswith("data:image/jpeg"))
    assert base64.b64decode(picture.partition(",")[2])[:2] == b"\xff\xd8"


def test_published_rows_stand_beside_the_whole(tmp_path: Path) -> None:
    protocol = find_protocol("davis")
    results = [
        Result(protocol.name, name, 68 if i else 84, metrics={"JM": 0.5, "JR": 0.5},
               about={"dyn3r_version": "0.1", "size": 224, "machine": {"cores": 2, "gpu": "none"}})
        for i, name in enumerate(protocol.sequences)
    ]  # fmt: skip
    write_report(tmp_path, protocol, results, shortened=False)
    page = Page((tmp_path / "report.html").read_text())
    assert "Easi3R (MonST3R) (published: Easi3R, as quoted in DATASETS.md)57.7 %71.6 %" in page.text
    assert "dyn3r 0.1, frames with a long side of 224 pixels, 2 cores; 0 s of" in page.text
    write_report(tmp_path, protocol, results[:5], shortened=False)
    assert "published:" not in (tmp_path / "report.html").read_text()


def test_worst_frames_of_masks_else_of_depth(tmp_path: Path) -> None:
    """Frame 4 has a wrong mask, frame 2 a wrong depth: the other frames are the first ones."""
    n, (h, w) = 6, (48, 64)
    clip = Clip(
        np.full((n, h, w, 3), 90, np.uint8), frame_mapping((h, w), size=64),
        tuple(f"{i:05d}" for i in range(n)), np.arange(n) / 24, "clip", 24.0,
    )  # fmt: skip
    dynamic = squares(n)
    depth = np.ones((n, h, w), np.float32)
    depth[2, :, :10] = 3
    truth = Truth(depth=np.ones((n, h, w)), dynamic=dynamic)
    wrong = dynamic.copy()
    wrong[4] = False
    for found, row, white in ((wrong, 3, False), (dynamic, 2, True)):
        file = tmp_path / f"{row}.png"  # no loss
        write_worst_frames(file, scene_of(clip, depth=depth, dynamic=found), clip, truth)
        sheet = np.asarray(Image.open(file)).astype(int)
        assert sheet.shape == (4 * h, 3 * w, 3)
        image, masks, error = (
            sheet[row * h : (row + 1) * h, k * w : (k + 1) * w] for k in range(3)
        )
        assert (image[h // 2 :] == 90).all()
        assert image[:12].max() > 200  # the name
        red = masks[..., 0] - masks[..., 1]
        assert (red.max() > 50) == (not white)
        assert (error[:, 2:8] == 255).all() == white
        assert (error[:, 20:] == 0).all()


def test_a_run_of_which_everything_failed(tmp_path: Path) -> None:
    results = [Result("easi3r/davis-16", "dog", 60, "failed", "out of memory")]
    write_report(tmp_path, find_protocol("davis"), results, shortened=False)
    text = (tmp_path / "report.html").read_text()
    assert "failed: out of memory" in text
    assert "http" not in text
