"""Archives and numbers: what is accepted, and what is refused before memory is taken."""

from __future__ import annotations

import numpy as np
import pytest

from dyn3r.errors import InputError
from dyn3r.io import archives
from dyn3r.io.numbers import check_finite, checked_number, checked_whole
from dyn3r.network.options import InferenceOptions
from tests.robustness.bad_files import zero_bomb


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i2", "?", "U5"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(dtype, order, tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype, order=order)
    np.savez_compressed(tmp_path / "a.npz", x=array, empty=array[:0])
    np.save(tmp_path / "a.npy", array)
    with archives.open_arrays(tmp_path / "a.npz") as arrays:
        assert arrays.names == ["x", "empty"]
        assert arrays.header("x").shape == (2, 3, 4)
        np.testing.assert_array_equal(arrays.read("x"), array)
        assert arrays.read("empty").shape == (0, 3, 4)
    np.testing.assert_array_equal(archives.read_array(tmp_path / "a.npy"), array)


def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    (tmp_path / "a.npz").write_bytes(zero_bomb("x"))
    monkeypatch.setattr(archives, "_content", lambda *_: pytest.fail("must not be read"))
    with (
        archives.open_arrays(tmp_path / "a.npz") as arrays,
        pytest.raises(InputError, match=r"declares 1\.0 GB"),
    ):
        arrays.read("x")


def test_the_budget_is_for_all_arrays_together(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALLOWANCE", 1_000_000)
    np.savez_compressed(tmp_path / "a.npz", **{f"x{k}": np.zeros(400_000, "u1") for k in range(3)})
    with archives.open_arrays(tmp_path / "a.npz") as arrays:
        arrays.read("x0")
        arrays.read("x1")
        with pytest.raises(InputError, match="declares"):
            arrays.read("x2")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -0.1, 1.1, "1", None, True, [1], 10**400]
)
def test_numbers_out_of_range(value):
    with pytest.raises(InputError, match="x must be a number from 0 to 1, not "):
        checked_number(value, "x", low=0, high=1)
    with pytest.raises(InputError, match="x must be a whole number from 0 to 1, not "):
        checked_whole(value, "x", low=0, high=1)


def test_numbers_in_range():
    assert checked_number(np.float32(0.5), "x", low=0, high=1) == 0.5
    assert checked_whole(np.int64(1), "x", low=0, high=1) == 1
    check_finite(InferenceOptions())
    with pytest.raises(InputError, match="one of thousands of digits"):
        checked_whole(10**5000, "x", low=0, high=1)
    broken = InferenceOptions()
    object.__setattr__(broken, "memory_gb", float("inf"))
    with pytest.raises(InputError, match=r"a\.memory_gb must be a finite number"):
        check_finite(broken, "a")
