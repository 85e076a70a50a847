"""Painting of the pictures that a prompt names."""
