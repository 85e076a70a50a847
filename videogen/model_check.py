"""Check the registry's models against Replicate's current schemas, or against saved snapshots."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogen.errors import GoneError, InvalidError, Problem, SettingsError
from videogen.registry import drift
from videogen.registry.drift import Finding
from videogen.registry.endpoint_schema import Endpoint, ListedModel, Snapshots
from videogen.registry.load import load_registry_file, parse_registry, read_registry
from videogen.registry.model_spec import ModelSpec
from videogen.settings import Settings
from videogen.source_files.document import SourceFile
from videogen.source_files.messages import Loc

if TYPE_CHECKING:
    from videogen.execution.rate_limit_gate import ProviderGate
    from videogen.providers.replicate import ReplicateProvider


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The result of checking one model."""

    id: str
    replicate: str
    drift: tuple[Problem, ...] = ()
    """Contradictions to the endpoint."""
    ignored: tuple[Problem, ...] = ()
    """Inputs that are known to be ignored by the endpoint."""
    not_compared: str | None = None
    """Why there was nothing to compare the model with, and what to do. None if it was compared."""

    @property
    def ignored_inputs(self) -> list[str]:
        """The names of the inputs that the endpoint ignores."""
        return sorted({problem.where.rpartition(".")[2] for problem in self.ignored})

    def summary(self) -> dict[str, Any]:
        """Return the result as JSON value, with `field` as path in the registry's file."""
        return {
            "id": self.id,
            "replicate": self.replicate,
            "drift": [_as_json(problem) for problem in self.drift],
            "ignored": [_as_json(problem) for problem in self.ignored],
            "not_compared": self.not_compared,
        }


def _as_json(problem: Problem) -> dict[str, str]:
    return {"field": problem.where, "position": problem.position, "message": problem.message}


async def compare_with_endpoints(
    names: Sequence[str], settings: Settings, snapshots: Snapshots, *, offline: bool, keep: bool
) -> list[ModelCheck]:
    """Compare models with their endpoints and return the results, in the same order.

    Args:
        names: names of the models; empty means all models of the registry.
        settings: the token, the address of Replicate and the registry.
        snapshots: the folder of saved schemas.
        offline: compare with the snapshots instead of Replicate's current schemas.
        keep: save Replicate's current schemas as snapshots.

    Raises:
        ValidationError: the registry or a snapshot is invalid, or the registry has no model of that name.
        SettingsError: REPLICATE_API_TOKEN is not set.
        AuthenticationError: Replicate rejected the token.
        CallError: Replicate cannot be reached.
    """
    document = load_registry_file(settings.registry)
    registry = parse_registry(document)
    specs = {name: registry.get_model(name) for name in names or registry.models}
    endpoints: Mapping[str, Endpoint | None]
    if offline:
        endpoints = {spec.replicate: snapshots.read(spec.replicate) for spec in specs.values()}
    else:
        endpoints = await _fetch_endpoints(specs.values(), settings)
    if keep:
        for endpoint in endpoints.values():
            if endpoint:
                snapshots.write(endpoint)
    return [
        _report_missing_snapshot(name, spec, snapshots)
        if offline and endpoints[spec.replicate] is None
        else _check_model(name, spec, endpoints[spec.replicate], document)
        for name, spec in specs.items()
    ]


def _report_missing_snapshot(name: str, spec: ModelSpec, snapshots: Snapshots) -> ModelCheck:
    reason = f"there is no snapshot of {spec.replicate} in {snapshots.folder}"
    advice = "To fetch and save one, run this with --snapshot instead of --offline; that needs REPLICATE_API_TOKEN."
    return ModelCheck(id=name, replicate=spec.replicate, not_compared=f"{reason}. {advice}")


async def _fetch_endpoints(specs: Iterable[ModelSpec], settings: Settings) -> Mapping[str, Endpoint | None]:
    """Fetch the endpoint of each model, with the versions in use, by `owner/name`; None if it does not exist."""
    versions: dict[str, set[str]] = {}
    for spec in specs:
        versions.setdefault(spec.replicate, set()).update([spec.version] if spec.version else [])
    async with _open_replicate(settings, "use --offline to check the saved ones") as (provider, calls):
        return {name: await _fetch_endpoint(name, provider, calls, wanted) for name, wanted in versions.items()}


