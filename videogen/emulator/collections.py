"""The two collections of video models."""

from collections.abc import Iterable
from typing import Any

from videogen.emulator.api_errors import make_not_found_error
from videogen.emulator.catalogue import make_model_body
from videogen.emulator.models import EmulatedModel

_TITLES = {"text-to-video": "Text to video", "image-to-video": "Image to video"}


def make_collection_body(slug: str, models: Iterable[EmulatedModel], web: str) -> dict[str, Any]:
    """Return the body of GET /v1/collections/{slug}; `web` is the address to use for replicate.com.

    Source: `collections.get` in https://api.replicate.com/openapi.json

    Raises:
        ApiError: 404, there is no such collection.
    """
    if slug not in _TITLES:
        raise make_not_found_error(f"The emulator has these collections: {', '.join(_TITLES)}")
    return {
        "name": _TITLES[slug],
        "slug": slug,
        "description": f"{_TITLES[slug]} models",
        "full_description": None,
        "models": [make_model_body(model, web) for model in models if _is_in_collection(model, slug)],
    }


def _is_in_collection(model: EmulatedModel, slug: str) -> bool:
    if slug == "image-to-video":
        return bool(model.start_images)
    return "prompt" in model.properties and not set(model.start_images) & set(model.required)
