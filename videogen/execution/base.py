"""The interfaces that a run in progress calls for its events and its reference images."""

from typing import Protocol

from videogen.events import RunEvent
from videogen.planning.requests import ImageInput


class EventSink(Protocol):
    """A receiver of the events of a run."""

    def emit(self, event: RunEvent) -> None:
        """Take an event without blocking."""


class ImageSender(Protocol):
    """Makes images available to the provider's models."""

    async def url(self, image: ImageInput) -> str:
        """Return an address from which the model can read the image: a `data:` URL, or that of an upload, made once.

        Raises `UnusableReferenceError`.
        """

    async def read(self, image: ImageInput) -> bytes:
        """Return the bytes of an image that the model got. Raises `UnusableReferenceError`."""

    def name_at(self, address: str) -> str | None:
        """Return the `ImageInput.name` of the image that a run of this job sent as this address, or None."""
