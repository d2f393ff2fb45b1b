"""A long clip window by window: all stages for one window, then the next; at the end, one scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from dyn3r.alignment.clip_windows import WindowPlan, knows_all_cameras
from dyn3r.alignment.similarity_graph import close_loops
from dyn3r.flow import FlowEstimator
from dyn3r.scene.draft import Draft
from dyn3r.scene.held_frames import priors_of
from dyn3r.scene.scene import Scene
from dyn3r.scene.upright import find_up
from dyn3r.scene.verdict import PartVerdict
from dyn3r.scene.windows.assembly import Assembly
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
    flow_estimator: Callable[[], FlowEstimator]
    """For loops."""
    identity: tuple[object, ...]
    """What else decides the result, for `fingerprint_of`."""

    @property
    def finds_focal(self) -> bool:
        """Whether the windows share a focal length that nothing states."""
        return self.shared_focal and self.priors.K is None and self.clip.focal_px is None


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
        assembly = Assembly(work.clip, work.plan, one_world=knows_all_cameras(work.priors))
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
        """Reconstruct a window and keep it; it keeps the focal length of the clip, if it is known.

        `facts`: what an earlier estimate of this window said of the focal length.
        """
        work = self.work
        self.context.observe("window", (number, len(work.plan)))
        first, end = work.plan.spans[number]
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
        scene = self.one(slice(first, end), priors, context)
        stated = last[0].focal_sigma if last else None
        if stated is None and not scene.metadata["plan"]["bundle_adjustment"]:
            stated = 0.0  # the alignment states no error: the first window decides
        found = {"focal_sigma": stated, "focal_K": scene.K[0].tolist()}
        return self.store.save(number, scene, facts or found)


def _finished(
    work: LongClip, assembly: Assembly, focal: FocalEstimate | None, context: RunContext
) -> Scene:
    """The joined scene, with loops closed and its up direction."""
    windows: dict[str, object] = {
        "spans": [list(span) for span in work.plan.spans],
        "joins": [join.to_json() for join in assembly.joins],
    }
    scene = assembly.scene(None if focal is None else (focal.windows, focal.verdict))
    context.observe("joined windows", scene)
    known = work.priors.T_world_camera is not None or work.priors.depth is not None
    if not known:  # else loops would move what is kept
        with context.stage("joining windows"):
            scene, windows["loops"] = with_loops_closed(scene, work, context)
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
    from dyn3r.scene.windows.loops import find_loops

    found = find_loops(scene, work.flow_estimator(), work.plan.longest, context.progress)
    about: dict[str, object] = {"candidates": found.tested, "found": 0}
    if found.loops is None:
        return scene, about
    T, factor = close_loops(scene.T_world_camera, found.loops, scene.median_depth)
    about |= {
        "found": len(found.loops.pairs), "pairs": found.loops.pairs.tolist(),
        "scale_changes": [round(float(factor.min()), 4), round(float(factor.max()), 4)],
    }  # fmt: skip
    depth = scene.depth * factor[:, None, None].astype(np.float32)
    return replace(scene, T_world_camera=T, depth=depth), about


def _of_clip(clip: Clip) -> tuple[object, ...]:
    """What makes a clip what it is; its path may change."""
    return (clip.images, clip.names, clip.times_s, clip.overlay, clip.cuts, clip.focal_px,
            clip.focal_sigma)  # fmt: skip
