"""Contact sheet and rough cut."""
