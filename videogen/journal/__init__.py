"""The memory of all runs."""
