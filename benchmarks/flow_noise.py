"""The noise of flow by dense inverse search, fitted to true flow: constants of `dyn3r.flow.noise`.

    python -m benchmarks.flow_noise FOLDER [FOLDER ...]    # from the repository root

FOLDER holds truth folders (docs/metrics.md) with depth and cameras. Flow of static, visible pixels
of a grid, of pairs 1, 2, 4 and 8 frames apart, is compared with the true one. The errors have a
bivariate Student's t distribution (3 degrees of freedom) with the covariance of
`flow_covariance_px2`; its three constants are those of maximum likelihood, every clip with the same
weight. Prints them, with the mean log likelihood of a sample, for all clips, and for every second
one and the others: how steady they are.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.flow import folder_cases
from scipy.optimize import minimize
from torch import Tensor

from dyn3r.bundle_adjustment.measurements import regular_grid
from dyn3r.flow import flow_estimator, measure_flow
from dyn3r.flow import noise as now
from dyn3r.geometry.warping import round_trip_error_px

SAMPLES = 350
DEGREES_OF_FREEDOM = 3.0


@dataclass(frozen=True)
class Samples:
    """Errors of flow in one clip, and what its covariance depends on; float64."""

    error: Tensor
    """(k, 2) measured minus true flow."""
    round_trip: Tensor
    """(k,) pixels."""
    structure: Tensor
    """(k, 3) structure tensor (uu, uv, vv) of the image, for a brightness error of 1."""

    def log_likelihood(self, log_constants: Tensor) -> Tensor:
        """Mean over the samples."""
        least, share, brightness = log_constants.exp()
        uu, cross, vv = (self.structure / brightness**2).unbind(-1)
        uu, vv = uu + now.LEAST_TEXTURE, vv + now.LEAST_TEXTURE
        determinant = uu * vv - cross * cross
        variance = least**2 + (share * self.round_trip) ** 2
        a, b, c = vv / determinant + variance, -cross / determinant, uu / determinant + variance
        x, y = self.error.unbind(-1)
        determinant = a * c - b * b
        squared = (c * x * x - 2 * b * x * y + a * y * y) / determinant
        nu = DEGREES_OF_FREEDOM
        return -(determinant.log() / 2 + (nu + 2) / 2 * torch.log1p(squared / nu)).mean()


def samples_of(folder: Path, size: int) -> dict[str, Samples]:
    """Samples of every clip of a folder."""
    found = {}
    for name, (images, directed, true, known) in folder_cases(folder, size):
        flow = measure_flow(images, directed, flow_estimator("aligned-dis"))
        rows = {(i, j): row for row, (i, j) in enumerate(flow.edges.tolist())}
        u, v = regular_grid(known.shape[1:], SAMPLES).T
        tensors = [torch.stack(now.structure_tensor(torch.from_numpy(x)), -1)[v, u] for x in images]
        parts = []
        for (i, j), exact, where in zip(directed.tolist(), true, known):
            row = rows[i, j]
            assert flow.visible is not None
            used = where[v, u] & flow.visible[row][v, u]
            here = np.asarray(flow.flow[row], np.float32)[v, u]
            trip = round_trip_error_px(here, flow.flow[rows[j, i]], np.stack([u, v], -1))
            parts.append([x[used] for x in (here - exact[v, u], trip, tensors[i].numpy())])
        joined = [torch.from_numpy(np.concatenate(x).astype(np.float64)) for x in zip(*parts)]
        found[name] = Samples(*joined)
    return found


def fitted(clips: list[Samples]) -> tuple[np.ndarray, float]:
    """Constants of maximum likelihood, and the likelihood."""

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.tensor(values, requires_grad=True)
        total = -torch.stack([clip.log_likelihood(at) for clip in clips]).mean()
        total.backward()
        assert at.grad is not None
        return total.item(), at.grad.numpy()

    start = np.log([now.LEAST_SIGMA_PX, now.ROUND_TRIP_SHARE, now.BRIGHTNESS_SIGMA])
    best = minimize(cost, start, jac=True, method="L-BFGS-B")
    return np.exp(best.x), -float(best.fun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips: dict[str, Samples] = {}
    for folder in args.folders:
        clips |= samples_of(folder, args.size)
    every = list(clips.values())
    constants = torch.tensor([now.LEAST_SIGMA_PX, now.ROUND_TRIP_SHARE, now.BRIGHTNESS_SIGMA])
    library = torch.stack([clip.log_likelihood(constants.double().log()) for clip in every])
    print(f"library: {constants.tolist()}, log likelihood {library.mean():.3f}")
    groups = {"all": every, "every second": every[::2], "the others": every[1::2]}
    for name, group in groups.items():
        if group:
            (least, share, brightness), likelihood = fitted(group)
            print(
                f"{name} ({len(group)} clips): {least:.3f} px, {share:.2f} of the round trip, "
                f"brightness {brightness:.2f}; log likelihood {likelihood:.3f}"
            )
    for name, clip in clips.items():
        print(f"  {name}: {clip.log_likelihood(constants.double().log()):.2f}")


if __name__ == "__main__":
    main()
