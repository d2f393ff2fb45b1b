"""RAFT without torchvision, with a stand-in for it, and with torchvision itself if it is there."""

from __future__ import annotations

import enum
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dyn3r.errors import CheckpointError, InputError, MissingExtraError
from dyn3r.flow import RaftFlow
from dyn3r.flow import raft as raft_module


class Known(enum.Enum):
    """The names a stand-in knows."""

    C_V1 = "c_v1"
    DEFAULT = "best"


class StandIn(torch.nn.Module):
    """Answers with the column number at full resolution, and looks at what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))

    def forward(self, a: torch.Tensor, b: torch.Tensor, num_flow_updates: int) -> list:
        assert a.shape == b.shape
        assert a.shape[2] % 8 == a.shape[3] % 8 == 0
        assert min(a.shape[2:]) >= 128
        assert float(a.min()) >= -1
        assert float(a.max()) <= 1
        columns = torch.arange(a.shape[3], dtype=torch.float32).expand(1, 2, *a.shape[2:])
        return [columns * 0] * (num_flow_updates - 1) + [columns]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(weights: Known | None = None) -> StandIn:
        if weights is Known.DEFAULT:
            raise OSError("no network")
        return StandIn()

    module = types.SimpleNamespace(
        raft_large=build, raft_small=build, Raft_Large_Weights=Known, Raft_Small_Weights=Known
    )
    monkeypatch.setattr(raft_module, "import_module", lambda name: module)


PICTURE = np.full((100, 150, 3), 255, np.uint8)


def test_padding_is_taken_off_again(stand_in: None) -> None:
    field = RaftFlow(weights=None).flow(PICTURE, PICTURE)
    assert field.shape == (100, 150, 2)
    assert field.dtype == np.float32
    # 150 columns are padded to 152, one on each side
    assert field[0, :, 0].tolist() == list(range(1, 151))


def test_weights(stand_in: None, tmp_path: Path) -> None:
    assert RaftFlow(weights="c_v1").flow(PICTURE, PICTURE).shape == (100, 150, 2)
    with pytest.raises(InputError, match="C_V1"):
        RaftFlow(weights="other").flow(PICTURE, PICTURE)
    with pytest.raises(CheckpointError, match="choose the flow estimator dis"):
        RaftFlow().flow(PICTURE, PICTURE)
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file({"weight": torch.ones(3)}, good)
    save_file({"other": torch.ones(3)}, bad)
    assert RaftFlow(weights=str(good)).flow(PICTURE, PICTURE).shape == (100, 150, 2)
    with pytest.raises(CheckpointError, match="holds no weights"):
        RaftFlow(weights=str(bad)).flow(PICTURE, PICTURE)
    with pytest.raises(InputError, match="no file"):
        RaftFlow(weights=str(tmp_path / "none.safetensors")).flow(PICTURE, PICTURE)


@pytest.mark.parametrize("problem", [ImportError, RuntimeError])
def test_without_a_usable_torchvision(
    monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    def missing(name: str) -> None:
        raise problem(name)

    monkeypatch.setattr(raft_module, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"dyn3r\[raft\]"):
        RaftFlow().flow(PICTURE, PICTURE)


def test_torchvision_itself_with_random_weights() -> None:
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as problem:
        pytest.skip(f"no usable torchvision: {problem}")
    torch.manual_seed(0)
    field = RaftFlow(size="small", weights=None, updates=2).flow(PICTURE, PICTURE[:, ::-1].copy())
    assert field.shape == (100, 150, 2)
    assert np.isfinite(field).all()
