"""Prefect's side of videogen: the only package that imports it."""
