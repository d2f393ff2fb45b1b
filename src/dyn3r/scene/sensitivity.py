"""Masks of a scene at another sensitivity, from the probability that the scene keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from dyn3r.errors import InputError
from dyn3r.io.numbers import checked_number
from dyn3r.scene.scene import Scene

AS_FOUND = 0.5
"""Sensitivity at which the masks are those of the scene."""


def masks_at(scene: Scene, sensitivity: float) -> Bool[np.ndarray, "n h w"]:
    """Masks at a sensitivity of 0..1: a pixel is dynamic if its probability is above 1 minus it.

    At 0.5, and in scenes without a probability, these are the scene's own masks. Raises InputError
    for a sensitivity that is not in 0..1.
    """
    checked_number(sensitivity, "the sensitivity of the masks", low=0, high=1)
    if scene.dynamic_probability is None or sensitivity == AS_FOUND:
        return scene.dynamic
    return scene.dynamic_probability > 255 * (1 - sensitivity)


def at_sensitivity(scene: Scene, sensitivity: float) -> Scene:
    """The scene with the masks of `masks_at`; the scene itself if they are its own."""
    masks = masks_at(scene, sensitivity)
    return scene if masks is scene.dynamic else replace(scene, dynamic=masks)


def with_edited_masks(
    scene: Scene, before: Bool[np.ndarray, "n h w"], after: Bool[np.ndarray, "n h w"]
) -> Scene:
    """The scene after a person changed its masks from `before` to `after`.

    Only pixels that differ are changed. They are certain: no sensitivity changes them back. Raises
    InputError for masks of another size.
    """
    if not before.shape == after.shape == scene.dynamic.shape:
        raise InputError(f"masks of this scene have the shape {scene.dynamic.shape}")
    edited = before != after
    dynamic = np.where(edited, after, scene.dynamic)
    probability = scene.dynamic_probability
    if probability is not None:
        certain = np.where(after, np.uint8(255), np.uint8(0))
        probability = np.where(edited, certain, probability)
    return replace(scene, dynamic=dynamic, dynamic_probability=probability)
