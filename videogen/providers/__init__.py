"""Where predictions are made."""
