"""Data sets by name, from a server on this machine: whole, interrupted, wrong, hostile."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from dyn3r.cli.main import main
from dyn3r.datasets.catalogue import CATALOGUE, SEE_PAGE, Archive, CatalogueEntry, catalogue_entry
from dyn3r.datasets.download import get, steps_by_hand
from dyn3r.errors import DownloadError, InputError
from dyn3r.io.unpack import ALLOWANCE, unpack
from tests.network.local_hub import LocalHub, local_hub

NAME = "davis"
FILE = "small.zip"
PICTURE = os.urandom(250_000)  # pictures can't be compressed
FILES = {"DAVIS/JPEGImages/480p/dog/00000.jpg": PICTURE, "DAVIS/README.md": b"# about\n" * 100}


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_entry(name: str, mode: int, content: bytes = b"") -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, content)
    return out.getvalue()


@pytest.fixture
def server(monkeypatch):
    """The server of the tests of models, with one archive."""
    with local_hub() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 20_000)
        monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
        hub.files[FILE] = zipped(FILES)
        yield hub


def entry_of(hub: LocalHub, *files: str, **facts) -> CatalogueEntry:
    archives = tuple(Archive(f"{hub.bytes_url}/bytes/{f}", **facts) for f in files or (FILE,))
    return replace(CATALOGUE[NAME], archives=archives)


def stored(root: Path, file: str = FILE) -> Path:
    return root / "archives" / NAME / file


def is_whole(root: Path, files: dict[str, bytes] = FILES) -> bool:
    return all((root / NAME / name).read_bytes() == content for name, content in files.items())


def refused(words: str, entry: CatalogueEntry, root: Path, error: type = DownloadError) -> str:
    with pytest.raises(error, match=words) as caught:
        get(entry, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- it works --------------------------------------------------------------------------------


def test_a_whole_download_and_nothing_twice(server, tmp_path):
    seen: list[tuple[str, int, int]] = []
    entry = entry_of(server)
    assert get(entry, tmp_path, progress=lambda *step: seen.append(step)) == tmp_path / NAME
    assert is_whole(tmp_path)
    checksum = hashlib.sha256(server.files[FILE]).hexdigest()
    record = stored(tmp_path).with_name(f"{FILE}.sha256")
    assert record.read_text() == f"{checksum}  {FILE}\n"  # `sha256sum -c` reads it
    assert {stage for stage, _, _ in seen} == {
        f"{NAME}: {FILE} (MB)", f"checking {NAME}: {FILE} (MB)", f"unpacking {NAME}: {FILE} (MB)",
    }  # fmt: skip
    assert all(0 <= done <= total for _, done, total in seen)
    assert not list(tmp_path.rglob("*.part"))

    server.requests.clear()
    kept = tmp_path / NAME / "DAVIS" / "README.md"
    kept.write_text("mine")
    get(entry, tmp_path)  # the archive is checked, and not unpacked again
    stored(tmp_path).unlink()
    get(entry, tmp_path)  # it may go when it is unpacked
    assert kept.read_text() == "mine"
    assert not server.requests


def test_several_archives_share_a_folder(server, tmp_path):
    server.files["second.tgz"] = tarred(special("DAVIS", tarfile.DIRTYPE), ("DAVIS/x/y", b"2"))
    server.files["third.tgz"] = b"no archive"
    entry = entry_of(server, FILE, "second.tgz", "third.tgz")
    refused("third.tgz is damaged, or no zip or tgz", entry, tmp_path, InputError)
    assert is_whole(tmp_path, {**FILES, "DAVIS/x/y": b"2"})

    server.files["third.tgz"] = tarred(("DAVIS/z", b"3"))
    for left in stored(tmp_path).parent.glob("third.tgz*"):
        left.unlink()  # as the message says
    server.requests.clear()
    get(entry, tmp_path)
    assert {path.rpartition("/")[2] for _, path, _, _ in server.requests} == {"third.tgz"}
    assert is_whole(tmp_path, {**FILES, "DAVIS/x/y": b"2", "DAVIS/z": b"3"})


def test_an_archive_that_was_brought_by_hand(server, tmp_path):
    stored(tmp_path).parent.mkdir(parents=True)
    stored(tmp_path).write_bytes(server.files[FILE])
    get(entry_of(server), tmp_path)
    assert is_whole(tmp_path)
    assert not server.requests


# --- it breaks -------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_was_cut(server, tmp_path):
    server.break_after, server.fail_with = [100_000], [410]
    message = refused("error 410 for small.zip", entry_of(server), tmp_path)
    assert f"by hand to {stored(tmp_path)}" in message
    assert not (tmp_path / NAME).exists()
    server.requests.clear()
    get(entry_of(server), tmp_path)
    assert server.transfers() == ["bytes=100000-"]
    assert is_whole(tmp_path)


def test_an_interrupted_unpacking_leaves_nothing_and_is_repeated(server, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dyn3r.io.unpack._write_file", stop)
        with pytest.raises(KeyboardInterrupt):
            get(entry_of(server), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives"]
    server.requests.clear()
    get(entry_of(server), tmp_path)
    assert is_whole(tmp_path)
    assert not server.requests


def test_the_first_checksum_holds_from_then_on(server, tmp_path):
    get(entry_of(server), tmp_path)
    stored(tmp_path).unlink()
    (tmp_path / NAME / f".{FILE}.unpacked").unlink()
    content = server.files[FILE]
    server.corrupt = True
    message = refused("not the published file .*first download", entry_of(server), tmp_path)
    assert f"{FILE}.sha256" in message
    assert not stored(tmp_path).exists()
    server.corrupt = False
    stored(tmp_path).write_bytes(content[:-1])  # damaged on the disk
    get(entry_of(server), tmp_path)
    assert stored(tmp_path).read_bytes() == content


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"sha256": "ab" * 32}, "not the published file"),
        ({"bytes": 1234}, "bytes, expected 1234"),
    ],
)
def test_what_the_catalogue_knows_is_checked(server, tmp_path, facts, words):
    message = refused(words, entry_of(server, **facts), tmp_path)
    assert "first download" not in message
    assert CATALOGUE[NAME].page in message
    assert not (tmp_path / NAME).exists()


def test_a_file_brought_by_hand_of_another_length(server, tmp_path):
    stored(tmp_path).parent.mkdir(parents=True)
    stored(tmp_path).write_bytes(b"short")
    refused("has 5 bytes, expected 1234: delete it", entry_of(server, bytes=1234), tmp_path)


def test_a_record_that_is_none(server, tmp_path):
    get(entry_of(server), tmp_path)
    stored(tmp_path).with_name(f"{FILE}.sha256").write_text("no checksum")
    refused("holds no checksum: delete it", entry_of(server), tmp_path, InputError)


def test_no_connection(tmp_path):
    with local_hub() as gone:
        entry = entry_of(gone)
    refused("no connection to 127.0.0.1:.*by hand to", entry, tmp_path)


# --- hostile archives ------------------------------------------------------------------------

LIAR = tarfile.TarInfo("big")
LIAR.size = 10 * ALLOWANCE
LONG_HEADER = special("long", tarfile.GNUTYPE_LONGNAME)
LONG_HEADER.size = ALLOWANCE

HOSTILE = {
    "zip-slip": (zipped({"good": b"1", "../escaped": b"2"}), "leads out of the folder"),
    "zip, deep": (zipped({"a/../../escaped": b"2"}), "leads out of the folder"),
    "zip, absolute": (zipped({"/tmp/escaped": b"2"}), "not a relative path"),
    "zip, Windows": (zipped({"..\\escaped": b"2"}), "not a relative path"),
    "zip, drive": (zipped({"C:escaped": b"2"}), "not a relative path"),
    "zip, no name": (zipped({".": b"2"}), "no name of a file"),
    "zip, link": (zip_entry("escaped", 0o120777, b"/etc/passwd"), "is a link"),
    "zip, device": (zip_entry("escaped", 0o020666), "is a special file"),
    "zip, bomb": (zipped({"big": bytes(2 * ALLOWANCE)}), "more than 0.1 GB"),
    "tar-slip": (tarred(("good", b"1"), ("../escaped", b"2")), "leads out of the folder"),
    "tar, absolute": (tarred(("/tmp/escaped", b"2")), "not a relative path"),
    "tar, link": (tarred(special("in", tarfile.SYMTYPE, ".."), ("in/escaped", b"2")), "is a link"),
    "tar, hard link": (tarred(special("in", tarfile.LNKTYPE, "/etc/passwd")), "is a link"),
    "tar, device": (tarred(special("null", tarfile.CHRTYPE)), "is a special file"),
    "tar, pipe": (tarred(special("pipe", tarfile.FIFOTYPE)), "is a special file"),
    "tar, bomb": (tarred(LIAR), "more than 0.1 GB"),
    "tar, long header": (gzip.compress(LONG_HEADER.tobuf() + bytes(1024)), "many megabytes"),
    "tar, cut off": (tarred(("x", PICTURE))[:100_000], "is damaged"),
    "zip, cut off": (zipped(FILES)[:100_000], "no zip or tgz"),
    "a page": (b"<html>not found</html>", "no zip or tgz"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_leave_nothing(tmp_path, kind):
    content, words = HOSTILE[kind]
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        unpack(archive, tmp_path / "below" / "target")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*escaped*"))
    assert [path.name for path in tmp_path.rglob("*")] == ["archive"]


def test_an_archive_whose_contents_are_damaged(tmp_path):
    for file, content in (("a.zip", zipped(FILES)), ("a.tgz", tarred(("x", PICTURE)))):
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        (tmp_path / file).write_bytes(changed)
        with pytest.raises(InputError, match="is damaged"):
            unpack(tmp_path / file, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_permissions_in_an_archive_are_ignored(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_entry("program", 0o104777, b"x"))
    unpack(tmp_path / "a.zip", tmp_path / "target")
    assert not (tmp_path / "target" / "program").stat().st_mode & 0o7111


# --- the command and the catalogue -----------------------------------------------------------


def test_an_unknown_name_lists_the_names(tmp_path, capsys):
    assert main(["datasets", "get", "nonsense", "--root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert all(name in message for name in CATALOGUE)
    assert message.count("\n") == 1
    with pytest.raises(InputError, match="no data set is called"):
        catalogue_entry("nonsense")


@pytest.mark.parametrize("name", [name for name, e in CATALOGUE.items() if not e.is_open])
def test_the_others_are_explained(tmp_path, capsys, name):
    assert main(["datasets", "get", name, "--root", str(tmp_path)]) == 1
    said = capsys.readouterr()
    entry = CATALOGUE[name]
    for text in (entry.licence, entry.page, entry.agreement or "", str(tmp_path / name)):
        assert text in said.out
    assert "is not downloaded by dyn3r" in said.err
    assert not list(tmp_path.iterdir())


def test_what_needs_an_agreement_is_never_downloaded(server, tmp_path):
    entry = replace(entry_of(server), agreement="a form")
    refused("not downloaded by dyn3r: it needs a form", entry, tmp_path, InputError)
    assert not server.requests


def test_the_licence_comes_before_the_download(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(CATALOGUE, NAME, entry_of(server))
    assert main(["datasets", "get", NAME, "--root", str(tmp_path), "-q"]) == 0
    said = capsys.readouterr()
    assert said.out.index("licence: ") < said.out.index(f"{NAME} is in {tmp_path / NAME}")
    assert said.err == ""
    server.files.clear()
    monkeypatch.setitem(CATALOGUE, NAME, replace(entry_of(server), name="other"))
    assert main(["datasets", "get", NAME, "--root", str(tmp_path), "-q"]) == 1
    assert "licence: " in capsys.readouterr().out


def test_the_list(capsys):
    assert main(["datasets"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    for name, entry in CATALOGUE.items():
        assert all(text in lines[name] for text in (entry.licence, entry.size, entry.page))


def test_the_catalogue_and_its_page_agree(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text().split("## Downloads")[0]
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, entry in CATALOGUE.items():
        assert entry.is_open or steps_by_hand(entry, tmp_path)
        for text in (entry.licence, entry.size, entry.page, entry.agreement or ""):
            assert text in rows[name]
        files = [archive.file_name for archive in entry.archives]
        assert len(set(files)) == len(files)
        assert entry.licence != ""
    assert SEE_PAGE in page
