"""Contact sheet, rough cut and timelines."""
