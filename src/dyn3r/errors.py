"""Errors a user can cause.

Every one of them is a `Dyn3rError`, carries one line that says what was wrong and what to do about
it, and is turned by the command line into that line and exit code 1. Violations of our own
invariants are plain `assert`s instead.
"""

from __future__ import annotations


class Dyn3rError(Exception):
    """Base of every error that dyn3r raises on purpose. The message is one line for a person."""


class InputError(Dyn3rError):
    """A video, image, folder, mask, scene file or option that can't be used."""


class CheckpointError(Dyn3rError):
    """A file that is no usable checkpoint: unknown layout, hostile content, wrong shapes."""


class DownloadError(Dyn3rError):
    """A file that can't be downloaded, or that is not the published one."""


class GeometryError(Dyn3rError):
    """Geometry that can't be determined from what was given, or priors that contradict."""


class OutputError(Dyn3rError):
    """A result that can't be written, or that would overwrite an earlier one unasked."""


class MissingExtraError(Dyn3rError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}': pip install 'dyn3r[{extra}]'",
        )
