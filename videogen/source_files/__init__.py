"""Job files and registries as text with positions."""
