"""Controls of the app that edit masks: a click on an object, a brush, propagation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool

from dyn3r.cli.app.mask_editing import ObjectTracker, paint, propagate, toggle
from dyn3r.cli.app.work import Work
from dyn3r.io.text import counted
from dyn3r.scene import Scene
from dyn3r.scene.sensitivity import masks_at
from dyn3r.viewer.appearance import Appearance
from dyn3r.viewer.picking import Hit, clicked_hit
from dyn3r.viewer.session import Session
from dyn3r.viewer.strokes import Strokes

_OBJECT, _ADD, _REMOVE = "object", "add with a brush", "remove with a brush"
_SEGMENTS, _SAM2 = "colour, depth, flow", "SAM 2"


class EditedPage(Protocol):
    """The page whose scene is edited."""

    work: Work
    """The work that it shows."""

    @property
    def session(self) -> Session | None:
        """The session of the scene."""

    @property
    def shown_scene(self) -> Scene | None:
        """The scene with the masks that are shown."""

    def attempt(self, act: Callable[[], None]) -> None:
        """Do something; a failure becomes one line on the page."""

    def say(self, text: str, *, is_error: bool = False) -> None:
        """Show a line."""


class MaskControls:
    """Folder with the controls; clicks and strokes change the masks while *edit* is on."""

    def __init__(self, client: Any, page: EditedPage, tracker: ObjectTracker | None) -> None:
        """Add the folder to the page of `client`, viser's `ClientHandle`; it is not visible yet.

        `tracker` is SAM 2, if it is installed.
        """
        self._client, self._page, self._tracker = client, page, tracker
        self._lock = threading.RLock()
        self._edited: Session | None = None
        self._strokes: Strokes | None = None
        self._before = Appearance()
        self.folder = client.gui.add_folder("moving objects", visible=False)
        with self.folder:
            self._add_controls(client.gui)
        self._edit.on_update(lambda _: self._set_editing(enabled=bool(self._edit.value)))
        self.tool.on_update(lambda _: self._choose_tool())
        self._undo.on_click(lambda _: page.work.undo_masks())
        self._propagate.on_click(lambda _: page.attempt(self._propagate_masks))
        self._again.on_click(lambda _: page.attempt(self._run_again))

    def _add_controls(self, gui: Any) -> None:
        self._edit = gui.add_checkbox(
            "edit", initial_value=False,
            hint="clicks change the masks; the current frame is shown alone meanwhile",
        )  # fmt: skip
        self.tool = gui.add_dropdown(
            "tool", (_OBJECT, _ADD, _REMOVE), initial_value=_OBJECT,
            hint="object: a click on a still one makes it moving, on a moving one still; "
            "brush: click, or press and drag, to paint in the current frame",
        )  # fmt: skip
        self.method = gui.add_dropdown(
            "found by", (_SEGMENTS, _SAM2), initial_value=_SEGMENTS if self._tracker is None
            else _SAM2, visible=self._tracker is not None,
        )  # fmt: skip
        self._whole = gui.add_checkbox(
            "in all frames", initial_value=True, hint="follow the object through the clip"
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

    def scene_changed(self) -> None:
        """Go on with editing in another scene, which has a session of its own."""
        if self._edit.value:
            self._set_editing(enabled=True)

    def _set_editing(self, *, enabled: bool) -> None:
        """Take clicks and strokes as changes of the masks; the colours show them meanwhile."""
        with self._lock:
            session = self._page.session
            if session is None:
                return
            was_editing = self._edited is not None
            if was_editing:
                self._client.scene.remove_click_callback(self._clicked)
            if enabled:
                self._client.scene.on_click()(self._clicked)
            if enabled and not was_editing:
                self._before = session.appearance
                session.set_appearance(replace(self._before, color="motion", frame_alone=True))
            elif was_editing and not enabled:
                now = session.appearance
                back = replace(now, color=self._before.color, frame_alone=self._before.frame_alone)
                session.set_appearance(back)
            self._edited = session if enabled else None
            self._take_strokes()

    def _take_strokes(self) -> None:
        """Take drags as strokes while a brush is chosen."""
        if self._strokes is not None:
            self._strokes.remove()
            self._strokes = None
        if self._edited is not None and self.tool.value != _OBJECT:
            self._strokes = Strokes(self._client, self._edited, self._paint)

    def _clicked(self, event: Any) -> None:
        session, scene = self._page.session, self._page.shown_scene
        if session is None or scene is None:
            return
        hit = clicked_hit(event, session.playback)
        if hit is None:
            return
        if self.tool.value != _OBJECT:
            self._paint([hit])
            return

        def change() -> None:
            self._page.say("following the object ..." if self._whole.value else "")
            whole = bool(self._whole.value)
            masks = toggle(
                scene, hit.frame, hit.pixel, whole_clip=whole, tracker=self._chosen_tracker
            )
            self._change_masks(scene, masks)

        self._page.attempt(change)

    def _paint(self, hits: list[Hit]) -> None:
        """Paint along points of the current frame."""
        scene = self._page.shown_scene
        if scene is None:
            return

        def change() -> None:
            masks = paint(
                scene.dynamic, hits[0].frame, [hit.pixel for hit in hits],
                float(self._brush.value), add=self.tool.value == _ADD,
            )  # fmt: skip
            self._change_masks(scene, masks)

        self._page.attempt(change)

    def _change_masks(self, scene: Scene, masks: Bool[np.ndarray, "n h w"]) -> None:
        changed = int((masks != scene.dynamic).any(axis=(1, 2)).sum())
        self._page.work.set_masks(scene.dynamic, masks)
        self._page.say(
            f"changed in {counted(changed, 'frame')}; "
            f"{100 * masks.mean():.1f} % of the pixels move now"
        )

    @property
    def _chosen_tracker(self) -> ObjectTracker | None:
        return self._tracker if self.method.value == _SAM2 else None

    def _choose_tool(self) -> None:
        with self._lock:
            is_object = self.tool.value == _OBJECT
            self._whole.visible, self._brush.visible = is_object, not is_object
            self._take_strokes()

    def _propagate_masks(self) -> None:
        session, scene, found = self._page.session, self._page.shown_scene, self._page.work.found
        if session is None or scene is None or found is None:
            return
        self._page.say("following the changes ...")
        before = masks_at(found, session.appearance.mask_sensitivity)
        masks = propagate(scene, session.clock.frame, before, self._chosen_tracker)
        self._change_masks(scene, masks)

    def _run_again(self) -> None:
        scene = self._page.shown_scene
        if scene is not None:
            self._page.work.run_again(scene.dynamic)
