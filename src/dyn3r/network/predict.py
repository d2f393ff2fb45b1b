"""Inference over the pairs of a clip: every frame encoded once, pairs decoded in batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dyn3r.errors import InputError
from dyn3r.io.memory_map import allocate, release_pages
from dyn3r.io.workers import ordered_map, workers
from dyn3r.network.config import PATCH
from dyn3r.network.model import Model
from dyn3r.network.network import Decoded
from dyn3r.network.options import InferenceOptions
from dyn3r.network.patches import token_mask
from dyn3r.types import Clip, PairPredictions, Progress, Tokens, no_progress

HALF_LIMIT = 65504.0
"""Largest finite number in half precision; stored predictions are clamped to it."""
CPU_TOKENS, GPU_TOKENS = 1_024, 16_384
"""Tokens per view in a batch on a CPU and on an accelerator. Source: run time. On a CPU 512 to 2048
take the same time; a batch of the embedded network takes about 100 MB for 1024."""
MAX_BATCHES = 4
"""Batches that a CPU decodes at once. Source: memory."""

Result = TypeVar("Result")

Frames = Clip | Tensor | np.ndarray
"""A Clip, a float tensor (n,3,h,w) in [0, 1], or a uint8 array (n,h,w,3); see `_size`."""


def encode_frames(
    model: Model,
    images: Frames,
    *,
    progress: Progress = no_progress,
) -> Tokens:
    """Encode every frame; the tokens stay on the model's device.

    images: n frames, see `Frames`. Raises InputError for frames of another type or shape, or with
    sides that are not multiples of 16.
    """
    frames = _frames(images)
    size_hw = _size(frames)
    grid = (size_hw[0] // PATCH, size_hw[1] // PATCH)
    batch = max(1, _tokens_per_batch(model) // (grid[0] * grid[1]))

    def encode(start: int) -> Tokens:
        with torch.inference_mode(), model.autocast():
            x = _normalise(frames[start : start + batch]).to(model.device)
            return model.two_view.encode(x)

    parts = []
    for part in _side_by_side(encode, range(0, len(frames), batch), model):
        parts.append(part)
        progress("encoding frames", min(len(parts) * batch, len(frames)), len(frames))
    with torch.inference_mode():
        return Tokens.join(parts)


def predict_pairs(  # noqa: PLR0913  all but four are keyword-only
    model: Model,
    images: Frames,
    edges: Int[np.ndarray, "m 2"],
    dynamic: Bool[np.ndarray, "..."] | None = None,
    *,
    tokens: Tokens | None = None,
    heads: bool = True,
    scores: bool = True,
    options: InferenceOptions | None = None,
    progress: Progress = no_progress,
    stage: str = "predicting pairs",
) -> PairPredictions:
    """Run the network on every directed pair (i, j) of `edges`.

    images: n frames, see `Frames`. dynamic: masks (n,h,w) of dynamic pixels; static tokens of view
    1 then ignore dynamic tokens of view 2 (second pass of Easi3R, SPEC 5). tokens: `encode_frames`
    of the same frames, if already computed. heads: whether pointmaps are computed; without them a
    pass is much cheaper (first pass of Easi3R). scores: whether attention scores are computed.
    stage: name of this pass in progress reports.

    Returns pointmaps points1 (of frame i) and points2 (of frame j), both in camera i, (m,h,w,3),
    with an arbitrary scale per pair; confidences conf1, conf2 (m,h,w) above 1; scores1 (tokens of
    frame j) and scores2 (tokens of frame i), (m, gh, gw, layers*heads) float32. Raises InputError
    for edges outside the clip, frames with sides that are not multiples of 16 and masks of another
    size.
    """
    options = options or InferenceOptions()
    frames = _frames(images)
    size_hw, edges = _size(frames), _checked_edges(edges, len(frames))
    if dynamic is not None and dynamic.shape != (len(frames), *size_hw):
        raise InputError(
            f"the motion masks have shape {dynamic.shape}, the frames {(len(frames), *size_hw)}"
        )
    tokens = tokens or encode_frames(model, images, progress=progress)
    dynamic_tokens = None
    if dynamic is not None:
        dynamic_tokens = torch.from_numpy(token_mask(dynamic, PATCH)).flatten(1).to(model.device)
    store = _Store(len(edges), size_hw, tokens.grid_hw, model, options, heads=heads, scores=scores)
    batch = options.batch_pairs or max(1, _tokens_per_batch(model) // tokens.features.shape[1])
    predict = partial(_predict_batch, model, tokens, dynamic_tokens, edges, batch, store)
    for done in _side_by_side(predict, range(0, len(edges), batch), model):
        progress(stage, done, len(edges))
    return PairPredictions(edges, len(frames), **store.arrays)


def _side_by_side(
    function: Callable[[int], Result], starts: range, model: Model
) -> Iterator[Result]:
    """Results for the first items of all batches, in order; on a CPU several at once.

    PyTorch has the cores that are left for each.
    """
    if model.device.type != "cpu":
        return ordered_map(function, starts, 1)
    count = min(workers(), len(starts), MAX_BATCHES)
    return ordered_map(function, starts, count, each_pytorch_threads=workers() // count)


def _predict_batch(
    model: Model,
    tokens: Tokens,
    dynamic_tokens: Bool[Tensor, "n t"] | None,
    edges: Int[np.ndarray, "m 2"],
    batch: int,
    store: _Store,
    start: int,
) -> int:
    """Decode and store `batch` pairs from `start` on; returns the number of the pair after them."""
    with torch.inference_mode(), model.autocast():
        i, j = torch.from_numpy(edges[start : start + batch]).to(model.device).T
        masks = None
        # without a dynamic token in view 2 the second pass equals the first
        if dynamic_tokens is not None and bool(dynamic_tokens[j].any()):
            masks = (dynamic_tokens[i], dynamic_tokens[j])
        decoded = model.two_view.decode(
            tokens[i], tokens[j], masks, heads=store.heads, scores=store.scores
        )
        store.put(start, decoded)
    return min(start + batch, len(edges))


class _Store:
    """Arrays of the predictions: in memory, or in temporary files if they are too large."""

    def __init__(
        self,
        edges: int,
        size_hw: tuple[int, int],
        grid_hw: tuple[int, int],
        model: Model,
        options: InferenceOptions,
        *,
        heads: bool,
        scores: bool,
    ) -> None:
        """Allocate the arrays of `edges` pairs. heads, scores: which of them there are."""
        self.heads, self.scores = heads, scores
        number = np.dtype(np.float16 if options.storage == "half" else np.float32)
        shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        if heads:
            for view in "12":
                shapes[f"points{view}"] = ((edges, *size_hw, 3), number)
                shapes[f"conf{view}"] = ((edges, *size_hw), number)
        if scores:
            shape = (edges, *grid_hw, model.two_view.config.score_channels)
            shapes |= {f"scores{view}": (shape, np.dtype(np.float32)) for view in "12"}
        size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
        folder = options.spill_folder if size > options.memory_gb * 1e9 else ""
        self.arrays = {
            name: allocate(shape, dtype, folder, "predictions")
            for name, (shape, dtype) in shapes.items()
        }

    def put(self, start: int, decoded: Decoded) -> None:
        """Store a batch from pair `start` on."""
        for name, array in self.arrays.items():
            values = getattr(decoded, name).float()
            if array.dtype == np.float16:
                values = values.clamp(-HALF_LIMIT, HALF_LIMIT)
            if name.startswith("conf"):
                # 1 + exp(...) may round to 1, which means "no prediction": keep it above 1
                values = values.clamp(min=1 + float(np.finfo(array.dtype).eps))
            array[start : start + len(values)] = values.cpu().numpy()
            release_pages(array)  # keeps a memory-mapped file out of the resident memory


def _tokens_per_batch(model: Model) -> int:
    """Number of tokens per view in a batch: enough to keep the device busy."""
    return GPU_TOKENS if model.device.type == "cuda" else CPU_TOKENS


def _frames(images: Frames) -> Tensor | np.ndarray:
    """Return the frames of a clip, or the array or tensor itself."""
    return images.images if isinstance(images, Clip) else images


def _size(frames: Tensor | np.ndarray) -> tuple[int, int]:
    """Return height and width. Raises InputError for another type, shape or size."""
    shape = tuple(frames.shape)
    size_hw = shape[2:4] if isinstance(frames, Tensor) else shape[1:3]
    channels = 1 if isinstance(frames, Tensor) else 3
    wrong_type = isinstance(frames, np.ndarray) and frames.dtype != np.uint8
    if len(shape) != 4 or len(frames) == 0 or shape[channels] != 3 or wrong_type:
        raise InputError(
            "frames must be (n, 3, h, w) in [0, 1] or (n, h, w, 3) uint8, "
            f"not {shape} {frames.dtype}"
        )
    if size_hw[0] % PATCH or size_hw[1] % PATCH or 0 in size_hw:
        raise InputError(
            f"frames of {size_hw[1]}x{size_hw[0]} pixels: sides must be multiples of 16"
        )
    return size_hw


def _normalise(frames: Tensor | np.ndarray) -> Float[Tensor, "n 3 h w"]:
    """Convert frames to [-1, 1], channels first."""
    if isinstance(frames, np.ndarray):
        return (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    return (frames.float() - 0.5) / 0.5


def _checked_edges(edges: np.ndarray, num_frames: int) -> Int[np.ndarray, "m 2"]:
    """Return the edges as int64. Raises InputError unless they are pairs of existing frames."""
    edges = np.asarray(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or len(edges) == 0 or edges.dtype.kind not in "iu":
        raise InputError(
            f"edges must be a non-empty (m, 2) array of frame indices, not {edges.shape}"
        )
    if edges.min() < 0 or edges.max() >= num_frames:
        raise InputError(f"edges refer to frames {edges.min()}..{edges.max()} of {num_frames}")
    return edges.astype(np.int64)
