"""Timeline at the bottom of the page: thumbnails, slider, playback buttons."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dyn3r.viewer.browser_camera import PANEL_PX
from dyn3r.viewer.controls import Actions, on_user_change
from dyn3r.viewer.page_script import NARROW_PX, NEXT, PAUSE, PLAY, PREVIOUS
from dyn3r.viewer.scene_nodes import SceneNodes

_THUMBNAILS = 16
_THUMBNAIL_HEIGHT_PX = 40
_MARGIN_PX = 12


class Timeline:
    """Floating panel with the timeline of the leading scene."""

    def __init__(self, gui: Any, actions: Actions, nodes: SceneNodes) -> None:
        """Add the panel to `gui`, viser's `GuiApi`."""
        self._panel = gui.add_panel()
        self._width = 0
        last = max(1, nodes.layout.num_frames - 1)
        with self._panel.add_tab("time"):
            self._strip = gui.add_html(strip_html(nodes.layout.thumbnails))
            self.slider = gui.add_slider("frame", min=0, max=last, step=1, initial_value=0)
            self.buttons = gui.add_button_group("", (PREVIOUS, PLAY, NEXT))
        on_user_change(self.slider, lambda: actions.seek(int(self.slider.value)))
        press = {
            PREVIOUS: lambda: actions.step(-1),
            NEXT: lambda: actions.step(1),
            PLAY: actions.play_or_pause,
            PAUSE: actions.play_or_pause,
        }
        self.buttons.on_click(lambda _: press[self.buttons.value]())
        self._panel.float(x=_MARGIN_PX, y=-_MARGIN_PX)

    def fit(self, size_px: tuple[int, int]) -> None:
        """Fit the panel into a window, beside the controls."""
        width = size_px[0] - PANEL_PX - _MARGIN_PX
        if size_px[0] > NARROW_PX and width != self._width:
            self._width = width
            self._panel.set_width(max(220, width))
            self._panel.float(x=_MARGIN_PX, y=-_MARGIN_PX)

    def set_scene(self, nodes: SceneNodes, num_frames: int) -> None:
        """Show another scene, or a timeline of another length."""
        self._strip.content = strip_html(nodes.layout.thumbnails)
        # The slider rejects a maximum below its value, and a value above its maximum.
        self.slider.value = 0
        self.slider.max = max(1, num_frames - 1)

    def show_time(self, frame: int, time: str, caption: str, *, playing: bool) -> None:
        """Show this frame, its time, and its name."""
        self.slider.value = frame
        self.buttons.label, self.buttons.hint = time, caption
        self.buttons.options = (PREVIOUS, PAUSE if playing else PLAY, NEXT)

    def send_again(self, frame: int) -> None:
        """Send the frame once more: a value of the browser may have crossed an earlier one."""
        self.slider.value = self.slider.min if frame else self.slider.max
        self.slider.value = frame

    def remove(self) -> None:
        """Remove the panel."""
        self._panel.remove()


def strip_html(pictures: Sequence[np.ndarray]) -> str:
    """Thumbnails at equal distances over the images of a clip, as HTML."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(_THUMBNAILS, len(pictures))).round())
    images = "".join(
        f'<img src="{data_url(pictures[int(t)])}" '
        'style="flex:1 1 0;min-width:0;height:100%;object-fit:cover">'
        for t in chosen
    )
    style = f"display:flex;height:{_THUMBNAIL_HEIGHT_PX}px;margin:2px 12px 4px"
    return f'<div style="{style}">{images}</div>'


def data_url(image: np.ndarray, height: int = 2 * _THUMBNAIL_HEIGHT_PX) -> str:
    """A picture, scaled to a height in pixels, as the address of a JPEG image."""
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    with io.BytesIO() as file:
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
        small.save(file, format="JPEG", quality=70)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
