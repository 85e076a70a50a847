"""Implementations of the protocols in `videogen.ports`, one module per external system."""
