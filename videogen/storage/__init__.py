"""The places where clips are stored: folders and buckets."""
