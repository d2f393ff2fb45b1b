"""Controls of the page. They hold the settings; `Actions` apply them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dyn3r.viewer.appearance import COLOR_MODES, STYLES, Appearance, Visibility
from dyn3r.viewer.legend import legend_html
from dyn3r.viewer.playback import Playback
from dyn3r.viewer.scene_nodes import SceneNodes
from dyn3r.viewer.verdict import verdict_html

_ELEMENTS = ("background", "moving", "cameras", "path", "image", "axes")
"""Fields of `Visibility` with a checkbox each."""
_HELP = """<div style="font-size:12px;margin:6px 12px;opacity:0.7">drag: turn, right drag: move,
wheel: zoom, space: play, left and right: step</div>"""


@dataclass(frozen=True)
class Actions:
    """Functions that the controls call. Clients are viser's `ClientHandle`."""

    play_or_pause: Callable[[], None]
    seek: Callable[[int], None]
    step: Callable[[int], None]
    set_speed: Callable[[float], None]
    set_loop: Callable[[bool], None]
    choose_scene: Callable[[str], None]
    appearance_changed: Callable[[], None]
    visibility_changed: Callable[[], None]
    resize_points: Callable[[float], None]
    resize_frustums: Callable[[float, float], None]
    """Called with a factor on the size and the width of the lines in pixels."""
    show_filmstrip: Callable[[bool], None]
    reset_view: Callable[[], None]
    look_through_camera: Callable[[], None]
    follow_camera: Callable[[bool], None]
    measure: Callable[[bool], None]
    save: Callable[[str, Any], None]
    """Called with `screenshot`, `turntable` or `page`, and the client that asked for the file."""


