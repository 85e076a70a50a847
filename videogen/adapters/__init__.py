"""Implementations of the protocols in `videogen.providers.base`, one module per external system."""
