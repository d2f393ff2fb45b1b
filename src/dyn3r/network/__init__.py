"""Pointmap networks: configuration, layers, inference and checkpoints."""
