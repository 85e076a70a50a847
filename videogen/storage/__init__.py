"""Where clips are kept."""
