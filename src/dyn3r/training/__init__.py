"""Training of the networks on synthetic scenes."""
