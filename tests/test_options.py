"""Options become decisions in one place: what `resolve` decides, in milliseconds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from dyn3r.alignment.clip_windows import LARGEST_WINDOW, WindowOptions
from dyn3r.alignment.options import AlignmentOptions
from dyn3r.errors import InputError
from dyn3r.motion.options import AttentionCueOptions, FlowCueOptions, MotionOptions
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.options import (
    FlowOptions,
    Options,
    Plan,
    RefinementOptions,
    resolve,
    windows_of,
)
from dyn3r.types import Priors
from tests.factories import moving_square


@dataclass
class StubModel:
    recommendation: Recommendation
    name: str = "stub"
    is_many_view: bool = False
    memory_bytes: int = 0


PUBLISHED = StubModel(Recommendation())
COMPACT = StubModel(
    Recommendation(
        cue="flow", refinement=True, mvs=True, ground_contact=True, mask_smoothing="edges"
    )
)
CLIP = moving_square(3)


def plan(model: StubModel = PUBLISHED, frames: int = 3, **options: object) -> Plan:
    clip = CLIP if frames == 3 else moving_square(frames, (48, 64))
    return resolve(Options(**options), model, clip)  # type: ignore[arg-type]


def test_the_published_recipes() -> None:
    """SPEC 4 to 7: what each paper does, whatever the checkpoint recommends."""
    for model in (PUBLISHED, COMPACT):
        dust3r = plan(model, method="dust3r")
        assert dust3r.cue == "none"
        assert not dust3r.second_pass
        assert not dust3r.measure_flow
        monst3r = plan(model, method="monst3r")
        assert monst3r.cue == "flow"
        assert monst3r.flow_cue == FlowCueOptions.monst3r()
        assert not monst3r.second_pass
        assert monst3r.flow_in_alignment
        assert monst3r.alignment.smoothness_weight == 0.01
        assert monst3r.alignment.flow_weight == 0.01
        easi3r = plan(model, method="easi3r")
        assert easi3r.cue == "attention"
        assert easi3r.attention_cue == AttentionCueOptions.easi3r()
        assert easi3r.second_pass
        assert easi3r.flow_in_alignment
        assert easi3r.alignment.smoothness_weight == 0
        for recipe in (dust3r, monst3r, easi3r):
            assert recipe.pairs == "swinstride-5-noncyclic"
            assert recipe.mask_refiner == "none"
            assert not recipe.bundle_adjustment
            assert not recipe.multi_view_depth
            assert not recipe.ground_contact


def test_auto_is_what_the_checkpoint_recommends() -> None:
    ours = plan(COMPACT)
    assert ours.method == "refined"
    assert ours.cue == "flow"
    assert not ours.second_pass  # flow decides, and refinement follows
    assert ours.bundle_adjustment
    assert ours.multi_view_depth
    assert ours.ground_contact
    assert ours.mask_refiner == "edges"
    assert ours.alignment.pixels == 384
    theirs = plan(PUBLISHED)
    assert theirs.method == "easi3r"
    assert theirs.cue == "attention"
    assert theirs.second_pass
    assert theirs.attention_cue.still_test  # unlike the exact recipe
    assert not theirs.bundle_adjustment
    assert theirs.alignment.pixels == 0


@pytest.mark.parametrize(
    ("model", "cue", "bundle", "asked", "expected"),
    [
        (PUBLISHED, "flow", None, None, True),
        (COMPACT, "flow", None, None, False),
        (COMPACT, "attention", None, None, True),
        (COMPACT, "flow", False, None, True),
        (PUBLISHED, "flow", True, None, True),
        (COMPACT, "flow", None, True, True),
        (PUBLISHED, "attention", None, False, False),
        (PUBLISHED, "none", None, True, False),
    ],
)
def test_a_second_pass_where_it_has_an_effect(
    model: StubModel, cue: str, bundle: bool | None, asked: bool | None, expected: bool
) -> None:
    motion = MotionOptions(cue=cue, second_pass=asked)  # type: ignore[arg-type]
    decided = plan(model, motion=motion, refinement=RefinementOptions(bundle_adjustment=bundle))
    assert decided.second_pass == expected


@pytest.mark.parametrize(
    ("model", "asked", "cue", "expected"),
    [
        (COMPACT, "auto", "flow", "edges"),
        (PUBLISHED, "auto", "flow", "none"),
        (COMPACT, "auto", "attention", "none"),
        (COMPACT, "none", "flow", "none"),
        (PUBLISHED, "edges", "attention", "edges"),
    ],
)
def test_masks_are_refined_as_recommended(
    model: StubModel, asked: str, cue: str, expected: str
) -> None:
    motion = MotionOptions(cue=cue, refine=asked)  # type: ignore[arg-type]
    assert plan(model, motion=motion).mask_refiner == expected


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [(PUBLISHED, None, False), (COMPACT, None, True), (PUBLISHED, True, True),
     (COMPACT, False, False)],
)  # fmt: skip
def test_the_checkpoint_recommends_and_the_user_decides(
    model: StubModel, asked: bool | None, expected: bool
) -> None:
    decided = plan(model, refinement=RefinementOptions(bundle_adjustment=asked))
    assert decided.bundle_adjustment == expected
    assert decided.alignment.pixels == (384 if expected else 0)


def test_multi_view_depth_needs_refined_cameras_unless_asked_for() -> None:
    no_mvs = replace(COMPACT.recommendation, mvs=False)
    assert not plan(StubModel(no_mvs)).multi_view_depth
    off = RefinementOptions(bundle_adjustment=False)
    assert not plan(COMPACT, refinement=off).multi_view_depth
    assert not plan(COMPACT, refinement=off).ground_contact
    assert plan(PUBLISHED, refinement=RefinementOptions(multi_view_depth=True)).multi_view_depth
    assert plan(PUBLISHED, method="refined").multi_view_depth


def test_explicit_numbers_win() -> None:
    alignment = AlignmentOptions(pixels=64, smoothness_weight=0.5)
    decided = plan(COMPACT, alignment=alignment)
    assert decided.alignment == alignment
    assert plan(PUBLISHED, method="monst3r", alignment=alignment).alignment == alignment
    still = MotionOptions(still_test=True)
    assert plan(PUBLISHED, method="easi3r", motion=still).attention_cue.still_test
    assert plan(PUBLISHED, method="monst3r", motion=still).flow_cue.still_test


def test_flow_is_measured_where_a_stage_uses_it() -> None:
    assert plan(PUBLISHED).measure_flow  # the alignment's flow term
    without = FlowOptions(in_alignment=False)
    assert not plan(PUBLISHED, flow=without).measure_flow
    assert plan(PUBLISHED, flow=without, motion=MotionOptions(cue="both")).measure_flow
    assert plan(COMPACT, flow=without).measure_flow
    single = plan(COMPACT, frames=1)
    assert not single.measure_flow
    assert not single.bundle_adjustment
    assert not single.multi_view_depth


@pytest.mark.parametrize(("frames", "width"), [(1, 5), (95, 5), (96, 4)])
def test_long_clips_have_a_narrower_pair_graph(frames: int, width: int) -> None:
    assert plan(frames=frames).pairs == f"swinstride-{width}-noncyclic"
    assert plan(frames=frames).flow_pairs == f"swinstride-{width}-noncyclic"
    assert plan(pairs="complete", frames=frames).pairs == "complete"


@pytest.mark.parametrize(("frames", "width"), [(2, 5), (95, 5), (96, 4)])
def test_before_bundle_adjustment_the_network_compares_fewer_pairs(frames: int, width: int) -> None:
    adjusted = plan(COMPACT, frames=frames)
    assert adjusted.pairs == "swinstride-3-noncyclic-alternating"
    assert adjusted.flow_pairs == f"swinstride-{width}-noncyclic"


def test_pairs_of_flow() -> None:
    """They are those of the network where these were asked for, and may be asked for themselves."""
    chosen = plan(COMPACT, pairs="complete")
    assert (chosen.pairs, chosen.flow_pairs) == ("complete", "complete")
    of_flow = FlowOptions(pairs="swin-2-noncyclic")
    apart = plan(COMPACT, flow=of_flow)
    assert apart.pairs == plan(COMPACT).pairs
    assert apart.flow_pairs == "swin-2-noncyclic"
    both = plan(COMPACT, pairs="complete", flow=of_flow)
    assert (both.pairs, both.flow_pairs) == ("complete", "swin-2-noncyclic")
    with pytest.raises(InputError, match="unknown pair graph 'swan-2'"):
        FlowOptions(pairs="swan-2")


def test_pairs_have_one_direction_before_bundle_adjustment_without_attention() -> None:
    assert plan(COMPACT).pairs.endswith("-alternating")
    for cue in ("attention", "both"):
        assert plan(COMPACT, motion=MotionOptions(cue=cue)).pairs == "swinstride-5-noncyclic"
    unadjusted = RefinementOptions(bundle_adjustment=False)
    assert plan(COMPACT, refinement=unadjusted).pairs == "swinstride-5-noncyclic"
    assert plan(COMPACT, pairs="swinstride-5-noncyclic").pairs == "swinstride-5-noncyclic"


def test_the_motion_model_recommends_the_cue() -> None:
    decided = resolve(Options(), PUBLISHED, CLIP, motion_model=COMPACT)
    assert decided.cue == "flow"
    assert decided.mask_refiner == "edges"
    assert not decided.bundle_adjustment  # geometry is the other model's


def test_given_masks_need_no_cue() -> None:
    decided = resolve(Options(), COMPACT, CLIP, masks_given=True)
    assert decided.cue == "given"
    assert not decided.second_pass
    assert decided.bundle_adjustment


def test_contradictions_are_refused() -> None:
    none = Options(motion=MotionOptions(cue="none"))
    with pytest.raises(InputError, match="no effect"):
        resolve(none, PUBLISHED, CLIP, motion_model=COMPACT)
    with pytest.raises(InputError, match="no effect"):
        resolve(Options(), PUBLISHED, CLIP, motion_model=COMPACT, masks_given=True)
    with pytest.raises(InputError, match="method is auto"):
        Options(method="sonar")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"motion\.cue is auto"):
        MotionOptions(cue="sonar")  # type: ignore[arg-type]
    for refine in ("polish", "edges:3", "none:"):
        with pytest.raises(InputError, match=r"motion\.refine is auto"):
            MotionOptions(refine=refine)
    assert MotionOptions(refine="sam2:weights/").refine == "sam2:weights/"


def test_a_plan_has_no_open_questions_and_prints_and_saves() -> None:
    decided = plan(COMPACT, priors=Priors(K=np.tile(np.eye(3), (3, 1, 1))))
    for name, value in vars(decided).items():
        assert value is not None, name
        assert value != "auto", name
    text = json.dumps(decided.to_json(), allow_nan=False)
    assert json.loads(text)["priors"]["K"] == "given"
    assert json.loads(text)["cue"] == "flow"
    assert "bundle_adjustment" in str(decided)
    assert len(str(decided).splitlines()) == len(vars(decided))


def test_options_alone_import_no_pytorch() -> None:
    """It takes a second, which `dyn3r run --help` would wait for."""
    import subprocess
    import sys

    code = "import sys, dyn3r.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LONG = moving_square(LARGEST_WINDOW + 1, (16, 64))


def test_long_clips_are_divided_unless_a_published_recipe_or_graph_is_asked_for() -> None:
    assert windows_of(Options(), COMPACT, CLIP) is None
    divided = windows_of(Options(), COMPACT, LONG)
    assert divided is not None
    assert len(divided) == 2
    assert windows_of(Options(pairs="swin-3-noncyclic"), COMPACT, LONG) == divided
    for options in (Options(method="easi3r"), Options(pairs="complete"), Options(pairs="oneref-3")):
        assert windows_of(options, COMPACT, LONG) is None
    assert windows_of(Options(), PUBLISHED, LONG) is None
    little = WindowOptions(memory_gb=0.5)
    assert windows_of(Options(method="easi3r", windows=little), COMPACT, LONG) is not None


def test_windows_that_were_asked_for_and_cannot_be_are_refused() -> None:
    asked = WindowOptions(frames=40)
    with pytest.raises(InputError, match="can't be combined with oneref"):
        windows_of(Options(pairs="oneref-3", windows=asked), COMPACT, LONG)
    depth = np.full((len(LONG), 16, 64), np.nan, np.float32)
    depth[70] = 1.0
    known = Priors(depth=depth)
    with pytest.raises(InputError, match="known cameras or depth"):
        windows_of(Options(windows=asked, priors=known), COMPACT, LONG)
    assert windows_of(Options(priors=known), COMPACT, LONG) is None
