"""Optical flow after the images are aligned by a homography: for fast rotation and wide baselines.

Dense inverse search loses points that move further than its coarsest patches see. Most of a large
displacement is due to rotation of the camera, which moves all points by one homography. It is
estimated from sparse matches (SIFT, Lowe 2004; RootSIFT, Arandjelovic and Zisserman 2012; MAGSAC++,
Barath et al. 2020). The second image is warped by it, and dense inverse search finds the rest. At
every pixel the flow with or without alignment is taken, whichever has the smaller round-trip error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from dyn3r.flow.dis import DisFlow
from dyn3r.flow.estimator import MeasuredFlow, flow_of_pair
from dyn3r.geometry.keypoints import Keypoints, find_keypoints
from dyn3r.geometry.warping import round_trip_error_px
from dyn3r.io.workers import kept_results, ordered_map

MAX_KEYPOINTS = 1000
"""Keypoints of a frame. Source: run time; 2000 give the same flow."""
CONTRAST = 0.01
"""Lowest contrast of a keypoint in OpenCV's SIFT, a quarter of its default: small frames have few
keypoints, and wrong ones do not match."""
MAX_RATIO = 0.85
"""Largest ratio of the distances to the nearest and the second descriptor (Lowe 2004 has 0.8)."""
INLIER_PX = 3.0
"""Largest distance of a match from a homography. Source: OpenCV's default; flow on 8 clips is the
same with 2, 4 and 8."""
MIN_MATCHES = 8
"""Fewer matches, twice the four that determine a homography, give none."""
WINDOW_PX = 9
"""Side of the square over which the round-trip error is averaged. Source: that of a patch of dense
inverse search; 5 and 15 give the same flow."""
MAX_ERROR_PX = 5.0
"""Larger round-trip errors count as this: all are wrong."""
FRAMES_KEPT = 128
"""Frames whose keypoints are kept in memory, at most 0.5 MB each."""


@dataclass(frozen=True)
class AlignedFlow:
    """Dense inverse search with and without alignment by a homography; needs no weights."""

    search: DisFlow = field(default_factory=DisFlow)
    """Measures what the homography leaves."""

    @property
    def name(self) -> str:
        """`aligned-dis`."""
        return "aligned-dis"

    @property
    def states_errors(self) -> bool:
        """Return False: only flow is measured."""
        return False

    def flow(
        self,
        source: np.ndarray,
        target: np.ndarray,  # shapes: `check_images`
    ) -> Float[np.ndarray, "h w 2"]:
        """See `FlowEstimator.flow`. Raises InputError for images of different sizes."""
        return flow_of_pair(self, source, target)

    def measure(
        self,
        images: np.ndarray,  # (n, h, w, 3)
        pairs: np.ndarray,  # (k, 2)
    ) -> Iterator[tuple[MeasuredFlow, MeasuredFlow]]:
        """See `PairFlowEstimator.measure`."""
        keypoints = kept_results(lambda frame: root_sift(images[frame]), FRAMES_KEPT)

        def both(pair: list[int]) -> tuple[MeasuredFlow, MeasuredFlow]:
            i, j = pair
            there, back = (
                self.search.flow(images[i], images[j]),
                self.search.flow(images[j], images[i]),
            )
            H = homography(keypoints(i), keypoints(j))
            if H is not None:
                aligned = (
                    self._aligned(images[i], images[j], H),
                    self._aligned(images[j], images[i], np.linalg.inv(H)),
                )
                there, back = better((there, back), aligned), better((back, there), aligned[::-1])
            return MeasuredFlow(there), MeasuredFlow(back)

        yield from ordered_map(both, pairs.tolist())

    def _aligned(
        self, source: np.ndarray, target: np.ndarray, H: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "h w 2"]:
        """Flow to the target warped by H (pixels of the source to those of the target), then H."""
        import cv2

        h, w = source.shape[:2]
        sampling = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        warped = cv2.warpPerspective(
            target, H, (w, h), flags=sampling, borderMode=cv2.BORDER_REPLICATE
        )
        grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1).astype(np.float32)
        reached = (grid + self.search.flow(source, warped)).reshape(-1, 1, 2)
        return np.asarray(
            cv2.perspectiveTransform(reached, H).reshape(h, w, 2) - grid, dtype=np.float32
        )


def root_sift(image: np.ndarray) -> Keypoints:
    """Keypoints of an RGB image (h, w, 3) of uint8, with RootSIFT descriptors of unit length."""
    import cv2

    found = find_keypoints(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), MAX_KEYPOINTS, CONTRAST)
    total = np.maximum(found.descriptors.sum(1, keepdims=True), 1e-9)
    return Keypoints(found.uv, np.sqrt(found.descriptors / total))


def match_keypoints(
    source: Keypoints, target: Keypoints
) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "m 2"]]:
    """Pixels of mutually nearest keypoints that pass the ratio test, in both frames."""
    if min(len(source.uv), len(target.uv)) < 2:
        return source.uv[:0], target.uv[:0]
    squared = 2 - 2 * source.descriptors @ target.descriptors.T
    nearest = squared.argmin(1)
    mutual = squared.argmin(0)[nearest] == np.arange(len(nearest))
    first, second = np.sqrt(np.maximum(np.partition(squared, 1, axis=1)[:, :2], 0)).T
    kept = mutual & (first < MAX_RATIO * second)
    return source.uv[kept], target.uv[nearest[kept]]


def homography(source: Keypoints, target: Keypoints) -> Float[np.ndarray, "3 3"] | None:
    """Homography that most matches agree with, from source to target pixels; None without one."""
    import cv2

    here, there = match_keypoints(source, target)
    if len(here) < MIN_MATCHES:
        return None
    H, inlier = cv2.findHomography(here, there, cv2.USAC_MAGSAC, INLIER_PX)
    if H is None or inlier.sum() < MIN_MATCHES or abs(np.linalg.det(H)) < 1e-6:
        return None
    return np.asarray(H)


def better(
    plain: tuple[np.ndarray, np.ndarray], aligned: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, "h w 2"]:
    """Return `plain` there (h, w, 2), or `aligned` there where it returns nearer to the start."""
    import cv2

    h, w = plain[0].shape[:2]
    grid = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1)
    errors = [
        cv2.boxFilter(
            np.minimum(round_trip_error_px(there, back, grid), MAX_ERROR_PX).astype(np.float32),
            -1, (WINDOW_PX, WINDOW_PX),
        )
        for there, back in (plain, aligned)
    ]  # fmt: skip
    return np.where((errors[1] < errors[0])[..., None], aligned[0], plain[0])
