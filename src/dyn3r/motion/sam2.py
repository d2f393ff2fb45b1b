"""SAM 2 as a mask refiner (Ravi et al. 2024), through transformers (extra `sam2`).

Easi3R's protocol (SPEC 8): the masks of odd frames prompt the video predictor, which segments the
even frames, and the reverse. The result is SAM 2's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dyn3r.errors import CheckpointError, InputError, MissingExtraError
from dyn3r.motion.mask_refiner import check_masks
from dyn3r.types import Progress, no_progress

DEFAULT_WEIGHTS = "facebook/sam2.1-hiera-large"
"""Published weights. Source: Easi3R."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in training
_Prompt = Callable[[Any, int], int]
"""Adds a prompt to a session of transformers for an instance; returns the frame that it is of."""


@dataclass(frozen=True)
class Sam2Refiner:
    """Masks by SAM 2's video predictor. The network is loaded with the first clip."""

    weights: str = DEFAULT_WEIGHTS
    """A name on the hub (downloaded once by transformers), or a folder with `config.json` and
    `model.safetensors`."""
    device: str = "cpu"
    """PyTorch device; bfloat16 on a GPU, float32 else."""
    max_prompts: int = 8
    """Prompted frames, the nearest in time, that a frame attends to. Larger: slower, more
    memory."""

    def __post_init__(self) -> None:
        """Raise InputError for values out of range."""
        if self.max_prompts < 2:
            raise InputError(f"SAM 2 needs at least 2 prompted frames, not {self.max_prompts}")

    @property
    def name(self) -> str:
        """Name of this refiner in options: `sam2`."""
        return "sam2"

    def refine(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        masks: Bool[np.ndarray, "n h w"],
        *,
        progress: Progress = no_progress,
    ) -> Bool[np.ndarray, "n h w"]:
        """Refined masks, see `MaskRefiner.refine`.

        Empty masks are not used as prompts, as a missed object is no sign of absence. Frames
        without a prompt of the other parity keep their masks (a clip of one frame). Raises
        MissingExtraError without transformers, CheckpointError if the weights cannot be loaded.
        """
        check_masks(images, masks)
        out = masks.copy()
        frames = np.arange(len(masks))
        filled = masks.any(axis=(1, 2))
        done = 0
        for parity in (1, 0):
            prompts = frames[filled & (frames % 2 == parity)]
            others = frames[frames % 2 != parity]
            if not len(prompts) or not len(others):
                continue
            for t, mask in self._track(
                images, [self._mask_prompt(t, masks[t]) for t in prompts.tolist()]
            ):
                if t % 2 != parity:
                    out[t] = mask
                    done += 1
                    progress("refining masks", min(done, len(masks)), len(masks))
        progress("refining masks", len(masks), len(masks))
        return out

    def object_at(
        self, images: UInt8[np.ndarray, "n h w 3"], t: int, row: int, column: int
    ) -> Bool[np.ndarray, "n h w"]:
        """Masks of the object at a pixel of frame t, in all frames. Raises as `refine` does."""
        scale = int(self._network.image_size) / np.array(images.shape[2:0:-1], np.float32)
        point = torch.from_numpy(np.array([column, row], np.float32) * scale)

        def prompt(session: Any, instance: int) -> int:
            session.add_point_inputs(instance, t, {
                "point_coords": point.reshape(1, 1, 1, 2).to(session.dtype),
                "point_labels": torch.ones((1, 1, 1), dtype=torch.int32),
            })  # fmt: skip
            return t

        return self._all_masks(images, prompt)

    def follow(
        self, images: UInt8[np.ndarray, "n h w 3"], t: int, mask: Bool[np.ndarray, "h w"]
    ) -> Bool[np.ndarray, "n h w"]:
        """The object of a mask of frame t in all frames; frame t keeps it. Raises as `refine`."""
        masks = self._all_masks(images, self._mask_prompt(t, mask))
        masks[t] = mask
        return masks

    def _mask_prompt(self, t: int, mask: Bool[np.ndarray, "h w"]) -> _Prompt:
        size = int(self._network.image_size)

        def prompt(session: Any, instance: int) -> int:
            session.add_mask_inputs(instance, t, _prompt(mask, size))
            return t

        return prompt

    def _all_masks(self, images: np.ndarray, prompt: _Prompt) -> Bool[np.ndarray, "n h w"]:
        masks = np.zeros(images.shape[:3], bool)
        for t, mask in self._track(images, [prompt]):
            masks[t] = mask
        return masks

    def _track(
        self, images: np.ndarray, prompts: Sequence[_Prompt]
    ) -> list[tuple[int, Bool[np.ndarray, "h w"]]]:
        """Frame index and mask of every frame, from prompts in some of them.

        One pass forwards from the first prompt and one backwards.
        """
        network = self._network
        session = self._session(images, int(network.image_size))
        instance = session.obj_id_to_idx(1)
        h, w = images.shape[1:3]
        found, prompted = [], []
        with torch.inference_mode():
            for prompt in prompts:
                prompted.append(prompt(session, instance))
                session.obj_with_new_inputs = [1]
                network(session, frame_idx=prompted[-1])
            first = prompted[0]
            for reverse in (False, True):
                steps = network.propagate_in_video_iterator(session, first, reverse=reverse)
                for step in steps:
                    logits = step.pred_masks.float().reshape(1, 1, *step.pred_masks.shape[-2:])
                    mask = F.interpolate(logits, (h, w), mode="bilinear")[0, 0] > 0
                    found.append((int(step.frame_idx), mask.cpu().numpy()))
        return found

    def _session(self, images: np.ndarray, size: int) -> Any:
        """Inference session of transformers for a clip."""
        session = import_module("transformers").Sam2VideoInferenceSession(
            inference_device=self.device,
            inference_state_device="cpu",
            dtype=self._network.dtype,
        )
        # frames are prepared one at a time: a clip of 1024x1024 floats would fill the memory
        session.processed_frames = _Frames(images, size, self._network.dtype)
        return session

    @cached_property
    def _network(self) -> Any:
        """SAM 2's video model; raises as `refine` does."""
        try:
            library = import_module("transformers")
            kind = library.Sam2VideoModel
        except (ImportError, AttributeError, RuntimeError) as problem:
            raise MissingExtraError("transformers (4.56 or newer)", "sam2", "SAM 2") from problem
        number = torch.bfloat16 if torch.device(self.device).type == "cuda" else torch.float32
        try:
            with _quiet(library):
                network = kind.from_pretrained(self.weights, dtype=number, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as problem:
            text = " ".join(str(problem).split())[:160]
            raise CheckpointError(
                f"SAM 2's weights '{self.weights}' can't be loaded ({text}); give a folder with "
                "config.json and model.safetensors, or use the refiner edges"
            ) from problem
        network.config.max_cond_frame_num = self.max_prompts
        return network.to(self.device).eval().requires_grad_(requires_grad=False)


def sam2_on_this_machine(device: str = "cpu") -> Sam2Refiner | None:
    """SAM 2 with its published weights, if transformers and the weights are here; else None."""
    from huggingface_hub import try_to_load_from_cache

    if find_spec("transformers") is None:
        return None
    found = try_to_load_from_cache(DEFAULT_WEIGHTS, "model.safetensors")
    return Sam2Refiner(device=device) if isinstance(found, str) else None


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Hide the progress bars of the library, which would mix with ours."""
    bars = library.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


class _Frames:
    """Input frames of the network, square and normalised, made on access."""

    def __init__(self, images: np.ndarray, size: int, dtype: torch.dtype) -> None:
        self.images, self.size, self.dtype = images, size, dtype

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.images)

    def __getitem__(self, t: int) -> Float[Tensor, "3 s s"]:
        image = torch.from_numpy(self.images[t].copy()).permute(2, 0, 1)[None].float() / 255
        square = (self.size, self.size)
        small = F.interpolate(image, square, mode="bilinear", antialias=True)[0]
        mean, deviation = (torch.tensor(x)[:, None, None] for x in (_MEAN, _DEVIATION))
        return ((small - mean) / deviation).to(self.dtype)


def _prompt(mask: Bool[np.ndarray, "h w"], size: int) -> Float[Tensor, "1 1 s s"]:
    """Mask at the size of the network, 0 or 1."""
    values = torch.from_numpy(mask.astype(np.float32))[None, None]
    large = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
    return (large >= 0.5).float()
