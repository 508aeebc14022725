"""People rendered from CC0 assets."""
