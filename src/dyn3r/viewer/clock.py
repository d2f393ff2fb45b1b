"""Which frame is shown while time passes. Plain arithmetic, no threads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Which frame is shown while time passes. Not thread-safe."""

    num_frames: int
    fps: float
    speed: float = 1.0
    loop: bool = True
    playing: bool = False
    position: float = 0.0
    """Frame and share of the way to the next one, in [0, num_frames)."""

    @property
    def frame(self) -> int:
        """The frame to show."""
        return min(int(self.position), self.num_frames - 1)

    @property
    def frame_seconds(self) -> float:
        """How long a frame is shown at the present speed."""
        return 1.0 / (self.fps * self.speed)

    @property
    def seconds_to_next(self) -> float:
        """How long until the next frame is due at the present speed."""
        return (int(self.position) + 1 - self.position) * self.frame_seconds

    def seek(self, frame: int) -> None:
        """Show this frame (cut to those there are)."""
        self.position = float(min(max(frame, 0), self.num_frames - 1))

    def step(self, by: int) -> None:
        """Stop, and show the frame `by` further on, around the ends."""
        self.playing = False
        self.position = float((self.frame + by) % self.num_frames)

    def play(self) -> None:
        """Go on, from the start if the end was reached without looping."""
        if not self.loop and self.frame == self.num_frames - 1:
            self.position = 0.0
        self.playing = True

    def advance(self, seconds: float) -> None:
        """Let time pass. Frames are skipped rather than shown late."""
        if not self.playing:
            return
        self.position += seconds * self.fps * self.speed
        if self.position >= self.num_frames:
            if self.loop:
                self.position %= self.num_frames
            else:
                self.position, self.playing = float(self.num_frames - 1), False
