"""From a request to an mp4 file."""
