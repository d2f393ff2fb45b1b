"""A long clip window by window: all stages for one window, then the next; at the end, one scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from dyn3r.alignment.clip_windows import WindowPlan
from dyn3r.alignment.similarity_graph import close_loops, drift_at
from dyn3r.flow import FlowEstimator
from dyn3r.scene.draft import Draft
from dyn3r.scene.held_frames import priors_of
from dyn3r.scene.scene import Scene
from dyn3r.scene.upright import find_up
from dyn3r.scene.verdict import PartVerdict
from dyn3r.scene.windows.assembly import Assembly, shared_frames, without_first
from dyn3r.scene.windows.join import SharedFrames, join
from dyn3r.scene.windows.key_frames import with_key_frames_adjusted
from dyn3r.scene.windows.loops import find_loops
from dyn3r.scene.windows.store import WindowStore, fingerprint_of, window_store
from dyn3r.types import Clip, Geometry, Priors, RunContext

KNOWN_FOCAL = 0.1
"""Standard error of the log focal length at which the clip's is taken to be known. Source: between
the limits of a good and of a poor one in the verdict."""
FOCAL_WINDOWS = 2
"""Windows that are asked for the focal length, at most. Source: all of them may be computed
twice."""
SMALLEST_SIGMA = 1e-3
"""Standard error of one that is stated as exact."""
WORTH_CLOSING = 4.0
"""Drift in standard errors of a loop below which loops are left as they are. Source: on a clip
without drift, closing them moved the cameras away from the truth (docs/experiments.md)."""
SAME_FOCAL = 0.02
"""Difference of log focal lengths that a window may keep. Source: hardly visible."""


OneWindow = Callable[[slice, Priors, RunContext], Scene]
"""The reconstruction of some frames of the clip, given the priors of these frames."""


@dataclass(frozen=True)
class LongClip:
    """What is reconstructed, and how."""

    clip: Clip
    plan: WindowPlan
    priors: Priors
    """Of all frames."""
    shared_focal: bool
    """Whether all windows have the same focal length."""
    states_focal: bool
    """Whether the clip states its focal length, and the windows use that."""
    flow_estimator: Callable[[], FlowEstimator]
    """For loops."""
    identity: tuple[object, ...]
    """What else decides the result, for `fingerprint_of`."""

    @property
    def finds_focal(self) -> bool:
        """Whether the windows share a focal length that nothing states."""
        return self.shared_focal and self.priors.K is None and not self.states_focal


def reconstruct_windows(work: LongClip, one: OneWindow, context: RunContext) -> Scene:
    """The scene of a long clip. Finished windows are kept in `context.windows`, if it is given.

    Raises InputError where that folder is of another run, and what `one` raises.
    """
    fingerprint = fingerprint_of(
        work.plan.spans, work.priors, work.shared_focal, *_of_clip(work.clip), *work.identity
    )
    with window_store(context.windows, fingerprint) as store:
        windows = _Windows(work, one, store, context)
        if work.finds_focal:
            windows.find_focal()
        assembly = Assembly(work.clip, work.plan, one_world=work.priors.fixes_all_cameras)
        for number in range(len(work.plan)):
            assembly.add(windows.finished(number))
    return _finished(work, assembly, windows.focal, context)


@dataclass(frozen=True)
class FocalEstimate:
    """Focal length that some windows found."""

    K: Float[np.ndarray, "3 3"]
    sigma: float
    """Standard error of its logarithm."""
    windows: int
    """How many."""
    verdict: PartVerdict | None
    """How far that of the most certain one can be trusted."""


def joined_focal(
    found: list[tuple[Float[np.ndarray, "3 3"], float, PartVerdict | None]],
) -> FocalEstimate:
    """Mean of the logarithms of several focal lengths, weighted by their certainty.

    Each with its intrinsics, the standard error of its logarithm, and how far it can be trusted.
    """
    sigmas = np.maximum([sigma for _, sigma, _ in found], SMALLEST_SIGMA)
    weights = sigmas**-2 / np.sum(sigmas**-2)
    K = found[0][0].copy()
    focal = np.exp(weights @ np.log([each[0, 0] for each, *_ in found]))
    K[[0, 1], [0, 1]] *= focal / K[0, 0]
    sigma = float(np.sum(sigmas**-2) ** -0.5)
    return FocalEstimate(K, sigma, len(found), found[int(np.argmin(sigmas))][2])


class _Windows:
    """The windows of a clip: read where they are finished, else computed."""

    def __init__(
        self, work: LongClip, one: OneWindow, store: WindowStore, context: RunContext
    ) -> None:
        self.work, self.one, self.store, self.context = work, one, store, context
        self.focal: FocalEstimate | None = None
        self.asked = 0
        self._before: SharedFrames | None = None

    def find_focal(self) -> None:
        """Reconstruct windows until they know the focal length, but at most a few."""
        found = []
        for number in range(min(FOCAL_WINDOWS, len(self.work.plan))):
            scene = self.store.load(number) or self._compute(number)
            self.asked = number + 1
            facts, verdict = scene.metadata["window"], scene.verdict
            if facts["focal_sigma"] is None:
                continue
            part = None if verdict is None else verdict.parts.get("focal length")
            found.append((np.array(facts["focal_K"]), float(facts["focal_sigma"]), part))
            joined = joined_focal(found)
            if joined.sigma <= KNOWN_FOCAL:
                break
        self.focal = joined_focal(found) if found else None

    def finished(self, number: int) -> Scene:
        """A window with the focal length of the clip, which agrees with the one before if it can.

        One that does not has often taken a large moving object for the background. It is computed
        again with more frames before it, which are then left out, and the better one is kept.
        """
        scene, spans = self._with_focal(number), self.work.plan.spans
        before = self._before
        if before is not None and not self.work.priors.fixes_all_cameras:
            shared = slice(0, len(before.depth))
            found = join(before, shared_frames(scene, shared))
            facts = scene.metadata["window"]
            if found.disagrees and not facts.get("again"):
                again, _ = self._reconstruct(number, more=self._context(number))
                better = join(before, shared_frames(again, shared))
                kept = again if better.disagreement < found.disagreement else scene
                scene = self.store.save(number, kept, {**facts, "again": True})
        count = spans[number][1] - spans[number + 1][0] if number + 1 < len(spans) else 1
        self._before = shared_frames(scene, slice(len(scene) - count, None))
        return scene

    def _context(self, number: int) -> int:
        """Frames before a window that it may see besides: as many as two overlaps."""
        spans = self.work.plan.spans
        return min(spans[number][0], 2 * (spans[number - 1][1] - spans[number][0]))

    def _with_focal(self, number: int) -> Scene:
        """A window with the focal length of the clip."""
        scene = self.store.load(number)
        focal = self.focal
        if scene is None:
            return self._compute(number)
        if focal is None or number >= self.asked:
            return scene
        change = np.log(scene.K[0, 0, 0] / focal.K[0, 0])
        if abs(change) > SAME_FOCAL:
            return self._compute(number, facts=scene.metadata["window"])
        return scene

    def _compute(self, number: int, facts: dict[str, object] | None = None) -> Scene:
        """Reconstruct a window and keep it.

        `facts`: what an earlier estimate of this window said of the focal length.
        """
        scene, found = self._reconstruct(number)
        return self.store.save(number, scene, facts or found)

    def _reconstruct(self, number: int, *, more: int = 0) -> tuple[Scene, dict[str, object]]:
        """A window, and what it says of the focal length; it keeps the clip's, if that is known.

        `more`: frames before the window that are seen, and left out.
        """
        work = self.work
        self.context.observe("window", (number, len(work.plan)))
        first, end = work.plan.spans[number]
        first -= more
        priors = priors_of(work.priors, np.arange(first, end))
        if self.focal is not None:
            K = np.tile(self.focal.K, (end - first, 1, 1))
            priors = replace(priors, K=K, fix_K=True, focal_sigma=0.0)
        last: list[Geometry] = []

        def observe(name: str, value: object) -> None:
            if isinstance(value, Draft):
                last[:] = [value.geometry]
            self.context.observe(name, value)

        context = replace(self.context, observe=observe, windows=None)
        scene = without_first(self.one(slice(first, end), priors, context), more)
        stated = last[0].focal_sigma if last else None
        if stated is None and not scene.metadata["plan"]["bundle_adjustment"]:
            stated = 0.0  # the alignment states no error: the first window decides
        return scene, {"focal_sigma": stated, "focal_K": scene.K[0].tolist()}


def _finished(
    work: LongClip, assembly: Assembly, focal: FocalEstimate | None, context: RunContext
) -> Scene:
    """The joined scene, with loops closed and its up direction."""
    windows: dict[str, object] = {
        "spans": [list(span) for span in work.plan.spans],
        "joins": [found.to_json() for found in assembly.joins],
    }
    scene = assembly.scene(None if focal is None else (focal.windows, focal.verdict))
    context.observe("joined windows", scene)
    known = work.priors.T_world_camera is not None or work.priors.depth is not None
    if not known:  # else loops would move what is kept
        with context.stage("joining windows"):
            scene, windows["loops"] = with_loops_closed(scene, work, context)
            if scene.metadata["plan"]["bundle_adjustment"]:
                scene, windows["key_frames"] = with_key_frames_adjusted(
                    scene, work.clip, work.flow_estimator(), work.plan.longest,
                    0.0 if focal is None else focal.sigma, context,
                )  # fmt: skip
    up = find_up(scene)
    seconds = {stage: round(value, 2) for stage, value in context.seconds.items()}
    return replace(
        scene, up_world=up.up_world, ground_height=up.ground_height,
        metadata={**scene.metadata, "seconds": seconds, "windows": windows},
    )  # fmt: skip


def with_loops_closed(
    scene: Scene, work: LongClip, context: RunContext
) -> tuple[Scene, dict[str, object]]:
    """The scene with drift removed by places that are seen again, and what was found of them."""
    found = find_loops(scene, work.flow_estimator(), work.plan.longest, context.progress)
    about: dict[str, object] = {"candidates": found.tested, "found": 0}
    if found.loops is None:
        return scene, about
    about["found"] = len(found.loops.pairs)
    drift = drift_at(scene.T_world_camera, found.loops, scene.median_depth)
    about["drift"] = round(drift, 2)
    if drift < WORTH_CLOSING:
        return scene, about
    T, factor = close_loops(scene.T_world_camera, found.loops, scene.median_depth)
    about |= {
        "pairs": found.loops.pairs.tolist(),
        "scale_changes": [round(float(factor.min()), 4), round(float(factor.max()), 4)],
    }  # fmt: skip
    depth = scene.depth * factor[:, None, None].astype(np.float32)
    return replace(scene, T_world_camera=T, depth=depth), about


def _of_clip(clip: Clip) -> tuple[object, ...]:
    """What makes a clip what it is; its path may change."""
    return (clip.images, clip.names, clip.times_s, clip.overlay, clip.cuts, clip.focal_px,
            clip.focal_sigma)  # fmt: skip
