"""Global alignment: pairwise pointmaps to cameras and depth in one world (SPEC 6)."""
