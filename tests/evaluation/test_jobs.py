"""Jobs in this process, in others and on a real local Ray cluster; workers that die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
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


@pytest.mark.slow
def test_an_interrupted_run_does_not_wait_for_its_processes(tmp_path: Path) -> None:
    outcomes = run_jobs(FakeWorker(tmp_path), ["sleep", "ok after sleep"], jobs=2)
    assert next(iter(outcomes)).item == "ok after sleep"
    outcomes.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "awake").exists()
    assert not multiprocessing.active_children()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray cluster of two CPUs on this machine, which ends with its first process."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", f"--port={address.partition(':')[2]}", "--num-cpus=2", "--block"]
    more = ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen([*ray, *start, *more], **quiet)  # type: ignore[call-overload]
    try:
        _wait_for([*ray, "status", f"--address={address}"], head, **quiet)
        yield address
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)


def _wait_for(command: list[str], head: subprocess.Popen, **quiet: int) -> None:
    """Wait until the cluster answers."""
    for _ in range(60):
        assert head.poll() is None, "the cluster has ended"
        if subprocess.run(command, **quiet, check=False).returncode == 0:
            return
        time.sleep(0.5)
    pytest.fail("no cluster within a minute")


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
def test_more_workers_than_the_cluster_has_room_for(tmp_path: Path, cluster: str) -> None:
    """Two of five workers can start: the others follow as these end, and all jobs are done."""
    items = [f"ok {k}" for k in range(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = outcomes(tmp_path, items, jobs=5, ray=cluster)
    assert all(outcome.result is not None for outcome in done.values())


@pytest.mark.slow
def test_ray_workers_that_cannot_start(tmp_path: Path, cluster: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for trouble, said in (
            ("no model", "no model here"),
            ("broken", "ValueError: not prepared"),
        ):
            worker = FakeWorker(tmp_path, trouble=trouble)
            done = list(run_jobs(worker, ["ok 1", "ok 2"], jobs=2, ray=cluster))
            assert [outcome.result for outcome in done] == [None, None]
            assert all(said in outcome.error for outcome in done), done
            assert not any("\n" in outcome.error for outcome in done)


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
