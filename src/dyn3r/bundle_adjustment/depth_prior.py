"""Prior of log depth: that of the network, with smooth and independent errors.

    log depth = mean + B c + e

The columns of B are cosines over the frame, c is normal, and e is independent. c is marginalised:
the precision of the log depths of a frame is diag(q) - U M U^T, where q are the inverse variances
of e, U = diag(q) B and M = (B^T diag(q) B + C^-1)^-1 with the covariance C of c (Woodbury
identity). Products with it, and with the inverse of its sum with a diagonal, need a few columns
only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMOOTH_SIGMA = (0.3, 0.2, 0.07)
"""Standard errors of the coefficients of cosines with no, half a and a whole wave over the frame.
Source: log depth of the embedded network against truth on 17 development clips."""
INDEPENDENT_SIGMA = 0.12
"""Scale of the error of log depth that is left. Source: the same clips."""
KNOWN_DEPTH_SIGMA = 1e-3
"""Standard error of a log depth that is known. Source: small against the errors of flow."""
DEGREES_OF_FREEDOM = 3.0
"""Of Student's t of that error. Source: the same clips."""


@dataclass(frozen=True)
class DepthPrior:
    """Prior of the log depth of the samples of every frame."""

    mean: Float[Tensor, "n k"]
    """Log depth of the network."""
    variance: Float[Tensor, "n k"]
    """Squared scale of the independent error; nearly 0 where depth is known."""
    basis: Float[Tensor, "n k b"]
    """Smooth errors; 0 where depth is known. b = 0: the errors are independent."""
    basis_variance: Float[Tensor, " b"]
    """Variance of the coefficients of the smooth errors."""
    weight: Float[Tensor, "n k"]
    """Weight of the independent error in iteratively re-weighted least squares; 1: normal."""
    heavy_tails: bool = False
    """Whether the independent error has Student's t distribution."""

    @property
    def known(self) -> Bool[Tensor, "n k"]:
        """Where depth is known."""
        return self.variance < 2 * KNOWN_DEPTH_SIGMA**2

    @cached_property
    def precision(self) -> Float[Tensor, "n k"]:
        """q: weight over variance."""
        return self.weight / self.variance

    @cached_property
    def columns(self) -> Float[Tensor, "n k b"]:
        """U = diag(q) B."""
        return self.precision[..., None] * self.basis

    @cached_property
    def inner_inverse(self) -> Float[Tensor, "n b b"]:
        """M^-1 = B^T diag(q) B + C^-1."""
        return self.basis.transpose(1, 2) @ self.columns + torch.diag(1 / self.basis_variance)

    def coefficients(self, log_depth: Float[Tensor, "n k"]) -> Float[Tensor, "n b"]:
        """Most probable c, given the log depth."""
        right = self.columns.transpose(1, 2) @ (log_depth - self.mean)[..., None]
        return torch.linalg.solve(self.inner_inverse, right)[..., 0]

    def independent_error(self, log_depth: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """e for the most probable c."""
        smooth = (self.basis @ self.coefficients(log_depth)[..., None])[..., 0]
        return log_depth - self.mean - smooth

    def gradient(self, log_depth: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Half the gradient of the quadratic cost."""
        return self.precision * self.independent_error(log_depth)

    def cost(self, log_depth: Float[Tensor, "n k"]) -> float:
        """Quadratic cost at the weights: squared deviation in standard errors."""
        return float(((log_depth - self.mean) * self.gradient(log_depth)).sum())

    def robust_cost(self, log_depth: Float[Tensor, "n k"]) -> float:
        """Twice the negative log density, up to a constant; `cost` without heavy tails."""
        if not self.heavy_tails:
            return self.cost(log_depth)
        squared = self.independent_error(log_depth).square() / self.variance
        nu = DEGREES_OF_FREEDOM
        independent = float(((nu + 1) * torch.log1p(squared / nu)).sum())
        coefficients = self.coefficients(log_depth)
        return independent + float((coefficients.square() / self.basis_variance).sum())

    def reweighted(self, log_depth: Float[Tensor, "n k"]) -> DepthPrior:
        """The prior with the weights of Student's t at this log depth; unchanged without it.

        Source: Lange, Little and Taylor 1989, equation 3.
        """
        if not self.heavy_tails:
            return self
        squared, nu = self.independent_error(log_depth).square() / self.variance, DEGREES_OF_FREEDOM
        weight = torch.where(self.known, 1.0, (nu + 1) / (nu + squared))
        return replace(self, weight=weight)

    def scaled(self, factor: float) -> DepthPrior:
        """The prior with all standard errors times a factor, except those of known depth."""
        return replace(
            self,
            variance=torch.where(self.known, self.variance, self.variance * factor**2),
            basis_variance=self.basis_variance * factor**2,
        )

    @property
    def typical_sigma(self) -> float:
        """Standard error of log depth from all errors: root mean square over unknown samples."""
        smooth = (self.basis.square() @ self.basis_variance)[~self.known]
        total = (smooth + self.variance[~self.known]).mean() if len(smooth) else torch.tensor(1.0)
        return float(total.sqrt())

    def with_mean(self, mean: Float[Tensor, "n k"]) -> DepthPrior:
        """The prior with another mean."""
        return replace(self, mean=mean)


def independent_prior(mean: Float[Tensor, "n k"], sigma: Float[Tensor, "n k"]) -> DepthPrior:
    """Prior with independent normal errors alone."""
    n, k = mean.shape
    return DepthPrior(
        mean, sigma**2, mean.new_zeros(n, k, 0), mean.new_zeros(0), torch.ones_like(mean)
    )


def network_prior(
    independent: DepthPrior, uv: Float[Tensor, "k 2"], size_hw: tuple[int, int]
) -> DepthPrior:
    """Prior of a network's log depth at pixels `uv`: mean and known depth of `independent`."""
    basis, variance = smooth_basis(uv, size_hw)
    known = independent.known
    return replace(
        independent,
        variance=torch.where(known, independent.variance, INDEPENDENT_SIGMA**2),
        basis=basis * ~known[..., None],
        basis_variance=variance,
        heavy_tails=True,
    )


def smooth_basis(
    uv: Float[Tensor, "k 2"], size_hw: tuple[int, int]
) -> tuple[Float[Tensor, "k b"], Float[Tensor, " b"]]:
    """Cosines of up to a whole wave over the frame at pixels, and the variance of each."""
    h, w = size_hw
    u, v = torch.pi * (uv[:, 0] + 0.5) / w, torch.pi * (uv[:, 1] + 0.5) / h
    halves = [(p, q) for p in range(3) for q in range(3) if p + q < len(SMOOTH_SIGMA)]
    basis = torch.stack([torch.cos(p * u) * torch.cos(q * v) for p, q in halves], -1)
    sigma = torch.tensor([SMOOTH_SIGMA[p + q] for p, q in halves], dtype=torch.float64)
    return basis, (sigma**2).to(uv.device)
