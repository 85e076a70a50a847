"""The two collections of video models."""

from typing import Any

import pytest

from videogen.emulator.catalogue import MODELS

pytestmark = pytest.mark.integration


def list_names(client: Any, slug: str) -> set[str]:
    body = client.http.get(f"/v1/collections/{slug}").raise_for_status().json()
    assert body["slug"] == slug
    return {f"{model['owner']}/{model['name']}" for model in body["models"]}


def test_each_collection_lists_the_models_that_can_make_such_videos(client: Any) -> None:
    """One that needs an image is not in the collection of text; one that takes both is in both."""
    text, image = (list_names(client, slug) for slug in ("text-to-video", "image-to-video"))
    assert text & MODELS.keys() == {
        "kwaivgi/kling-v2.5-turbo-pro",
        "minimax/hailuo-2.3",
        "google/veo-3.1",
        "bytedance/seedance-1-pro",
        "cuuupid/cogvideox-5b",
    }
    assert image & MODELS.keys() == MODELS.keys() - {"cuuupid/cogvideox-5b"}


def test_a_listed_model_has_its_schema_as_it_has_alone(client: Any) -> None:
    models = client.http.get("/v1/collections/text-to-video").json()["models"]
    model = next(model for model in models if model["name"] == "veo-3.1")
    assert model == client.http.get("/v1/models/google/veo-3.1").json()


def test_another_collection_is_not_there(client: Any) -> None:
    answer = client.http.get("/v1/collections/text-to-image")
    assert answer.status_code == 404
    assert "text-to-video, image-to-video" in answer.json()["detail"]
