"""The controls on the page. They know what was set, not what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dyn3r.viewer.appearance import COLOURINGS, Look, Parts

_LABELS = ("background", "moving", "cameras", "path", "picture", "axes")


@dataclass(frozen=True)
class Actions:
    """What the page calls. Clients are viser's `ClientHandle`."""

    play_or_pause: Callable[[], None]
    seek: Callable[[int], None]
    step: Callable[[int], None]
    set_speed: Callable[[float], None]
    set_loop: Callable[[bool], None]
    choose_scene: Callable[[str], None]
    look_changed: Callable[[], None]
    parts_changed: Callable[[], None]
    resize_points: Callable[[float], None]
    show_strip: Callable[[bool], None]
    first_view: Callable[[Any], None]
    look_through: Callable[[Any], None]
    follow: Callable[[bool], None]
    save: Callable[[str, Any], None]


class Controls:
    """All controls of a page, in folders; read `look` and `parts`."""

    def __init__(
        self, gui: Any, actions: Actions, num_frames: int, choices: Sequence[str],
        look: Look, parts: Parts,
    ) -> None:  # fmt: skip
        self._gui, self._do = gui, actions
        self.menu = gui.add_dropdown("scene", list(choices), initial_value=choices[0])
        self.menu.visible = len(choices) > 1
        _on_person(self.menu, lambda: actions.choose_scene(self.menu.value))
        with gui.add_folder("time"):
            self._time(num_frames)
        with gui.add_folder("view"):
            self._view()
        with gui.add_folder("points"):
            self._points()
        with gui.add_folder("show"):
            self._show(num_frames)
        with gui.add_folder("save", expand_by_default=False):
            self._save()
        self.show_look(look)
        self.show_parts(parts)

    @property
    def look(self) -> Look:
        """What the controls say about points."""
        return Look(
            color=self.color.value,
            drop_static=self.drop_static.value / 100,
            drop_moving=self.drop_moving.value / 100,
            step_static=int(self.step_static.value),
            step_moving=int(self.step_moving.value),
            mask_growth=int(self.mask_growth.value),
            hide_edges=bool(self.edges.value),
        )

    @property
    def parts(self) -> Parts:
        """What the controls say about parts."""
        return Parts(
            **{name: bool(box.value) for name, box in self.boxes.items()},
            every=int(self.stride.value) if self.together.value else 0,
            until_now=bool(self.until_now.value),
            trail=int(self.trail.value),
        )

    def show_look(self, look: Look) -> None:
        """Bring the controls to this look, as far as they reach."""
        self.color.value = look.color
        for control, value in (
            (self.drop_static, round(100 * look.drop_static)),
            (self.drop_moving, round(100 * look.drop_moving)),
            (self.step_static, look.step_static),
            (self.step_moving, look.step_moving),
            (self.mask_growth, look.mask_growth),
        ):
            control.value = min(value, control.max)
        self.edges.value = look.hide_edges

    def show_parts(self, parts: Parts) -> None:
        """Bring the controls to these parts, as far as they reach."""
        for name, box in self.boxes.items():
            box.value = getattr(parts, name)
        self.together.value = parts.every > 0
        if parts.every:
            self.stride.value = min(parts.every, self.stride.max)
        self.until_now.value = parts.until_now
        self.trail.value = min(parts.trail, self.trail.max)

    def set_num_frames(self, num_frames: int) -> None:
        """Fit the timeline to another scene."""
        # The slider refuses a maximum below its value, and a value above its maximum.
        self.slider.value = 0
        self.slider.max = max(1, num_frames - 1)

    def show_time(self, frame: int, caption: str, playing: bool) -> None:
        """Bring the timeline to this frame."""
        self.slider.value = frame
        self.caption.value = caption
        self.button.label = "pause" if playing else "play"

    # --- the folders ----------------------------------------------------------------------------

    def _time(self, num_frames: int) -> None:
        gui, do = self._gui, self._do
        last = max(1, num_frames - 1)
        self.slider = gui.add_slider("frame", min=0, max=last, step=1, initial_value=0)
        self.caption = gui.add_text("shown", "", disabled=True)
        self.button = gui.add_button("play")
        steps = gui.add_button_group("step", ("previous", "next"))
        speed = gui.add_slider("speed", min=0.1, max=4.0, step=0.1, initial_value=1.0)
        loop = gui.add_checkbox("loop", True)
        self.together = gui.add_checkbox(
            "all frames", False, hint="moving points of many frames at once"
        )
        self.stride = gui.add_slider(
            "every n-th", min=1, max=max(2, num_frames // 2), step=1,
            initial_value=max(1, num_frames // 8),
        )  # fmt: skip
        self.until_now = gui.add_checkbox(
            "background up to now", False, hint="let the background grow with time"
        )
        _on_person(self.slider, lambda: do.seek(int(self.slider.value)))
        self.button.on_click(lambda _: do.play_or_pause())
        steps.on_click(lambda _: do.step(1 if steps.value == "next" else -1))
        _on_person(speed, lambda: do.set_speed(float(speed.value)))
        _on_person(loop, lambda: do.set_loop(bool(loop.value)))
        for control in (self.together, self.stride, self.until_now):
            _on_person(control, do.parts_changed)

    def _points(self) -> None:
        gui, do = self._gui, self._do
        self.color = gui.add_dropdown("colour by", COLOURINGS, initial_value=COLOURINGS[0])
        self.size = gui.add_slider("point size", min=0.2, max=4.0, step=0.1, initial_value=1.0)
        self.drop_static, self.drop_moving = (
            gui.add_slider(
                f"drop unsure {name} %", min=0, max=95, step=5, initial_value=0,
                hint="leave out this share of the pixels, the least confident ones",
            )
            for name in ("static", "moving")
        )  # fmt: skip
        self.step_static, self.step_moving = (
            gui.add_slider(f"thin {name}", min=1, max=8, step=1, initial_value=1,
                           hint="down-sampling: every n-th point along rows and columns")
            for name in ("static", "moving")
        )  # fmt: skip
        self.mask_growth = gui.add_slider(
            "grow masks px", min=0, max=24, step=1, initial_value=0,
            hint="widen the moving regions",
        )  # fmt: skip
        self.edges = gui.add_checkbox(
            "hide edges", True, hint="leave out points that hang between near and far"
        )
        _on_person(self.size, lambda: do.resize_points(float(self.size.value)))
        for control in (
            self.color, self.drop_static, self.drop_moving, self.step_static, self.step_moving,
            self.mask_growth, self.edges,
        ):  # fmt: skip
            _on_person(control, do.look_changed)

    def _show(self, num_frames: int) -> None:
        gui, do = self._gui, self._do
        self.boxes = {name: gui.add_checkbox(name, True) for name in _LABELS}
        self.trail = gui.add_slider(
            "trails", min=0, max=max(1, num_frames - 1), step=1, initial_value=0,
            hint="frames back; points are followed by optical flow the first time",
        )  # fmt: skip
        self.strip = gui.add_checkbox(
            "picture strip", False, hint="frame, depth and mask in a panel that can be moved"
        )
        for control in (*self.boxes.values(), self.trail):
            _on_person(control, do.parts_changed)
        _on_person(self.strip, lambda: do.show_strip(bool(self.strip.value)))

    def _view(self) -> None:
        gui, do = self._gui, self._do
        gui.add_button("first view").on_click(lambda event: do.first_view(event.client))
        gui.add_button("look through the camera").on_click(
            lambda event: do.look_through(event.client)
        )
        self.follow = gui.add_checkbox(
            "follow the camera", False, hint="see what the camera saw; off brings you back"
        )
        _on_person(self.follow, lambda: do.follow(bool(self.follow.value)))

    def _save(self) -> None:
        gui, do = self._gui, self._do
        for kind, label, hint in (
            ("screenshot", "screenshot", "what you see, as PNG"),
            ("turntable", "turntable video", "a turn around what you look at, as MP4"),
            ("page", "page", "the scene as one HTML file that opens without a server"),
        ):
            button = gui.add_button(label, hint=hint)
            button.on_click(lambda event, kind=kind: do.save(kind, event.client))
        self.saving = gui.add_text("state", "", disabled=True, visible=False)


def _on_person(control: Any, act: Callable[[], None]) -> None:
    """Call `act` when a person moves the control; our own assignments come without a client."""
    control.on_update(lambda event: act() if event.client is not None else None)
