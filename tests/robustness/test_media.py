"""Images and videos: regular files of known formats only, opened once their format is known."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from dyn3r.errors import InputError
from dyn3r.io.clip import read_clip
from dyn3r.io.frame_stream import stream_frames
from dyn3r.io.images import FrameStack, open_image
from dyn3r.io.video import open_video
from tests.videos import write_video

Reader = Callable[[Path], object]
READERS: list[Reader] = [read_clip, lambda path: list(stream_frames(path))]


def test_an_eps_file_does_not_start_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
    file = tmp_path / "a.png"
    file.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(InputError, match="is none of JPEG, PNG"):
        open_image(file)
    assert not started


@pytest.mark.parametrize("format", ["GIF", "PCX", "TGA", "ICO", "SGI"])
def test_other_formats_are_refused_whatever_their_name(format: str, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png", format=format)
    with pytest.raises(InputError, match="is none of"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("suffix", [".png", ".mp4", ""])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_pipes_sockets_and_devices_are_not_opened(
    read: Reader, suffix: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        monkeypatch.chdir(tmp_path)  # names of sockets are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    with pytest.raises(InputError, match="device, pipe or socket"):
        read(path)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {}\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><!-- {} --></MPD>\n',
    "text": "a text about {}\n",
}


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_open_nothing(read: Reader, kind: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to: opening it would block for ever."""
    os.mkfifo(tmp_path / "pipe.ts")
    file = tmp_path / "a.mp4"
    file.write_text(PLAYLISTS[kind].format(tmp_path / "pipe.ts"))
    with pytest.raises(InputError, match="cannot be read as a video"):
        read(file)


def test_a_playlist_of_a_real_video_is_refused_too(tmp_path: Path) -> None:
    write_video(tmp_path / "real.ts")
    with open_video(tmp_path / "real.ts") as container:
        assert container.format.name == "mpegts"
    (tmp_path / "a.m3u8").write_text(PLAYLISTS["hls"].format(tmp_path / "real.ts"))
    with pytest.raises(InputError, match="cannot be read as a video"):
        read_clip(tmp_path / "a.m3u8")


def test_a_wrong_estimate_of_the_length_takes_no_memory() -> None:
    stack = FrameStack((3072, 4096), 10_000)
    assert stack._frames.nbytes < 512 << 20