async def fetch_new_endpoint(replicate: str, settings: Settings) -> Endpoint:
    """Return a model as Replicate describes it.

    Raises:
        InvalidError: there is no such model.
        SettingsError: REPLICATE_API_TOKEN is not set.
        AuthenticationError: Replicate rejected the token.
        CallError: Replicate cannot be reached.
    """
    async with _open_replicate(settings, "give a file with the schema as --schema FILE") as (provider, calls):
        endpoint = await _fetch_endpoint(replicate, provider, calls)
    if endpoint is None:
        raise InvalidError(f"{replicate} is not on Replicate (404): check the spelling, or whether it is private")
    return endpoint


COLLECTIONS = ("text-to-video", "image-to-video")
"""Replicate's collections of video models."""


@dataclass(frozen=True, slots=True)
class ModelNews:
    """The differences between the models of the registry and those of Replicate."""

    new: tuple[ListedModel, ...]
    """Official models in the collections that the registry does not have."""
    gone: dict[str, str]
    """The models of the registry that are not on Replicate any more: `owner/name` by name in the registry."""
    retiring: dict[str, ModelSpec]
    """The models of the registry that have a day of retirement, past or not, by name."""

    def summary(self) -> dict[str, Any]:
        """Return the news as JSON value."""
        return {
            "new": [{"replicate": each.name, "description": each.description} for each in self.new],
            "gone": [{"id": name, "replicate": replicate} for name, replicate in self.gone.items()],
            "retiring": [
                {"id": name, "replicate": spec.replicate, "retires": str(spec.retires), "successor": spec.successor}
                for name, spec in self.retiring.items()
            ],
        }


async def find_news(settings: Settings) -> ModelNews:
    """Compare the registry with Replicate's collections of video models.

    Raises:
        ValidationError: the registry is invalid.
        SettingsError: REPLICATE_API_TOKEN is not set.
        AuthenticationError: Replicate rejected the token.
        CallError: Replicate cannot be reached.
    """
    models = read_registry(settings.registry).models
    known = {spec.replicate for spec in models.values()}
    listed: dict[str, ListedModel] = {}
    async with _open_replicate(settings, "look at https://replicate.com/collections/text-to-video") as (
        provider,
        calls,
    ):
        for slug in COLLECTIONS:
            found = await calls.call_with_retries(partial(provider.list_collection, slug), tries=4)
            listed |= {each.name: each for each in found}
        unlisted = sorted(known - listed.keys())
        gone = {name for name in unlisted if await _fetch_endpoint(name, provider, calls) is None}
    return ModelNews(
        new=tuple(each for name, each in sorted(listed.items()) if each.is_official and name not in known),
        gone={name: spec.replicate for name, spec in models.items() if spec.replicate in gone},
        retiring={name: spec for name, spec in models.items() if spec.retires},
    )


def check_added_model(name: str, endpoint: Endpoint, registry: Path) -> ModelCheck:
    """Compare a model of the registry file with its endpoint."""
    document = load_registry_file(registry)
    return _check_model(name, parse_registry(document).get_model(name), endpoint, document)


@asynccontextmanager
async def _open_replicate(
    settings: Settings, otherwise: str
) -> AsyncIterator[tuple["ReplicateProvider", "ProviderGate"]]:
    """Open a client of Replicate. Raise `SettingsError` without a token, with the advice to do `otherwise`."""
    from videogen.execution.rate_limit_gate import ProviderGate
    from videogen.providers.replicate import ReplicateProvider

    token = settings.replicate_api_token
    if token is None:
        raise SettingsError(f"REPLICATE_API_TOKEN is not set: set it to ask Replicate, or {otherwise}")
    provider = ReplicateProvider(token.get_secret_value(), base_url=settings.replicate_base_url)
    try:
        yield provider, ProviderGate()
    finally:
        await provider.aclose()


async def _fetch_endpoint(
    name: str, provider: "ReplicateProvider", calls: "ProviderGate", versions: Collection[str] = ()
) -> Endpoint | None:
    try:
        return await calls.call_with_retries(partial(provider.describe, name, versions), tries=4)
    except GoneError:
        return None


def _check_model(name: str, spec: ModelSpec, endpoint: Endpoint | None, document: SourceFile) -> ModelCheck:
    if endpoint is None:
        gone = f"{spec.replicate} is not on Replicate (404): it was removed, renamed or made private"
        findings = [Finding(("replicate",), gone)]
    else:
        findings = drift.compare(spec, endpoint)
    contradicted = [(_loc(name, found), found.message) for found in findings if not found.ignored]
    ignored = [(_loc(name, found), found.message) for found in findings if found.ignored]
    return ModelCheck(
        id=name,
        replicate=spec.replicate,
        drift=tuple(document.problems_at(contradicted)),
        ignored=tuple(document.problems_at(ignored)),
    )


def _loc(name: str, finding: Finding) -> Loc:
    return ("models", name, *finding.loc)
