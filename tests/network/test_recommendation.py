"""Recommendations in the header of a weights file, which is untrusted."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.network.checkpoints.recommendation import Recommendation
from dyn3r.network.model import Model, load_model, prepare_model

from ..factories import tiny_network


def test_nothing_is_recommended_without_facts() -> None:
    nothing = Recommendation("attention", False, False, False, "none")
    assert Recommendation() == Recommendation.from_facts({}) == nothing
    assert Recommendation.from_facts({"licence": "Apache-2.0", "epoch": "90"}) == nothing
    with pytest.raises(FrozenInstanceError):
        nothing.cue = "flow"  # type: ignore[misc]


def test_the_entries_of_the_embedded_model() -> None:
    facts = {"motion_cue": "flow", "bundle": "on", "mover_depth": "ground", "refine": "edges"}
    assert Recommendation.from_facts(facts) == Recommendation("flow", True, True, True, "edges")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"motion_cue": "attention"}, Recommendation(cue="attention")),
        ({"motion_cue": "both"}, Recommendation(cue="both")),
        ({"motion_cue": "learned"}, Recommendation(cue="flow")),
        ({"motion_cue": "flow+learned"}, Recommendation(cue="flow")),
        ({"bundle": "off"}, Recommendation()),
        ({"bundle": "on", "stereo": "off"}, Recommendation(refinement=True, mvs=False)),
        ({"bundle": "off", "stereo": "on"}, Recommendation(refinement=False, mvs=True)),
        ({"mover_depth": "network"}, Recommendation()),
        ({"refine": "none"}, Recommendation()),
    ],
)
def test_every_value(facts: dict[str, str], expected: Recommendation) -> None:
    assert Recommendation.from_facts(facts) == expected


def test_multi_view_depth_follows_the_refinement_by_default() -> None:
    assert Recommendation(refinement=True).mvs is True
    assert Recommendation.from_facts({"bundle": "on"}).mvs is True
    assert Recommendation().mvs is False


@pytest.mark.parametrize("name", ["motion_cue", "bundle", "stereo", "mover_depth", "refine"])
@pytest.mark.parametrize("value", ["", "ON", "none at all", "x" * 10**6, "a\nb"])
def test_an_unknown_value_is_refused_in_one_short_line(name: str, value: str) -> None:
    with pytest.raises(CheckpointError, match=f"unknown recommendation {name}=") as caught:
        Recommendation.from_facts({name: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_model_carries_its_recommendation() -> None:
    model = prepare_model(tiny_network(), "tiny", device="cpu", facts={"bundle": "on"})
    assert model.recommendation == Recommendation(refinement=True)
    assert replace(model, facts={}).recommendation == Recommendation()
    plain = Model(model.network, "plain", torch.device("cpu"), "float32")
    assert plain.recommendation == Recommendation()


def test_a_file_with_an_unknown_value_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    save_network(path, tiny_network(), {"bundle": "rm -rf"})
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors: unknown recommendation"):
        load_model(path, device="cpu")


def test_the_embedded_model() -> None:
    recommendation = load_model("compact", device="cpu").recommendation
    assert recommendation == Recommendation("flow", True, True, True, "edges")
