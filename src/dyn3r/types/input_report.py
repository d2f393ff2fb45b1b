"""The input report: what was found in the files of a clip, and what was done about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from dyn3r.errors import InputError

Topic = Literal[
    "frames", "borders", "overlays", "cuts", "fields", "rotation", "pixels", "times", "cameras",
    "lens", "masks",
]  # fmt: skip
"""frames: read, dropped, without texture; borders: bars around the picture; overlays: logos and
displays that stay put; fields: interlacing; pixels: aspect and depth of bits; times: time stamps;
lens: distortion and focal length."""

MAX_NOTES = 1000
"""Most notes of a report that is read from a file."""
MAX_CHARACTERS = 2000
"""Most characters of a note."""


@dataclass(frozen=True)
class InputNote:
    """One statement about the input. Raises InputError for an unknown topic or an empty text."""

    __no_type_check__: ClassVar[bool] = True  # it refuses wrong types itself

    topic: Topic
    text: str
    """One sentence for a person, without a full stop."""
    warning: bool = False
    """True: the user should check it, as it can spoil the result."""

    def __post_init__(self) -> None:
        if self.topic not in get_args(Topic):
            raise InputError(f"there is no topic {self.topic!r:.40} of an input report")
        if not isinstance(self.text, str) or not 0 < len(self.text) <= MAX_CHARACTERS:
            raise InputError(f"a note needs a text of at most {MAX_CHARACTERS} characters")
        if not isinstance(self.warning, bool):
            raise InputError("a note of an input report is a warning or not")

    def __str__(self) -> str:
        """The note as one line."""
        return f"{self.topic}: {self.text}"


@dataclass(frozen=True)
class InputReport:
    """What was found in the input, in the order in which it was found."""

    notes: tuple[InputNote, ...] = ()

    def adding(self, *notes: InputNote) -> InputReport:
        """The report with further notes; one that it has already is not repeated."""
        return InputReport(tuple(dict.fromkeys((*self.notes, *notes))))

    def lines(self) -> list[str]:
        """One line for every note, `input: TOPIC: TEXT`; warnings begin with `warning:`."""
        return [f"{'warning' if note.warning else 'input'}: {note}" for note in self.notes]

    def to_json(self) -> list[dict[str, Any]]:
        """The notes as values for JSON."""
        return [asdict(note) for note in self.notes]

    @classmethod
    def from_json(cls, value: Any) -> InputReport:
        """A report from what `to_json` gave. Raises InputError for anything else."""
        if not isinstance(value, list) or len(value) > MAX_NOTES:
            raise InputError(f"an input report must be a list of at most {MAX_NOTES} notes")
        return cls(tuple(_notes(value)))


def _notes(items: list[Any]) -> Iterable[InputNote]:
    for item in items:
        if not isinstance(item, dict) or not {"topic", "text"} <= item.keys():
            raise InputError("a note of an input report must have a topic and a text")
        yield InputNote(item["topic"], item["text"], item.get("warning", False))
