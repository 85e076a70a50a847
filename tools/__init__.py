"""Generators of schemas and pages of the docs."""
