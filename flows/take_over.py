"""The deployment `take-over/take-over` of earlier versions runs this flow, until version 0.3.0."""

from videogen.flows.take_over import take_over

__all__ = ["take_over"]
