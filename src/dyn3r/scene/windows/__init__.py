"""Long clips: windows that are reconstructed one after the other, kept on disk, and joined."""
