"""Load the reference images of a job."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from videogen.errors import Problem, ValidationError
from videogen.job.model import Job, display_name

if TYPE_CHECKING:
    from videogen.references.decode import ReferenceImage


async def load_job_references(job: Job, folder: Path) -> Mapping[str, "ReferenceImage"]:
    """Return the job's images by their address in the job. Relative paths are below `folder`.

    Raises:
        ValidationError: names each image that is missing, broken or no image.
    """
    return await _load_references(job, folder)


async def check_references(job: Job, folder: Path) -> None:
    """Check the job's images that are files or `data:` URLs, and the other URLs as far as possible. Nothing is fetched.

    Raises:
        ValidationError: names each image that is missing, broken or no image, and each URL that would not be fetched.
    """
    await _load_references(job, folder, fetches=False)


async def _load_references(job: Job, folder: Path, *, fetches: bool = True) -> Mapping[str, "ReferenceImage"]:
    sources = {source for scene in job.scenes for source in scene.picture_urls}
    if not sources:
        return {}
    from videogen.references.fetch import load_references

    try:
        return await load_references(sorted(sources), base_dir=folder, fetches=fetches)
    except ValidationError as exc:
        problems = {problem.where: problem.message for problem in exc.problems}
        raise ValidationError(
            [
                Problem(f"{display_name(source)}: {problems[display_name(source)]}", where=where)
                for where, source in _find_reference_places(job)
                if display_name(source) in problems
            ]
        ) from None


def _find_reference_places(job: Job) -> Iterator[tuple[str, str]]:
    """Yield the place of each reference in the job, and its address."""
    for index, scene in enumerate(job.scenes):
        for field in ("start_image", "end_image", "scene_reference_url"):
            if source := getattr(scene, field):
                yield f"scenes.{index}.{field}", source
        for number, source in enumerate(scene.character_reference_urls):
            yield f"scenes.{index}.character_reference_urls.{number}", source
