"""The command `python -m flows.generate`, and the entry points of earlier deployments. The flows: `videogen.flows`."""
