"""Readers of published data sets: frames, depth, cameras and masks behind one interface."""

from dyn3r.datasets.sequence import Sequence

__all__ = ["Sequence"]
