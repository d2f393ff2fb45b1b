"""`dyn3r benchmark` as a user meets it: what it writes and says, how it fails, `table`."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from dyn3r.cli.main import main
from dyn3r.evaluation.benchmark import Result
from dyn3r.evaluation.benchmark_run import BenchmarkSettings, result_file
from dyn3r.evaluation.protocols import find_protocol
from dyn3r.io.atomic import write_json
from dyn3r.network.checkpoints.reader import save_network
from tests.datasets.davis_tree import break_mask, squares, write_sequence
from tests.evaluation.scene_of_clip import reconstruct
from tests.factories import tiny_network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_network(path, tiny_network(), {"licence": "Apache-2.0", "steps": "0"})
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAVIS of two sequences, of 10 perfect frames and of 2 with J = 0. Plots are left out."""
    monkeypatch.setattr("dyn3r.pipeline.reconstruct", reconstruct)
    monkeypatch.setattr("dyn3r.evaluation.report.plot", lambda draw, alt: f"[{alt}]")
    write_sequence(tmp_path / "DAVIS", "cows", squares(10))
    write_sequence(tmp_path / "DAVIS", "dog", squares(2), shown=np.zeros((2, 48, 64), bool))
    return tmp_path


def run(*arguments: object) -> int:
    try:
        return main(["benchmark", *(str(a) for a in arguments)])
    except SystemExit as stop:  # wrong usage
        return int(stop.code or 0)


def rows_of(table: str) -> dict[str, list[str]]:
    """First cell -> the others, of a Markdown table."""
    rows = [[c.strip() for c in x.split("|")[1:-1]] for x in table.splitlines() if "|" in x]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.slow
def test_the_known_answer_of_davis(root: Path, checkpoint: Path, capsys) -> None:
    out = root / "out"
    arguments = ("davis", "--root", root, "-o", out, "--model", checkpoint)
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert "cows: 10 frames, " in said.err
    assert "JM 100.0 %" in said.err
    rows = rows_of(said.out)
    assert rows["**mean over frames** (the protocol's)"][:3] == ["12", "83.3 %", "83.3 %"]
    assert rows["**mean over sequences**"][:3] == ["12", "50.0 %", "50.0 %"]
    assert "Partial: 2 of 20 sequences. Published numbers are of the whole" in said.out
    assert "published:" not in said.out
    names = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert names == {
        "benchmark.json", "table.md", "table.csv", "report.html", "sequences/cows.json",
        "sequences/dog.json", "frames/cows.jpg", "frames/dog.jpg",
    }  # fmt: skip
    assert (out / "table.md").read_text().strip() in said.out
    with (out / "table.csv").open() as file:
        values = {row["sequence"]: float(row["JM"]) for row in csv.DictReader(file)}
    assert values == {"cows": 1, "dog": 0}
    for name in values:
        assert f'<section id="{name}">' in (out / "report.html").read_text()
    # results are not replaced unasked, and another model never continues them
    assert run(*arguments) == 1
    assert "--resume continues, --overwrite replaces" in capsys.readouterr().err
    assert run(*arguments, "--resume", "--method", "dust3r") == 1
    assert "holds results with method 'auto', not 'dust3r'" in capsys.readouterr().err
    assert run(*arguments[:-1], "compact", "--resume") == 1
    assert "holds results with model" in capsys.readouterr().err
    # nor are they lost by a wrong root
    again = ("davis", "--root", root / "no", "-o", out, "--model", checkpoint, "--overwrite")
    assert run(*again) == 1
    assert (out / "sequences/cows.json").exists()
    assert run(*arguments, "--overwrite", "--quiet", "--num-frames", 1) == 0
    said = capsys.readouterr()
    assert rows_of(said.out)["cows"][0] == "1"
    assert "wrote" not in said.out