class Controls:
    """All controls of a page, in folders. Their values are `appearance` and `visibility`."""

    def __init__(
        self, gui: Any, actions: Actions, num_frames: int, playback: Playback,
        appearance: Appearance, visibility: Visibility,
    ) -> None:  # fmt: skip
        """Add the controls to `gui`, viser's `GuiApi`."""
        self._gui, self._actions = gui, actions
        leading, choices = playback.leading, playback.choices
        self._scenes = [nodes.scene for nodes in playback.scene_nodes]
        self.menu = gui.add_dropdown("scene", list(choices), initial_value=choices[0])
        self.menu.visible = len(choices) > 1
        on_user_change(self.menu, lambda: actions.choose_scene(self.menu.value))
        self._verdict = gui.add_html(verdict_html(leading.scene))
        self.legend = gui.add_html(legend_html(leading, appearance))
        self.state = gui.add_markdown("", visible=False)
        self._folders = [
            self._folder("view", self._add_view),
            self._folder("points", self._add_points),
            self._folder("show", lambda: self._add_visibility(num_frames)),
            self._folder("time", lambda: self._add_time(num_frames), expanded=False),
            self._folder("save", self._add_save, expanded=False),
        ]
        self._help = gui.add_html(_HELP)
        self.set_appearance(appearance)
        self.set_visibility(visibility)

    def _folder(self, name: str, fill: Callable[[], None], *, expanded: bool = True) -> Any:
        folder = self._gui.add_folder(name, expand_by_default=expanded)
        with folder:
            fill()
        return folder

    def remove(self) -> None:
        """Remove the controls."""
        for part in (
            self.menu, self._verdict, self.legend, self.state, *self._folders, self._help,
        ):  # fmt: skip
            part.remove()

    def show_legend(self, appearance: Appearance, nodes: SceneNodes) -> None:
        """Show what the colours mean."""
        self.legend.content = legend_html(nodes, appearance)

    def show_state(self, text: str) -> None:
        """Show what is computed or was written; empty: nothing."""
        self.state.visible, self.state.content = bool(text), text

    def show_progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a longer job."""
        self.show_state(f"{stage}: {done}/{total}")

    def show_pick(self, text: str) -> None:
        """Show a measurement."""
        self.picked.visible, self.picked.content = bool(text), text

    @property
    def appearance(self) -> Appearance:
        """Appearance that the controls are set to."""
        return Appearance(
            style=self.style.value,
            color=self.color.value,
            drop_static=self.drop_static.value / 100,
            drop_moving=self.drop_moving.value / 100,
            step_static=int(self.step_static.value),
            step_moving=int(self.step_moving.value),
            mask_sensitivity=self.sensitivity.value / 100,
            mask_dilation=int(self.mask_dilation.value),
            hide_edges=bool(self.edges.value),
            frame_alone=bool(self.alone.value),
        )

    @property
    def visibility(self) -> Visibility:
        """Visibility that the controls are set to."""
        return Visibility(
            **{name: bool(box.value) for name, box in self.boxes.items()},
            frame_stride=int(self.frame_stride.value) if self.all_frames.value else 0,
            up_to_current=bool(self.up_to_current.value),
            trail_length=int(self.trail_length.value),
        )

    def set_appearance(self, appearance: Appearance) -> None:
        """Set the controls to this appearance; values are clamped to the sliders' ranges."""
        self.style.value, self.color.value = appearance.style, appearance.color
        self._enable()
        for control, value in (
            (self.drop_static, round(100 * appearance.drop_static)),
            (self.drop_moving, round(100 * appearance.drop_moving)),
            (self.step_static, appearance.step_static),
            (self.step_moving, appearance.step_moving),
            (self.sensitivity, round(100 * appearance.mask_sensitivity)),
            (self.mask_dilation, appearance.mask_dilation),
        ):
            control.value = min(max(value, control.min), control.max)
        self.edges.value = appearance.hide_edges
        self.alone.value = appearance.frame_alone

    def set_visibility(self, visibility: Visibility) -> None:
        """Set the controls to this visibility; values are clamped to the sliders' ranges."""
        for name, box in self.boxes.items():
            box.value = getattr(visibility, name)
        self.all_frames.value = visibility.frame_stride > 0
        if visibility.frame_stride:
            self.frame_stride.value = min(visibility.frame_stride, self.frame_stride.max)
        self.up_to_current.value = visibility.up_to_current
        self.trail_length.value = min(visibility.trail_length, self.trail_length.max)

    def _enable(self) -> None:
        """Disable what has no effect on surfaces."""
        self.size.disabled = self.edges.disabled = self.style.value == "surface"

    # --- the folders ----------------------------------------------------------------------------

    def _add_time(self, num_frames: int) -> None:
        gui, actions = self._gui, self._actions
        speed = gui.add_slider("speed", min=0.1, max=4.0, step=0.1, initial_value=1.0)
        loop = gui.add_checkbox("loop", initial_value=True)
        self.all_frames = gui.add_checkbox(
            "all frames", initial_value=False, hint="dynamic points of many frames at once"
        )
        self.frame_stride = gui.add_slider(
            "every n-th", min=1, max=max(2, num_frames // 2), step=1,
            initial_value=max(1, num_frames // 8),
        )  # fmt: skip
        self.up_to_current = gui.add_checkbox(
            "background so far", initial_value=False,
            hint="only background points from frames up to the current one",
        )  # fmt: skip
        on_user_change(speed, lambda: actions.set_speed(float(speed.value)))
        on_user_change(loop, lambda: actions.set_loop(bool(loop.value)))
        for control in (self.all_frames, self.frame_stride, self.up_to_current):
            on_user_change(control, actions.visibility_changed)

    def _add_view(self) -> None:
        gui, actions = self._gui, self._actions
        gui.add_button("reset view").on_click(lambda _: actions.reset_view())
        gui.add_button("look through the camera").on_click(lambda _: actions.look_through_camera())
        self.follow = gui.add_checkbox(
            "follow the camera", initial_value=False,
            hint="the viewpoint of the current frame's camera; off restores yours",
        )  # fmt: skip
        measure = gui.add_checkbox(
            "measure", initial_value=False,
            hint="click a point: depth and coordinates; a second one: the distance",
        )  # fmt: skip
        self.picked = gui.add_markdown("", visible=False)
        on_user_change(self.follow, lambda: actions.follow_camera(bool(self.follow.value)))
        on_user_change(measure, lambda: actions.measure(bool(measure.value)))

    def _add_points(self) -> None:
        gui, actions = self._gui, self._actions
        self.style = gui.add_dropdown(
            "draw as", STYLES, initial_value=STYLES[0], hint="surfaces are cut at depth edges"
        )
        self.color = gui.add_dropdown("colour by", COLOR_MODES, initial_value=COLOR_MODES[0])
        self.size = gui.add_slider("point size", min=0.2, max=4.0, step=0.1, initial_value=1.0)
        self.drop_static, self.drop_moving = (
            gui.add_slider(
                f"drop {name} %", min=0, max=95, step=5, initial_value=0,
                hint="leave out this share of the pixels, the least confident ones",
            )
            for name in ("static", "moving")
        )  # fmt: skip
        self.step_static, self.step_moving = (
            gui.add_slider(f"thin {name}", min=1, max=8, step=1, initial_value=1,
                           hint="down-sampling: every n-th point along rows and columns")
            for name in ("static", "moving")
        )  # fmt: skip
        self.sensitivity = gui.add_slider(
            "mask sensitivity %", min=5, max=95, step=1, initial_value=50,
            visible=any(scene.dynamic_probability is not None for scene in self._scenes),
            hint="50: masks as found; more: more pixels count as moving",
        )  # fmt: skip
        self.mask_dilation = gui.add_slider(
            "dilate masks px", min=0, max=24, step=1, initial_value=0,
            hint="dilation of the motion masks",
        )  # fmt: skip
        self.edges = gui.add_checkbox(
            "hide edges", initial_value=True, hint="leave out points at depth discontinuities"
        )
        self.alone = gui.add_checkbox(
            "frame alone", initial_value=False, hint="no background points of other frames"
        )
        on_user_change(self.style, self._enable)
        on_user_change(self.size, lambda: actions.resize_points(float(self.size.value)))
        for control in (
            self.style, self.color, self.drop_static, self.drop_moving, self.step_static,
            self.step_moving, self.sensitivity, self.mask_dilation, self.edges, self.alone,
        ):  # fmt: skip
            on_user_change(control, actions.appearance_changed)

    def _add_visibility(self, num_frames: int) -> None:
        gui, actions = self._gui, self._actions
        self.boxes = {name: gui.add_checkbox(name, initial_value=True) for name in _ELEMENTS}
        self.trail_length = gui.add_slider(
            "trails", min=0, max=max(1, num_frames - 1), step=1, initial_value=0,
            hint="length in frames; the first use computes optical flow",
        )  # fmt: skip
        self.filmstrip = gui.add_checkbox(
            "filmstrip", initial_value=False, hint="image, depth and mask in a floating panel"
        )
        size = gui.add_slider("camera size", min=0.2, max=5.0, step=0.1, initial_value=1.0)
        lines = gui.add_slider("line width", min=1, max=6, step=1, initial_value=2)
        for control in (size, lines):
            on_user_change(
                control, lambda: actions.resize_frustums(float(size.value), float(lines.value))
            )
        for control in (*self.boxes.values(), self.trail_length):
            on_user_change(control, actions.visibility_changed)
        on_user_change(self.filmstrip, lambda: actions.show_filmstrip(bool(self.filmstrip.value)))

    def _add_save(self) -> None:
        gui, actions = self._gui, self._actions
        for kind, label, hint in (
            ("screenshot", "screenshot", "the current view as PNG"),
            ("turntable", "turntable video", "an orbit around the point you look at, as MP4"),
            ("page", "page", "the scene as one HTML file that opens without a server"),
        ):
            button = gui.add_button(label, hint=hint)
            button.on_click(lambda event, kind=kind: actions.save(kind, event.client))


def on_user_change(control: Any, act: Callable[[], None]) -> None:
    """Call `act` when a user changes the control. Assignments in code have no client."""
    control.on_update(lambda event: act() if event.client is not None else None)
