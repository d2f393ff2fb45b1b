"""What the frames of a clip show of their making: blank frames, borders, overlays, cuts."""
