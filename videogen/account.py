"""Find the predictions of a provider's account that the journal does not know."""

from datetime import timedelta

from videogen.errors import SettingsError
from videogen.journal.store import Journal
from videogen.providers.base import Prediction
from videogen.settings import Settings

LISTED_DAYS = 14
"""The days of the account's list that are read at most. Source: https://replicate.com/docs/reference/http"""


async def find_unknown_predictions(
    settings: Settings, journal: Journal, *, days: int = LISTED_DAYS
) -> list[Prediction]:
    """Return the account's predictions of the last days that no attempt in the journal has, newest first.

    Raises:
        SettingsError: REPLICATE_API_TOKEN is not set.
        AuthenticationError: Replicate rejected the token.
        CallError: Replicate cannot be reached.
    """
    from videogen.execution.rate_limit_gate import ProviderGate
    from videogen.providers.replicate import TOKENS_PAGE, ReplicateProvider

    token, origin = settings.replicate_api_token, settings.get_origin("replicate")
    if token is None:
        raise SettingsError(f"REPLICATE_API_TOKEN is not set: set it to read the account's list, see {TOKENS_PAGE}")
    provider = ReplicateProvider(token.get_secret_value(), base_url=settings.replicate_base_url, origin=origin)

    async def read_list() -> list[Prediction]:
        return [each async for each in provider.list_since(provider.now() - timedelta(days=days))]

    try:
        listed = await ProviderGate().call_with_retries(read_list, tries=4)
    finally:
        await provider.aclose()
    known = journal.find_known_predictions(origin, [each.id for each in listed])
    return [each for each in listed if each.id not in known]