def test_a_sequence_that_fails(root: Path, checkpoint: Path, capsys) -> None:
    break_mask(root / "DAVIS", "cows", 4)
    out = root / "out"
    arguments = ("davis", "--root", root, "-o", out, "--model", checkpoint, "--quiet")
    assert run(*arguments) == 1
    said = capsys.readouterr()
    assert said.err.strip().splitlines() == [
        "dyn3r: 1 of 2 sequences failed: cows (--resume runs them again)"
    ]
    assert rows_of(said.out)["cows"] == ["10", *["failed"] * 3, "-"]
    assert rows_of(said.out)["dog"][0] == "2"
    assert "Failed: cows (" in (out / "table.md").read_text()
    assert "cows/00004.png cannot be read" in (out / "report.html").read_text()
    kept = (out / "sequences/dog.json").stat().st_mtime_ns
    other = root / "DAVIS/Annotations/480p/cows"
    (other / "00004.png").write_bytes((other / "00001.png").read_bytes())
    assert run(*arguments, "--resume") == 0
    assert rows_of(capsys.readouterr().out)["cows"][1] == "100.0 %"
    assert (out / "sequences/dog.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "is not a folder: give the root of the data set with --root"),
        ("empty", "is not DAVIS: expected JPEGImages/480p/SEQUENCE, found an empty folder"),
        ("half", "is not DAVIS: expected Annotations/480p/SEQUENCE, found JPEGImages"),
        ("counts", "dog: 2 pictures in"),
        ("other", "is not DAVIS"),
        ("tum", "is not TUM"),
        ("sequence", "has no sequence 'x'"),
        ("no root", "--root is missing: the folder of davis"),
        ("protocol", "unknown data set or protocol 'davies'"),
        ("model", "no model or file named 'no-such-model'"),
        ("frames", "--num-frames must be 1 or more, not 0"),
        ("jobs", "--jobs must be 1 or more, not 0"),
        ("colmap", "colmap finds cameras, and easi3r/davis-16 compares none"),
        ("both", "--resume keeps the results and --overwrite replaces them: give one"),
        ("size", "the frame size must be a multiple of 16 from 64 to 4096, not 100"),
        (
            "none of them",
            "none of the sequences of easi3r/davis-16: it has a, b, which --sequences",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(
    kind: str, said: str, root: Path, checkpoint: Path, capsys
) -> None:
    base = root / "DAVIS"
    if kind == "half":
        (base / "Annotations").rename(root / "elsewhere")
    if kind == "none of them":
        for name, other in (("cows", "a"), ("dog", "b")):
            for part in ("JPEGImages", "Annotations"):
                (base / part / "480p" / name).rename(base / part / "480p" / other)
    if kind == "counts":
        (base / "Annotations/480p/dog/00001.png").unlink()
    place = {"missing": root / "nowhere", "empty": root / "empty", "other": base / "JPEGImages"}
    (root / "empty").mkdir()
    data = {"tum": "tum", "protocol": "davies"}.get(kind, "davis")
    model = "no-such-model" if kind == "model" else checkpoint
    arguments = [data, "-o", root / "out", "--model", model]
    arguments += [] if kind == "no root" else ["--root", place.get(kind, root)]
    arguments += ["--sequences", "x"] if kind == "sequence" else []
    numbers = {
        "frames": ["--num-frames", 0],
        "both": ["--resume", "--overwrite"],
        "colmap": ["--method", "colmap"],
        "jobs": ["--jobs", 0],
        "size": ["--size", 100],
    }
    arguments += numbers.get(kind, [])
    assert run(*arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not (root / "out").exists()


def test_a_folder_with_other_files_is_left_alone(root: Path, checkpoint: Path, capsys) -> None:
    out = root / "out"
    out.mkdir()
    (out / "table.md").write_text("precious")
    arguments = ("davis", "--root", root, "--model", checkpoint)
    for more, said in ((("-o", out), "out is not empty"),
                       (("-o", out, "--resume"), "out is not empty"),
                       (("-o", out / "table.md"), "table.md: it is not a folder")):  # fmt: skip
        assert run(*arguments, *more) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert [f.name for f in out.iterdir()] == ["table.md"]
    assert (out / "table.md").read_text() == "precious"


def write_run(folder: Path, jm: float, names: tuple[str, ...], **settings: object) -> Path:
    """A folder as an earlier run left it."""
    made = BenchmarkSettings("easi3r/davis-16", Path("root"), folder, **settings)
    write_json(folder / "benchmark.json", made.identity())
    for i, name in enumerate(names):  # together as many frames as DAVIS-16
        values = Result("easi3r/davis-16", name, 68 if i < 19 else 84, metrics={"JM": jm, "JR": jm})
        write_json(result_file(folder, name), asdict(values))
    return folder


def test_table_of_complete_runs_has_published_rows(tmp_path: Path, capsys) -> None:
    names = find_protocol("davis").sequences
    better = write_run(tmp_path / "better", 0.75, names)
    same_name = write_run(tmp_path / "old/better", 0.25, names)
    assert run("table", better, same_name) == 0
    table = capsys.readouterr().out
    rows = rows_of(table)
    assert rows["better"] == ["75.0 %", "75.0 %", "1376", "0"]
    assert rows[str(same_name)][0] == "25.0 %"
    label = "Easi3R (DUSt3R) (published: Easi3R, as quoted in DATASETS.md)"
    assert rows[label] == ["53.1 %", "60.4 %", "", ""]
    assert "Partial" not in table
    out = tmp_path / "compared"
    assert run("table", better, same_name, "-o", out) == 0
    assert (out / "table.md").read_text() == table == capsys.readouterr().out
    with (out / "table.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["protocol"] == "easi3r/davis-16"
    assert (first["run"], first["sequences"], first["frames"]) == ("better", "20", "1376")
    assert (float(first["JM"]), float(second["JM"])) == (0.75, 0.25)
    assert run("table", better, "-o", out) == 1
    assert "exists" in capsys.readouterr().err
    assert run("table", better, "-o", better) == 1
    assert "holds the results of a run" in capsys.readouterr().err

    partial = write_run(tmp_path / "partial", 0.5, names[:3])
    quick = write_run(tmp_path / "quick", 0.5, names, num_frames=4)
    for other in (partial, quick):
        assert run("table", better, other) == 0
        table = capsys.readouterr().out
        assert "Partial" in table
        assert "published:" not in table
    assert rows_of(table)["better"][2] == "1376"


def test_table_of_wrong_folders(tmp_path: Path, capsys) -> None:
    (tmp_path / "no_settings").mkdir()
    no_results = write_run(tmp_path / "no_results", 0.5, ())
    strange = tmp_path / "strange/benchmark.json"
    write_json(strange, {"protocol": "x/y"})
    write_json(strange.parent / "sequences/a.json", json.loads('{"sequence": 1}'))
    cases = {
        "give the folders of earlier runs": (),
        "no_settings is not the folder of a benchmark": (tmp_path / "no_settings",),
        "no_results has no results yet": (no_results,),
        "a.json is not a result of a benchmark": (strange.parent,),
    }
    for said, folders in cases.items():
        assert run("table", *folders) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert run("davis", no_results) == 1
    assert "go with `benchmark table`" in capsys.readouterr().err
