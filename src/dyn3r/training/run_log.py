"""Log of a training run: `log.jsonl` in its folder."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def append_log(folder: Path, entry: dict[str, Any]) -> None:
    """Append one line to `log.jsonl`."""
    line = {k: round(v, 6) if isinstance(v, float) else v for k, v in entry.items()}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"time": round(time.time()), **line}) + "\n")
    logger.info("%s", line)
