"""Motion segmentation: attention (SPEC 4), flow residuals (SPEC 7), and refinement of masks."""
