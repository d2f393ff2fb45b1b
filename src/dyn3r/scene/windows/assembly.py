"""One scene from the scenes of its windows, added one after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from dyn3r.alignment.clip_windows import WindowPlan
from dyn3r.scene.scene import PER_FRAME, Scene
from dyn3r.scene.verdict import PartVerdict, Verdict
from dyn3r.scene.windows.join import Join, SharedFrames, blended, join, moved
from dyn3r.types import Clip


class Assembly:
    """The scene of a clip so far. Only one window is needed at a time.

    The world is that of the first window. A frame belongs to the window in which it is nearest to
    the middle; the cameras of shared frames pass from one window's to the other's.
    """

    def __init__(self, clip: Clip, plan: WindowPlan, *, one_world: bool) -> None:
        """`one_world`: known cameras put all windows into the same world already."""
        n = len(clip)
        self.clip, self.plan, self.one_world = clip, plan, one_world
        self.T, self.K = np.tile(np.eye(4), (n, 1, 1)), np.zeros((n, 3, 3))
        self.maps: dict[str, np.ndarray | None] = {}
        self.joins: list[Join] = []
        self.metadata: list[dict[str, Any]] = []
        self.verdicts: list[Verdict | None] = []
        self._tail: SharedFrames | None = None

    def add(self, scene: Scene) -> None:
        """Add the next window."""
        number = len(self.metadata)
        (first, end), (start, stop) = self.plan.spans[number], self.plan.owned[number]
        T, scale = scene.T_world_camera, 1.0
        if self._tail is not None and not self.one_world:
            count = len(self._tail.depth)
            found = join(self._tail, shared_frames(scene, slice(0, count)))
            self.joins.append(found)
            scale, T = float(found.similarity.scale), moved(T, found.similarity)
            share = (np.arange(count) + 1) / (count + 1)
            self.T[first : first + count] = blended(self._tail.T_world_camera, T[:count], share)
            self.T[first + count : end] = T[count:]
        else:
            self.T[first:end] = T
        rows = slice(start - first, stop - first)
        self.K[start:stop] = scene.K[rows]
        for name in PER_FRAME:
            self._put(name, slice(start, stop), getattr(scene, name), rows, scale)
        self.metadata.append(scene.metadata)
        self.verdicts.append(scene.verdict)
        if number + 1 < len(self.plan):
            shared = end - self.plan.spans[number + 1][0]
            tail = shared_frames(scene, slice(len(scene) - shared, None))
            depth = tail.depth * np.float32(scale)
            self._tail = replace(tail, T_world_camera=T[-shared:].copy(), depth=depth)

    def _put(
        self, name: str, into: slice, values: np.ndarray | None, rows: slice, scale: float
    ) -> None:
        """Put the owned rows of a map into that of the clip; a map that one window lacks is None.

        Depth is multiplied by the scale.
        """
        if name not in self.maps:
            shape = None if values is None else (len(self.clip), *values.shape[1:])
            self.maps[name] = None if shape is None else np.zeros(shape, values.dtype)  # type: ignore[union-attr]
        whole = self.maps[name]
        if whole is None or values is None or whole.shape[1:] != values.shape[1:]:
            self.maps[name] = None
            return
        whole[into] = values[rows] * np.float32(scale) if name == "depth" else values[rows]

    def scene(self, focal: tuple[int, PartVerdict | None] | None = None) -> Scene:
        """The scene, without up.

        `focal`: how many windows the focal length of all is from, and the judgement of it.
        """
        clip = self.clip
        maps: dict[str, Any] = self.maps
        return Scene(
            images=clip.images,
            K=self.K,
            T_world_camera=self.T,
            mapping=clip.mapping,
            names=clip.names,
            times_s=clip.times_s,
            fps=clip.fps,
            metadata=self._metadata(focal),
            **maps,
        )

    def _metadata(self, focal: tuple[int, PartVerdict | None] | None) -> dict[str, Any]:
        """Metadata of the first window, with numbers, notes and verdicts of all of them."""
        out = {key: value for key, value in self.metadata[0].items() if key != "window"}
        out["pairs"] = sum(int(about.get("pairs", 0)) for about in self.metadata)
        out["objective"] = _medians([about.get("objective", {}) for about in self.metadata])
        out["input"] = self.clip.report.to_json()
        out["notes"] = self._notes()
        out.pop("verdict", None)
        verdict = worst_verdict(self.verdicts, [self._span(a, b) for a, b in self.plan.owned])
        if verdict is not None and focal is not None and focal[1] is not None:
            end = self.plan.spans[focal[0] - 1][1]
            part = replace(focal[1], reason=f"{focal[1].reason}, from {self._span(0, end)}")
            verdict = Verdict({**verdict.parts, "focal length": part})
        if verdict is not None:
            out["verdict"] = verdict.to_json()
        return out

    def _span(self, first: int, end: int) -> str:
        """Frames in words, by their names: textureless frames may have been left out before."""
        return f"{self.clip.names[first]} to {self.clip.names[end - 1]}"

    def _notes(self) -> list[str]:
        """Notes of the windows, each once, with the frames that it is about."""
        where: dict[str, list[tuple[int, int]]] = {}
        for span, about in zip(self.plan.spans, self.metadata):
            for note in about.get("notes", []):
                where.setdefault(str(note), []).append(span)
        notes = []
        for note, spans in where.items():
            everywhere = len(spans) == len(self.plan)
            named = ", ".join(self._span(a, b) for a, b in spans)
            notes.append(note if everywhere else f"{named}: {note}")
        notes += [
            f"{self._span(self.plan.spans[k + 1][0], self.plan.spans[k][1])}: the two windows "
            f"that share them disagree about the cameras ({found.rotation_deg:.1f} degrees, "
            f"{found.centre_depths:.0%} of the depth)"
            for k, found in enumerate(self.joins)
            if found.disagrees
        ]
        guesses = [k + 1 for k, found in enumerate(self.joins) if found.is_guess]
        notes += [
            f"from {self.clip.names[self.plan.spans[k][0]]} on: no static pixel joins the frames "
            "to those before, so their scale is a guess"
            for k in guesses
        ]
        return notes


def worst_verdict(verdicts: list[Verdict | None], frames: list[str]) -> Verdict | None:
    """The worst judgement of each part, with the frames it is of, in words."""
    named = [
        Verdict({k: replace(p, reason=f"{p.reason}; {where}") for k, p in verdict.parts.items()})
        for verdict, where in zip(verdicts, frames)
        if verdict is not None
    ]
    return reduce(Verdict.worse, named) if named else None


def shared_frames(scene: Scene, rows: slice) -> SharedFrames:
    """Some frames of a window, for a join."""
    usable = (scene.confidence[rows] > 0) & ~scene.dynamic[rows]
    quality = scene.frame_quality
    found = np.ones(len(usable), bool) if quality is None else quality[rows] > 0
    return SharedFrames(scene.T_world_camera[rows].copy(), scene.depth[rows], usable, found)


def without_first(scene: Scene, count: int) -> Scene:
    """The scene without its first frames."""
    names = ("images", "K", "T_world_camera", "times_s", "names", *PER_FRAME)
    fields: dict[str, Any] = {name: getattr(scene, name) for name in names}
    for name, value in fields.items():
        fields[name] = None if value is None else value[count:]
    rest = scene.mapping.part(range(count, len(scene)))
    return replace(scene, mapping=rest, **fields)


def _medians(terms: list[dict[str, Any]]) -> dict[str, float]:
    names = dict.fromkeys(name for values in terms for name in values)
    return {n: float(np.median([float(v[n]) for v in terms if n in v])) for n in names}
