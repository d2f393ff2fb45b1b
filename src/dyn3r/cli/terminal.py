"""Lines for people: what comes from files and their names is printed, never interpreted."""

from __future__ import annotations

import logging
import sys

from dyn3r.io.text import printable


def say(*lines: object, error: bool = False) -> None:
    """Print lines on stdout or stderr; control characters in them (file names) are escaped."""
    for line in lines:
        print(printable(str(line)), file=sys.stderr if error else sys.stdout, flush=True)


class PrintableFormatter(logging.Formatter):
    """Formatter of log messages; control characters in them are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the message of a record."""
        return printable(super().formatMessage(record))
