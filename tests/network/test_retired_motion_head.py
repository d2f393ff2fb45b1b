"""Files saved with the retired motion head: its entry and its weights are ignored, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dyn3r.errors import CheckpointError
from dyn3r.network.checkpoints.files import read_checkpoint
from dyn3r.network.checkpoints.reader import describe_checkpoint, load_network, save_network
from dyn3r.network.config import NetworkConfig

from ..factories import tiny_network

MOTION = [f"downstream_head{view}.dpt.motion.{layer}.weight" for view in (1, 2) for layer in (0, 2)]


def save_old(folder: Path, retired: object, extra: list[str]) -> Path:
    """Write the tiny network with the retired entry (None: without) and additional weights."""
    network = tiny_network()
    plain, path = folder / "plain.safetensors", folder / "old.safetensors"
    save_network(plain, network, {}, overwrite=True)
    tensors = {name: tensor.clone() for name, tensor in read_checkpoint(plain).tensors.items()}
    tensors |= {name: torch.ones(3) for name in extra}
    config = network.config.to_dict() | ({} if retired is None else {"motion_head": retired})
    save_file(tensors, path, {"dyn3r_format": "1", "dyn3r_config": json.dumps(config)})
    return path


@pytest.mark.slow
def test_the_weights_of_the_head_are_dropped(tmp_path: Path) -> None:
    path = save_old(tmp_path, True, MOTION)
    network, _ = load_network(path)
    expected = tiny_network()
    assert network.config == expected.config
    assert list(network.state_dict()) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    plain = describe_checkpoint(tmp_path / "plain.safetensors")
    assert describe_checkpoint(path)[1:] == plain[1:]


@pytest.mark.parametrize(
    ("retired", "extra"),
    [
        (False, MOTION),
        (None, MOTION),
        (True, ["downstream_head3.dpt.motion.0.weight"]),
        (True, ["downstream_head1.dpt.motions.0.weight"]),
        (True, ["x.downstream_head1.dpt.motion.0.weight"]),
        (True, [*MOTION, "downstream_head1.dpt.movement.0.weight"]),
    ],
)
def test_other_unknown_weights_are_refused(tmp_path: Path, retired: object, extra: list) -> None:
    with pytest.raises(CheckpointError, match="unknown weights"):
        load_network(save_old(tmp_path, retired, extra))


@pytest.mark.slow
def test_a_file_that_declares_no_head_loads(tmp_path: Path) -> None:
    for retired in (False, None):
        assert load_network(save_old(tmp_path, retired, []))[0].config == tiny_network().config


@pytest.mark.parametrize("retired", [1, 0, "true", None, []])
def test_the_retired_entry_is_a_bool(retired: object) -> None:
    config = NetworkConfig()
    with pytest.raises(CheckpointError, match=r"motion_head=.* must be true or false"):
        NetworkConfig.from_dict({**config.to_dict(), "motion_head": retired})
    assert NetworkConfig.from_dict({**config.to_dict(), "motion_head": True}) == config
    assert "motion_head" not in config.to_dict()


def test_the_embedded_model_has_such_a_head() -> None:
    path = Path(__file__).parents[2] / "src/dyn3r/assets/weights/compact.safetensors"
    content = read_checkpoint(path)
    assert content.config["motion_head"] is True
    assert any(name.startswith("downstream_head1.dpt.motion.") for name in content.tensors)
    network, facts = load_network(path)
    assert not any("motion" in name for name in network.state_dict())
    assert facts["name"] == "compact"
