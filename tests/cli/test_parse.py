"""Options of `dyn3r run`: how they are written, what they resolve to, and old names."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import pytest

from dyn3r.cli.main import main
from dyn3r.cli.parse import parse
from dyn3r.cli.retired import REMOVED, RETIRED, retired_option
from dyn3r.cli.run import InputOptions, Run
from dyn3r.cli.stream import Stream
from dyn3r.errors import InputError
from dyn3r.motion.options import AttentionCueOptions
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.options import Plan, resolve
from tests.factories import moving_square


@dataclass
class StubModel:
    recommendation: Recommendation
    name: str = "stub"
    is_many_view: bool = False


PUBLISHED = StubModel(Recommendation())
COMPACT = StubModel(Recommendation(cue="flow", refinement=True, ground_contact=True))


def run(*arguments: str) -> Run:
    return parse(Run, "dyn3r run", ["clip.mp4", "-o", "out", *arguments])


def plan(*arguments: str, model: StubModel = PUBLISHED, frames: int = 3) -> Plan:
    return resolve(run(*arguments).options(), model, moving_square(frames))


# --- the recipes -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [PUBLISHED, COMPACT], ids=["published", "compact"])
def test_method_easi3r_is_the_published_recipe(model: StubModel) -> None:
    """SPEC 3 to 6: attention, no still test, second pass, flow term, no smoothness, no extras."""
    decided = plan("--method", "easi3r", model=model, frames=11)
    golden = {
        "method": "easi3r",
        "pairs": "swinstride-5-noncyclic",
        "cue": "attention",
        "second_pass": True,
        "mask_refiner": "none",
        "measure_flow": True,
        "flow_in_alignment": True,
        "bundle_adjustment": False,
        "multi_view_depth": False,
        "ground_contact": False,
        "reads_attention": True,
        "reads_flow": False,
    }
    assert {name: getattr(decided, name) for name in golden} == golden
    assert decided.attention_cue == AttentionCueOptions(
        still_test=False, inherit_single_pairs=False
    )
    alignment = decided.alignment
    assert alignment.flow_weight == 0.01
    assert alignment.smoothness_weight == 0
    assert alignment.depth_prior_weight == 0
    assert alignment.dynamic_weight == 1
    assert alignment.shared_focal
    assert (alignment.window, alignment.overlap) == (100, 0.5)


def test_without_options_the_checkpoint_decides() -> None:
    assert run().options().method == "auto"
    assert plan(model=COMPACT).method == "refined"
    assert plan(model=PUBLISHED).method == "easi3r"


def test_options_reach_the_plan() -> None:
    decided = plan(
        "--pairs", "complete", "--motion.cue", "both", "--motion.refine", "edges",
        "--flow.estimator", "raft-small", "--alignment.window", "40",
        "--refinement.ground-contact", "on", "--inference.memory-gb", "0.5",
    )  # fmt: skip
    assert decided.pairs == "complete"
    assert decided.cue == "both"
    assert decided.mask_refiner == "edges"
    assert decided.flow_estimator == "raft-small"
    assert decided.alignment.window == 40
    assert decided.ground_contact
    assert decided.inference.memory_gb == 0.5


# --- switches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "value"), [("auto", None), ("on", True), ("off", False)])
@pytest.mark.parametrize(
    "option",
    ["motion.second-pass", "motion.still-test", "flow.in-alignment", "refinement.bundle-adjustment",
     "refinement.multi-view-depth", "refinement.ground-contact"],
)  # fmt: skip
def test_optional_switches_are_auto_on_or_off(option: str, text: str, value: bool | None) -> None:
    group, name = option.replace("-", "_").split(".")
    assert getattr(getattr(run(f"--{option}", text), group), name) is value
    assert getattr(getattr(run(), group), name) is None


@pytest.mark.parametrize("option", ["refinement.ground-correction", "known.fixed"])
def test_other_switches_are_on_or_off(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    group, name = option.replace("-", "_").split(".")
    assert getattr(getattr(run(), group), name) is True
    assert getattr(getattr(run(f"--{option}", "off"), group), name) is False
    with pytest.raises(SystemExit) as stopped:
        run(f"--{option}", "auto")
    assert stopped.value.code == 2
    capsys.readouterr()


def test_flags_have_no_value() -> None:
    plain = run()
    named = run("--explain", "--no-pictures", "--save-masks", "--overwrite", "-q")
    for name in ("explain", "no_pictures", "save_masks", "overwrite", "quiet"):
        assert getattr(plain, name) is False
        assert getattr(named, name) is True


@pytest.mark.parametrize(
    "wrong", [("--motion.second-pass", "maybe"), ("--method", "sonar"), ("--motion.cue", "sonar")]
)
def test_unknown_values_are_wrong_usage(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*wrong)
    assert stopped.value.code == 2
    capsys.readouterr()


def test_values_that_options_refuse_are_known_errors() -> None:
    with pytest.raises(InputError, match=r"motion\.refine is auto"):
        run("--motion.refine", "polish")


# --- how many, and their names -----------------------------------------------------------------


def test_few_options_are_at_the_top() -> None:
    top = [field for field in fields(Run) if not is_dataclass(field.default_factory)]
    groups = {field.name for field in fields(Run)} - {field.name for field in top}
    assert len(top) <= 25  # of which nine choose the frames and three show the page
    stages = {"motion", "flow", "alignment", "refinement", "inference", "windows"}
    assert groups == {"known", "input"} | stages


@pytest.mark.parametrize("command", [Run, Stream])
def test_help_names_every_option(
    command: type[Run | Stream], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(command, "dyn3r", ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for field in fields(command):
        name = field.name.replace("_", "-")
        found = name == "source" or any(f"--{form}" in text for form in (name, f"no-{name}"))
        assert found or field.default_factory is InputOptions
    if command is Run:
        assert all(name in text for name in ("--no-split-cuts", "--keep-borders"))
    assert "Examples:" in text


@pytest.mark.parametrize("old", [*RETIRED, *REMOVED])
def test_old_options_give_one_line_and_exit_code_2(
    old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for arguments in ([old, "x"], [f"{old}=x"], [old.replace("-", "_").replace("__", "--", 1)]):
        assert main(["run", "clip.mp4", "-o", str(out), *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        assert line.startswith(f"dyn3r: {old} is ")
    assert not out.exists()


def test_new_names_of_old_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    of_run = capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(Stream, "dyn3r stream", ["--help"])
    of_stream = capsys.readouterr().out
    for new in RETIRED.values():
        text = of_stream if "dyn3r stream" in new else of_run
        for word in new.replace(",", " ").split():
            assert not word.startswith("--") or word in text, new


def test_current_options_are_not_retired() -> None:
    current = ["clip.mp4", "-o", "out", "--motion.cue", "flow", "--flow.estimator=dis", "--pairs"]
    assert retired_option(current) is None
    assert retired_option([]) is None


def test_old_options_belong_to_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """`dyn3r stream --flow dis --motion none` is current."""
    stream = parse(Stream, "dyn3r stream", ["x.mp4", "-o", "y", "--flow", "raft", "--live"])
    assert stream.flow == "raft"
    assert stream.live


def test_options_that_the_pages_name_exist(capsys: pytest.CaptureFixture[str]) -> None:
    named = {
        f"{page.name}: {option}"
        for page in (Path(__file__).parents[2] / "docs").glob("*.md")
        for option in re.findall(r"(--[a-z]+\.[a-z-]*[a-z])\b(?!\.)", page.read_text())
    }
    assert "known-cameras.md: --known.cameras" in named
    text = ""
    for command in ("run", "train"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text += capsys.readouterr().out
    known = set(re.findall(r"--[a-z]+\.[a-z0-9-]+", text))
    assert {option for option in named if option.split()[1] not in known} == set()
