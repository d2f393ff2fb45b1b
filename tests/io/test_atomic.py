from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dyn3r.errors import OutputError
from dyn3r.io import atomic as files


def names(folder) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_file_appears_whole_with_its_parents(tmp_path):
    target = tmp_path / "a" / "b" / "x.txt"
    with files.atomic_file(target) as part:
        assert part.parent == target.parent
        assert part.suffix == ".txt"
        part.write_text("hello")
        assert not target.exists()
    assert target.read_text() == "hello"
    assert names(tmp_path) == ["a", "a/b", "a/b/x.txt"]


def test_an_error_or_interrupt_inside_leaves_the_old_file(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), files.atomic_file(target, overwrite=True) as part:  # noqa: PT012
            part.write_text("half")
            raise error
    assert names(tmp_path) == ["x.txt"]
    assert target.read_text() == "old"


def test_existing_files_need_overwrite(tmp_path):
    target = tmp_path / "x.json"
    files.write_json(target, {"a": [1, "é"]})
    with pytest.raises(OutputError, match="exists already"):
        files.write_json(target, {})
    files.write_json(target, {"b": 2}, overwrite=True)
    assert target.read_text() == '{\n  "b": 2\n}\n'
    with pytest.raises(OutputError, match="folder"):
        files.write_text(tmp_path, "x", overwrite=True)


def test_a_name_taken_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "x.txt"
    with pytest.raises(OutputError, match="appeared"), files.atomic_file(target) as part:  # noqa: PT012
        part.write_text("mine")
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    assert names(tmp_path) == ["x.txt"]


def test_file_systems_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files.write_text(tmp_path / "x.txt", "hello")
    assert (tmp_path / "x.txt").read_text() == "hello"
    assert names(tmp_path) == ["x.txt"]


def test_what_the_system_refuses_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write") as caught:
        files.write_text(tmp_path / "file" / "x.txt", "hello")
    assert "\n" not in str(caught.value)


def test_permissions_follow_the_umask(tmp_path):
    files.write_text(tmp_path / "x.txt", "hello")
    (tmp_path / "y.txt").write_text("hello")
    assert (tmp_path / "x.txt").stat().st_mode == (tmp_path / "y.txt").stat().st_mode


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "out"
    with files.atomic_folder(target) as part:
        (part / "sub").mkdir()
        (part / "sub" / "x").write_text("1")
        assert not target.exists()
    assert names(tmp_path) == ["out", "out/sub", "out/sub/x"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no"), files.atomic_folder(tmp_path / "out") as part:  # noqa: PT012
        (part / "x").write_text("1")
        raise ValueError("no")
    assert names(tmp_path) == []


def test_folders_with_files_need_overwrite_and_keep_the_other_files(tmp_path):
    target = tmp_path / "out"
    (target / "sub").mkdir(parents=True)
    for name in ("mine", "sub/x"):
        (target / name).write_text("old")
    with pytest.raises(OutputError, match="is not empty"), files.atomic_folder(target):
        pytest.fail("must not get here")
    with files.atomic_folder(target, overwrite=True) as part:
        (part / "sub").mkdir()
        (part / "sub" / "x").write_text("new")
        (part / "y").write_text("new")
    assert names(tmp_path) == ["out", "out/mine", "out/sub", "out/sub/x", "out/y"]
    assert (target / "mine").read_text() == "old"
    assert (target / "sub" / "x").read_text() == "new"


def test_output_folders_are_checked_before_the_work(tmp_path, monkeypatch):
    files.check_output_folder(tmp_path / "new" / "deep")
    files.check_output_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="not a folder"):
        files.check_output_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="not a folder"):
        files.check_output_folder(tmp_path / "file" / "deep")
    with pytest.raises(OutputError, match="is not empty"):
        files.check_output_folder(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission"):
        files.check_output_folder(tmp_path / "new")


def test_leftovers_of_killed_processes_are_swept(tmp_path):
    """A process that is killed while it writes cannot remove its temporary files itself."""
    code = (
        "import os, signal, sys\n"
        "from dyn3r.io.atomic import atomic_file, atomic_folder\n"
        "out, file = sys.argv[1] + '/out', sys.argv[1] + '/a.png'\n"
        "with atomic_folder(out) as folder, atomic_file(file) as f:\n"
        "    (folder / 'x').write_text('half')\n"
        "    f.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == 2
    assert all(".part" in name for name in left)
    with files.atomic_file(tmp_path / "a.png") as part:
        part.write_text("whole")
    with files.atomic_folder(tmp_path / "out") as folder:
        # that of a process that still runs stays: this one
        assert any(path.name.startswith(".out.") for path in tmp_path.iterdir())
        with files.atomic_folder(tmp_path / "out") as other:
            (other / "y").write_text("whole")
        assert folder.is_dir()
        (folder / "z").write_text("whole")
        assert (tmp_path / "a.png").read_text() == "whole"
        (tmp_path / "out" / "y").unlink()
        (tmp_path / "out").rmdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]
