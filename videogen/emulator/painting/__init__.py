"""Pictures of what a prompt names."""
