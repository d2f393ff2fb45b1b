from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dyn3r.errors import OutputError
from dyn3r.io import atomic as files


def names(folder) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_file_appears_whole_with_its_parents(tmp_path):
    target = tmp_path / "a" / "b" / "x.txt"
    with files.atomic_file(target) as part:
        assert target.parent in part.parents
        assert part.name == target.name
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
    assert all(name.startswith(".dyn3r-") and name.endswith(".part") for name in left)
    # whatever is written next in this folder
    files.write_text(tmp_path / "other.txt", "whole")
    assert names(tmp_path) == ["other.txt"]


def test_staging_folders_in_use_stay(tmp_path):
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("whole")
        files.write_text(tmp_path / "a.txt", "whole")
        assert (folder / "x").exists()
        with (
            pytest.raises(OutputError, match=r"another dyn3r is writing .*out"),
            files.atomic_folder(tmp_path / "out"),
        ):
            pytest.fail("must not get here")
    assert names(tmp_path) == ["a.txt", "out", "out/x"]


def test_a_folder_that_appeared_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="not empty"), files.atomic_folder(target) as part:  # noqa: PT012
        (part / "x").write_text("mine")
        target.mkdir()
        (target / "x").write_text("theirs")
    assert names(tmp_path) == ["out", "out/x"]
    assert (target / "x").read_text() == "theirs"


def test_parents_of_a_failed_result_are_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="no"), files.atomic_folder(tmp_path / "mine" / "a" / "b"):
        raise ValueError("no")
    assert names(tmp_path) == ["mine"]


def old_and_new(target: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Write a result over another one, by one of the three ways."""
    (target / "sub").mkdir(parents=True)
    for name in ("scene", "picture", "mine", "sub/x", "sub/mine"):
        (target / name).write_text("old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    if how == "no exchange":
        monkeypatch.setattr(files, "exchange", refuse)
    elif how == "no links":
        monkeypatch.setattr(os, "link", refuse)
    elif how == "working folder":
        monkeypatch.chdir(target)
    elif how == "many files":
        monkeypatch.setattr(files, "_MOST_LINKS", 3)
    with files.atomic_folder(target, overwrite=True, is_stale=lambda n: n == "picture") as part:
        (part / "sub").mkdir()
        (part / "scene").write_text("new")
        (part / "sub" / "x").write_text("new")
        assert (target / "scene").read_text() == "old"


@pytest.mark.parametrize(
    "how", ["exchange", "no exchange", "no links", "working folder", "many files"]
)
def test_stale_parts_go_and_other_files_stay(tmp_path, monkeypatch, how):
    old_and_new(tmp_path / "out", monkeypatch, how)
    out = tmp_path / "out"
    assert names(out) == ["mine", "scene", "sub", "sub/mine", "sub/x"]
    read = {name: (out / name).read_text() for name in ("mine", "scene", "sub/mine", "sub/x")}
    assert read == {"mine": "old", "scene": "new", "sub/mine": "old", "sub/x": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    monkeypatch.chdir("/")


def test_a_folder_changes_in_one_step(tmp_path, monkeypatch):
    """The names of the target never refer to a mixture: it is another folder at once."""
    target, seen = tmp_path / "out", []
    exchange = files.exchange

    def watched(first: Path, second: Path) -> None:
        seen.append([(second / name).read_text() for name in ("a", "b")])
        exchange(first, second)
        seen.append([(second / name).read_text() for name in ("a", "b")])

    monkeypatch.setattr(files, "exchange", watched)
    for text in ("old", "new"):
        with files.atomic_folder(target, overwrite=True) as part:
            for name in ("a", "b"):
                (part / name).write_text(text)
    assert seen == [["old", "old"], ["new", "new"]]


def test_what_appears_while_a_folder_is_replaced_is_kept(tmp_path, monkeypatch):
    target = tmp_path / "out"
    files.write_text(target / "a", "old")
    exchange = files.exchange

    def late(first: Path, second: Path) -> None:
        (second / "late").write_text("mine")
        exchange(first, second)

    monkeypatch.setattr(files, "exchange", late)
    with files.atomic_folder(target, overwrite=True) as part:
        (part / "a").write_text("new")
    assert names(target) == ["a", "late"]


@pytest.mark.parametrize("links", [20_000, 0])
def test_pipes_and_devices_are_not_replaced(tmp_path, monkeypatch, links):
    monkeypatch.setattr(files, "_MOST_LINKS", links)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device, pipe or socket"):
        files.write_text(tmp_path / "pipe", "x", overwrite=True)
    with pytest.raises(OutputError, match="device, pipe or socket"):
        files.write_text(Path(os.devnull), "x", overwrite=True)
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "scene")
    with (
        pytest.raises(OutputError, match="no regular file"),
        files.atomic_folder(tmp_path / "out", overwrite=True) as part,
    ):
        (part / "scene").write_text("new")
    assert names(tmp_path) == ["out", "out/scene", "pipe"]
    assert not (tmp_path / "out" / "scene").is_file()


@pytest.mark.parametrize("old", ["file", "folder"])
def test_files_and_folders_do_not_replace_each_other(tmp_path, old):
    target = tmp_path / "out"
    files.write_text(target / ("x" if old == "file" else "x/mine"), "old")
    with (
        pytest.raises(OutputError, match=f"a {old} of that name"),
        files.atomic_folder(target, overwrite=True) as part,
    ):
        files.write_text(part / ("x/new" if old == "file" else "x"), "new")
    assert names(target)[0] == "x"
    assert (target / ("x" if old == "file" else "x/mine")).read_text() == "old"


def test_a_linked_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    for text in ("old", "new"):
        with files.atomic_folder(tmp_path / "out", overwrite=True) as part:
            (part / "x").write_text(text)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "x").read_text() == "new"


def test_names_as_long_as_the_system_allows(tmp_path):
    name = "\u4e2d" * 83 + ".json"
    files.write_json(tmp_path / name, 1)
    assert names(tmp_path) == [name]
