"""Read the token of the Replicate account from a Secret block of Prefect."""

from dataclasses import replace

from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from videogen.errors import SettingsError
from videogen.execution.options import PreparedJob
from videogen.settings import parse_token


async def add_token(prepared: PreparedJob) -> PreparedJob:
    """Return the job with the token of the block `VIDEOGEN_TOKEN_BLOCK` in its settings, if it needs that.

    The token is in the memory of this process only. `REPLICATE_API_TOKEN` takes precedence, and then the block is not
    read.

    Raises:
        SettingsError: there is no such block, or it has no token.
    """
    settings = prepared.settings
    if prepared.provider != "replicate" or settings.replicate_api_token or not settings.token_block:
        return prepared
    token = await _read_token(settings.token_block)
    return replace(prepared, settings=settings.model_copy(update={"replicate_api_token": token}))


async def _read_token(block: str) -> SecretStr:
    program = "from getpass import getpass; from prefect.blocks.system import Secret; "
    program += f"Secret(value=getpass('Token: ')).save('{block}', overwrite=True)"
    create = f'python -c "{program}"'
    async with get_client() as client:
        try:
            found = await client.read_block_document_by_name(block, "secret", include_secrets=True)
        except ObjectNotFound:
            raise SettingsError(
                f"VIDEOGEN_TOKEN_BLOCK: there is no Secret block {block!r} in Prefect. Create it: {create}"
            ) from None
    text = Secret.model_validate(found.data).value.get_secret_value()
    try:
        token = parse_token(text) if isinstance(text, str) else None
    except ValueError as exc:
        raise SettingsError(f"VIDEOGEN_TOKEN_BLOCK: the text of the Secret block {block!r} {exc}") from None
    if token is None:
        raise SettingsError(
            f"VIDEOGEN_TOKEN_BLOCK: the Secret block {block!r} in Prefect has no text. Save it again: {create}"
        )
    return token
