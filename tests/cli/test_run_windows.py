"""`dyn3r run` of a long clip: stopped, killed, and taken up again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dyn3r.cli import run_windows
from dyn3r.cli.main import main
from dyn3r.errors import InputError
from dyn3r.network.checkpoints.reader import save_network
from dyn3r.scene import Scene
from dyn3r.scene.windows import join
from dyn3r.scene.windows.store import ABOUT, WindowStore
from tests.factories import tiny_network


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command without -o: ten frames in three windows of six."""
    folder = tmp_path_factory.mktemp("inputs")
    save_network(folder / "tiny.safetensors", tiny_network(), {})
    (folder / "frames").mkdir()
    wall = np.random.default_rng(0).integers(0, 256, (48, 100, 3), dtype=np.uint8)
    for t in range(14):
        Image.fromarray(wall[:, 2 * t : 2 * t + 64]).save(folder / "frames" / f"{t:02d}.png")
    options = "--size 64 --no-pictures --motion.cue none --alignment.pixels 64"
    windows = "--alignment.iterations 2 --windows.frames 6 --windows.overlap 2"
    model = str(folder / "tiny.safetensors")
    return ["run", str(folder / "frames"), "--model", model, *f"{options} {windows}".split()]


@pytest.fixture(autouse=True)
def windows_of_an_untrained_network_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would be computed again."""
    monkeypatch.setattr(join, "MOST_ROTATION_DEG", np.inf)
    monkeypatch.setattr(join, "MOST_CENTRE_DEPTHS", np.inf)


def stop_after(count: int, how: signal.Signals) -> None:
    """End this process with the window of that number."""
    join.MOST_ROTATION_DEG = join.MOST_CENTRE_DEPTHS = np.inf
    save = WindowStore.save

    def saved(self: WindowStore, number: int, *values: object) -> Scene:
        scene = save(self, number, *values)  # type: ignore[arg-type]
        if number + 1 == count:
            os.kill(os.getpid(), how)
        return scene

    WindowStore.save = saved  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_goes_on_after_a_signal(
    how: signal.Signals, inputs: list[str], tmp_path: Path, monkeypatch, capsys
) -> None:
    out = tmp_path / "out"
    command = [*inputs, "-o", str(out)]
    code = (
        "import sys; from signal import Signals; from tests.cli.test_run_windows import *;"
        f"stop_after(2, Signals({int(how)})); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == (-how if how == signal.SIGKILL else 128 + how)
    assert "using all, in 3 windows of 6 (about 0.5 GB)" in done.stderr
    kept = run_windows.windows_folder(out)
    assert WindowStore(kept).finished() == 2
    assert not (out / "scene.dyn3r").exists()
    if how == signal.SIGINT:
        assert f"2 finished windows are kept in {kept}" in done.stderr

    # not lost by the same command, nor taken for something else
    assert main(command) == 1
    assert f"--resume {out} goes on, --overwrite starts again" in capsys.readouterr().err
    assert main([*command, "--resume", str(out), "--pairs", "swin-1-noncyclic"]) == 1
    assert "windows of another run" in capsys.readouterr().err
    assert WindowStore(kept).finished() == 2

    computed: list[int] = []
    save = WindowStore.save

    def saved(self: WindowStore, number: int, *values: object) -> Scene:
        computed.append(number)
        return save(self, number, *values)  # type: ignore[arg-type]

    monkeypatch.setattr(WindowStore, "save", saved)
    assert main([*command, "--resume", str(out)]) == 0
    assert computed == [2]
    assert not kept.exists()
    whole = tmp_path / "whole"
    assert main([*inputs, "-o", str(whole)]) == 0
    assert computed == [2, 0, 1, 2]
    resumed, expected = Scene.load(out), Scene.load(whole)
    assert len(resumed) == 14
    np.testing.assert_array_equal(resumed.depth, expected.depth)
    np.testing.assert_array_equal(resumed.T_world_camera, expected.T_world_camera)


@pytest.mark.slow
def test_nothing_to_go_on_from_is_no_error(inputs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*inputs, "-o", str(out), "--resume", str(out)]
    assert main([*command, "--num-frames", "4"]) == 0
    assert len(Scene.load(out)) == 4


def test_explain_needs_one_window(inputs: list[str], tmp_path: Path, capsys) -> None:
    assert main([*inputs, "-o", str(tmp_path / "out"), "--explain"]) == 1
    assert "--explain draws frames of one window" in capsys.readouterr().err
    assert not (tmp_path / "out.windows").exists()


def test_windows_are_checked_before_anything_is_computed(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    kept = run_windows.windows_folder(out)
    run_windows.check(out, None, overwrite=False)
    kept.mkdir()
    run_windows.check(out, None, overwrite=False)  # empty: not ours
    (kept / ABOUT).write_text("{}")
    with pytest.raises(InputError, match="--overwrite starts again"):
        run_windows.check(out, None, overwrite=False)
    run_windows.check(out, out, overwrite=False)
    run_windows.check(out, other, overwrite=False)
    run_windows.check(out, None, overwrite=True)
    with pytest.raises(InputError, match=f"was interrupted: to go on, add -o {out}"):
        run_windows.check(other, out, overwrite=False)
    out.mkdir()
    (out / "scene.dyn3r").touch()  # a result: it may be continued elsewhere
    run_windows.check(other, out, overwrite=False)
    run_windows.check(out, out, overwrite=False)  # the windows are still there
    (kept / ABOUT).unlink()
    kept.rmdir()
    run_windows.check(other, out, overwrite=False)
    run_windows.check(out, out, overwrite=True)
    with pytest.raises(InputError, match=f"{out} is finished"):
        run_windows.check(out, out, overwrite=False)


def test_overwrite_starts_again_without_the_old_windows(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = run_windows.windows_folder(out)
    kept.mkdir()
    (kept / ABOUT).write_text("{}")
    with run_windows.kept(out, None, overwrite=True, quiet=True) as where:
        assert where.path == kept
        assert not kept.exists()
