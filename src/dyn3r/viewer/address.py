"""Frame and viewpoint in the address of the page: `?t=12&view=x,y,z,x,y,z`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dyn3r.viewer.page_script import ADDRESS_KEY, set_query

_TIMEOUT_S = 5.0
View = tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]


@dataclass(frozen=True)
class Address:
    """What the address says; None where it says nothing."""

    frame: int | None = None
    """Index of the frame."""
    view: View | None = None
    """Position and look-at point of the browser's camera, in the common world."""

    @property
    def text(self) -> str:
        """The part of the address after `?`."""
        parts = []
        if self.frame is not None:
            parts.append(f"t={self.frame}")
        if self.view is not None:
            numbers = np.concatenate(self.view)
            parts.append("view=" + ",".join(f"{x:.5g}" for x in numbers))
        return "&".join(parts)


def parse_address(text: str) -> Address:
    """Address from the part after `?`. What cannot be read is left out."""
    fields = dict(part.partition("=")[::2] for part in text.lstrip("?").split("&"))
    frame, view = fields.get("t", ""), fields.get("view", "")
    try:
        numbers = np.array([float(x) for x in view.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    usable = len(numbers) == 6 and bool(np.isfinite(numbers).all())
    return Address(
        int(frame) if frame.isascii() and frame.isdigit() and len(frame) < 10 else None,
        (numbers[:3], numbers[3:]) if usable else None,
    )


def read_address(client: Any) -> Address:
    """Address of a browser's page. `client` is viser's `ClientHandle`."""
    try:
        return parse_address(client.local_storage.get_item(ADDRESS_KEY, timeout=_TIMEOUT_S) or "")
    except (RuntimeError, TimeoutError):  # no local storage, a slow or closed browser
        return Address()


def write_address(client: Any, address: Address) -> None:
    """Show frame and viewpoint in the address, without an entry in the browser's history."""
    set_query(client, address.text)
