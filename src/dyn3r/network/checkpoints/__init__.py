"""Checkpoint files: reading, converting, downloading and the catalogue of known models."""
