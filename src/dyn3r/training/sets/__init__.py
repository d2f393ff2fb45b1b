"""Training pairs from data sets of videos with known depth and cameras."""
