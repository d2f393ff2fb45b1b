"""Depth Anything 3 (Lin et al. 2025, arXiv 2511.10647): depth, rays and cameras of many views."""
