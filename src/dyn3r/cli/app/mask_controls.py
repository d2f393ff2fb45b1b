"""Controls of the app that edit masks: a click on an object, a brush, propagation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool

from dyn3r.cli.app.mask_editing import paint, propagate, toggle
from dyn3r.cli.app.work import Work
from dyn3r.scene import Scene
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.picking import clicked_hit
from dyn3r.viewer.session import Session

_EDITING = Appearance(color="motion", frame_alone=True)
_TOOLS = ("object", "add with a brush", "remove with a brush")


class EditedPage(Protocol):
    """The page whose scene is edited."""

    work: Work
    """The work that it shows."""

    @property
    def session(self) -> Session | None:
        """The session of the scene."""

    def attempt(self, act: Callable[[], None]) -> None:
        """Do something; a failure becomes one line on the page."""

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a line."""


class MaskControls:
    """Folder with the controls; clicks on the scene change the masks while *edit* is on."""

    def __init__(self, client: Any, page: EditedPage) -> None:
        """Add the folder to the page of `client`, viser's `ClientHandle`; it is not visible yet."""
        self._client, self._page = client, page
        self._lock = threading.RLock()
        self._is_editing = False
        gui = client.gui
        self.folder = gui.add_folder("moving objects", visible=False)
        with self.folder:
            self._edit = gui.add_checkbox(
                "edit", initial_value=False,
                hint="clicks change the masks; the current frame is shown alone meanwhile",
            )  # fmt: skip
            self._tool = gui.add_dropdown(
                "tool", _TOOLS, initial_value=_TOOLS[0],
                hint="object: a click on a still one makes it moving, on a moving one still; "
                "brush: a click adds or removes a disc in the current frame",
            )  # fmt: skip
            self._whole = gui.add_checkbox(
                "in all frames", initial_value=True, hint="follow the object with optical flow"
            )
            self._brush = gui.add_slider(
                "brush px", min=1, max=40, step=1, initial_value=6, visible=False,
                hint="radius in pixels of the frame",
            )  # fmt: skip
            self._undo = gui.add_button("undo")
            self._propagate = gui.add_button(
                "propagate", hint="carry what was changed in this frame to the others"
            )
            self._again = gui.add_button("run again with these masks")
        self._edit.on_update(lambda _: self._set_editing(enabled=bool(self._edit.value)))
        self._tool.on_update(lambda _: self._choose_tool())
        self._undo.on_click(lambda _: self._page.work.undo_masks())
        self._propagate.on_click(lambda _: self._page.attempt(self._propagate_masks))
        self._again.on_click(lambda _: self._page.work.run_again())

    def scene_changed(self) -> None:
        """Go on with editing in another scene."""
        if self._is_editing:
            self._set_editing(enabled=True)

    def _set_editing(self, *, enabled: bool) -> None:
        """Take clicks as changes of the masks; the colours show them meanwhile."""
        with self._lock:
            session = self._page.session
            if session is None:
                return
            if enabled != self._is_editing or enabled:
                scene_api = self._client.scene
                if self._is_editing:
                    scene_api.remove_click_callback(self._clicked)
                if enabled:
                    scene_api.on_click()(self._clicked)
            if enabled != self._is_editing:
                session.set_appearance(_EDITING if enabled else Appearance())
            self._is_editing = enabled

    def _clicked(self, event: Any) -> None:
        with self._lock:
            session, scene = self._page.session, self._page.work.scene
        if session is None or scene is None:
            return
        hit = clicked_hit(event, session.playback)
        if hit is None:
            return

        def change() -> None:
            if self._tool.value == _TOOLS[0]:
                self._page.say("following the object ..." if self._whole.value else "")
                masks = toggle(scene, hit.frame, hit.pixel, whole_clip=bool(self._whole.value))
            else:
                masks = paint(
                    scene.dynamic, hit.frame, hit.pixel, float(self._brush.value),
                    add=self._tool.value == _TOOLS[1],
                )  # fmt: skip
            self._change_masks(scene, masks)

        self._page.attempt(change)

    def _change_masks(self, scene: Scene, masks: Bool[np.ndarray, "n h w"]) -> None:
        changed = int((masks != scene.dynamic).any(axis=(1, 2)).sum())
        self._page.work.set_masks(masks)
        self._page.say(
            f"changed in {changed} frames; {100 * masks.mean():.1f} % of the pixels move now"
        )

    def _choose_tool(self) -> None:
        self._whole.visible = self._tool.value == _TOOLS[0]
        self._brush.visible = not self._whole.visible

    def _propagate_masks(self) -> None:
        with self._lock:
            session, scene, before = (
                self._page.session,
                self._page.work.scene,
                self._page.work.found_masks,
            )
        if session is None or scene is None or before is None:
            return
        self._page.say("following the changes ...")
        self._change_masks(scene, propagate(scene, session.clock.frame, before))
