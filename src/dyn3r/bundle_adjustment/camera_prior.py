"""Prior of the cameras: those of the geometry source, with the standard errors that it states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dyn3r.geometry.rotations import rotmat_to_rotvec


@dataclass(frozen=True)
class CameraPrior:
    """Normal errors of rotation and centre, the same for all cameras and independent.

    The system's steps are a translation v in the camera and a rotation w: R -> exp(w) R,
    t -> exp(w) t + v, so that the centre becomes c - R^T v. In these the second derivatives of the
    cost are diagonal.
    """

    R: Float[Tensor, "n 3 3"]
    """World to camera."""
    t: Float[Tensor, "n 3"]
    """World to camera."""
    rotation_sigma: float
    """Radians."""
    centre_sigma: float
    """In the unit of length."""

    def errors(self, R: Float[Tensor, "n 3 3"], t: Float[Tensor, "n 3"]) -> Float[Tensor, "n 6"]:
        """Errors of cameras in standard errors: of the centre along their axes, of the rotation."""
        centre = -(R.transpose(1, 2) @ t[..., None])
        stated = -(self.R.transpose(1, 2) @ self.t[..., None])
        along_axes = -(R @ (centre - stated))[..., 0]
        turned = rotmat_to_rotvec(R @ self.R.transpose(1, 2))
        return torch.cat([along_axes / self.centre_sigma, turned / self.rotation_sigma], dim=-1)

    def cost(self, R: Float[Tensor, "n 3 3"], t: Float[Tensor, "n 3"]) -> float:
        """Squared errors."""
        return float(self.errors(R, t).square().sum())

    @property
    def precision(self) -> Float[Tensor, " 6"]:
        """Half the second derivatives by v and w."""
        sigmas = (self.centre_sigma, self.rotation_sigma)
        return torch.cat([self.R.new_full((3,), sigma**-2) for sigma in sigmas])

    def gradient(self, R: Float[Tensor, "n 3 3"], t: Float[Tensor, "n 3"]) -> Float[Tensor, "n 6"]:
        """Half the gradient by v and w."""
        return self.errors(R, t) * self.precision.sqrt()
