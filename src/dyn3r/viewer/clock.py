"""Playback clock: the frame to show as time passes. Plain arithmetic without threads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Playback position that advances with time. Not thread-safe."""

    num_frames: int
    """Number of frames of the clip."""
    fps: float
    """Frames per second at speed 1."""
    speed: float = 1.0
    """Factor on `fps`."""
    loop: bool = True
    """Start again after the last frame."""
    playing: bool = False
    """True while the position advances."""
    position: float = 0.0
    """Frame index plus the elapsed share of that frame, in [0, num_frames)."""

    @property
    def frame(self) -> int:
        """Index of the current frame."""
        return min(int(self.position), self.num_frames - 1)

    @property
    def frame_seconds(self) -> float:
        """Duration of a frame in seconds at the current speed."""
        return 1.0 / (self.fps * self.speed)

    @property
    def seconds_to_next(self) -> float:
        """Seconds until the next frame is due at the current speed."""
        return (int(self.position) + 1 - self.position) * self.frame_seconds

    def seek(self, frame: int) -> None:
        """Go to this frame, clamped to the valid range."""
        self.position = float(min(max(frame, 0), self.num_frames - 1))

    def step(self, by: int) -> None:
        """Pause and move by `by` frames, modulo the length of the clip."""
        self.playing = False
        self.position = float((self.frame + by) % self.num_frames)

    def play(self) -> None:
        """Continue. Without `loop`, playback at the last frame starts again at the first."""
        if not self.loop and self.frame == self.num_frames - 1:
            self.position = 0.0
        self.playing = True

    def advance(self, seconds: float) -> None:
        """Advance by elapsed time. Late frames are skipped."""
        if not self.playing:
            return
        self.position += seconds * self.fps * self.speed
        if self.position >= self.num_frames:
            if self.loop:
                self.position %= self.num_frames
            else:
                self.position, self.playing = float(self.num_frames - 1), False
