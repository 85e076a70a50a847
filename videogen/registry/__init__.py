"""The video models: what they accept and what they cost."""
