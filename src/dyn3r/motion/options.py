"""What can be chosen about the search for motion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dyn3r.errors import InputError


@dataclass(frozen=True)
class MotionOptions:
    """Choices of `find_motion`. `MotionOptions.easi3r()` is the published recipe to the letter."""

    clusters: int = 64
    """Segments the tokens of all frames are grouped into. More: smaller parts are told apart, and
    the map is smoothed less. Fewer are used where there are fewer tokens."""
    seed: int = 42
    """Seed of the clustering; another seed gives slightly other segments."""
    still_test: Literal["agreement", "contrast", "none"] = "agreement"
    """How a clip without motion is recognised. `agreement`: its pairs agree, or the mask would
    cover most of it. `contrast`: also if what was found varies hardly more between the pairs than
    the rest. `none`: not at all, as published, which finds something moving in every clip."""
    min_deviation: float = 0.02
    """The clip is still if no token's scores vary between the pairs by more than this share of
    their spread over the image. Larger: more clips count as still."""
    min_contrast: float = 1.4
    """For `contrast`: the tokens found to move must vary between the pairs at least this many times
    as much as the others; 1.4 doubles the variance. Larger: more clips count as still."""
    max_share: float = 0.5
    """A mask over more than this share of the clip's pixels is the background and no moving thing.
    Larger: bigger movers are accepted."""
    few_pairs: Literal["inherit", "recipe"] = "inherit"
    """Frames with a single pair have deviation 0, so their dynamic map is 0. `inherit`: their
    tokens take what the other frames say about their segment; if no frame has two pairs, the mean
    attention alone decides. `recipe`: as published, the zeros count as evidence of stillness."""

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise InputError(f"clusters must be at least 1, not {self.clusters}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"the seed must lie in 0..2^32-1, not {self.seed}")
        if self.still_test not in ("agreement", "contrast", "none"):
            raise InputError(
                f"still_test is 'agreement', 'contrast' or 'none', not '{self.still_test}'"
            )
        if self.few_pairs not in ("inherit", "recipe"):
            raise InputError(f"few_pairs is 'inherit' or 'recipe', not '{self.few_pairs}'")
        for name in ("min_deviation", "min_contrast", "max_share"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{name} must be a finite number of at least 0, not {value}")

    @classmethod
    def easi3r(cls) -> MotionOptions:
        """The published recipe: no still test, single pairs count with deviation 0."""
        return cls(still_test="none", few_pairs="recipe")
