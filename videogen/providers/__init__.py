"""Providers of predictions."""
