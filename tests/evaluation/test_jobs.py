"""Jobs in this process, in others and on a real local Ray cluster; workers that die."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.evaluation.workers import FakeWorker

from dyn3r.errors import InputError, MissingExtraError
from dyn3r.evaluation.jobs import Outcome
from dyn3r.evaluation.run_jobs import run_jobs


def outcomes(folder: Path, items: list[str], **how: object) -> dict[str, Outcome]:
    done = list(run_jobs(FakeWorker(folder), items, **how))  # type: ignore[arg-type]
    assert len(done) == len(items)
    return {outcome.item: outcome for outcome in done}


def test_one_after_the_other(tmp_path: Path) -> None:
    done = outcomes(tmp_path, ["ok 1", "fail", "ok 2"])
    assert done["ok 1"].result == {"item": "ok 1", "process": os.getpid()}
    assert done["fail"] == Outcome("fail", None, "it is broken")
    assert done["ok 2"].result is not None


def test_jobs_below_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jobs must be 1 or more"):
        outcomes(tmp_path, ["ok"], jobs=0)


@pytest.mark.slow
def test_processes_one_of_which_dies(tmp_path: Path) -> None:
    items = ["ok 1", "die once", "fail", "ok 2", "die", "ok 3"]
    done = outcomes(tmp_path, items, jobs=2)
    results = [done[item].result for item in ("ok 1", "ok 2", "ok 3", "die once")]
    assert all(result is not None and result["process"] != os.getpid() for result in results)
    assert done["fail"].error == "it is broken"
    assert done["die"].result is None
    assert "died 2 times" in done["die"].error


@pytest.fixture
def cluster() -> Iterator[str]:
    """A Ray cluster on this machine."""
    pytest.importorskip("ray")
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    port = 46379
    start = ["start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    subprocess.run([*ray, *start, "--disable-usage-stats"], **quiet)  # type: ignore[call-overload]
    yield f"127.0.0.1:{port}"
    subprocess.run([*ray, "stop", "--force"], **quiet)  # type: ignore[call-overload]


@pytest.mark.slow
def test_ray_workers_one_of_which_dies(tmp_path: Path, cluster: str) -> None:
    items = ["ok 1", "die once", "fail", "ok 2", "die", "ok 3"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        done = outcomes(tmp_path, items, jobs=2, ray=cluster)
    for item in ("ok 1", "ok 2", "ok 3", "die once"):
        assert done[item].result is not None, item
    assert done["fail"].error == "it is broken"
    assert done["die"].result is None
    assert "died 2 times" in done["die"].error


@pytest.mark.slow
def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="no Ray cluster at 127"):
            outcomes(tmp_path, ["ok"], ray="127.0.0.1:1")


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"dyn3r\[ray\]"):
        outcomes(tmp_path, ["ok"], ray="auto")
