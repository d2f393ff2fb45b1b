"""Synthetic world: procedural scenes with exact ground truth."""
