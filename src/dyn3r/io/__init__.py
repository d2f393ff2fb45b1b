"""Files in and out: clips, masks, cameras, atomic writes and memory maps."""
