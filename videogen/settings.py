"""What the environment says."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic import ValidationError as PydanticError
from pydantic_settings import BaseSettings, SettingsConfigDict

from videogen.errors import SettingsError
from videogen.ports import is_remote

ProviderName = Literal["replicate", "local"]
LOCAL_OUT = Path("out")
DEFAULT_LIMIT = "replicate"


class Settings(BaseSettings):
    """Read from environment variables when made; every field names its variable."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    replicate_api_token: Annotated[SecretStr | None, Field(validation_alias="REPLICATE_API_TOKEN")] = None
    replicate_base_url: Annotated[str, Field(validation_alias="REPLICATE_BASE_URL")] = "https://api.replicate.com"
    duration_buffer: Annotated[
        float | None, Field(validation_alias="VIDEO_GENERATOR_DURATION_BUFFER", ge=1, allow_inf_nan=False)
    ] = None
    """Multiplier for models of continuous duration; None means the registry's."""
    out: Annotated[str, Field(validation_alias="VIDEOGEN_OUT")] = str(LOCAL_OUT)
    """Jobs get a folder each in here: a path, or the address of an object store such as `s3://bucket/prefix`."""
    journal_url: Annotated[str | None, Field(validation_alias="VIDEOGEN_JOURNAL_URL")] = None
    """SQLAlchemy URL; None means `journal.db` in `out`, or in the local `out` where that is an address."""
    limit: Annotated[str | None, Field(validation_alias="VIDEOGEN_LIMIT", max_length=80)] = None
    """Name of the journal's limit that all runs share; None means `replicate` in a PostgreSQL, and none in SQLite."""
    registry: Annotated[Path | None, Field(validation_alias="VIDEOGEN_REGISTRY")] = None
    """A `models.toml`; None means the one that came with videogen."""
    provider: Annotated[ProviderName | None, Field(validation_alias="VIDEOGEN_PROVIDER")] = None
    """None means Replicate when there is a token for it, else the emulator on this machine."""
    gateway_token: Annotated[SecretStr | None, Field(validation_alias="VIDEOGEN_GATEWAY_TOKEN")] = None
    """Who has it may look at the gateway; None means everybody on this machine."""

    gateway_url: Annotated[str | None, Field(validation_alias="VIDEOGEN_GATEWAY_URL")] = None
    """Where people reach the gateway: the artifacts of a run link to its page and clips there."""

    @field_validator("replicate_base_url", "gateway_url")
    @classmethod
    def _url_is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value

    @field_validator("replicate_api_token", "gateway_token")
    @classmethod
    def _token_fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("must be one word of printable ASCII characters")
        return SecretStr(token) if token else None

    def provider_choice(self) -> tuple[ProviderName, str]:
        """The provider to use, and why."""
        if self.provider:
            return self.provider, "asked for"
        if self.replicate_api_token:
            return "replicate", "REPLICATE_API_TOKEN is set"
        return "local", "REPLICATE_API_TOKEN is not set: the emulator on this machine, at no cost"

    @property
    def local_out(self) -> Path:
        """`out`, or the folder on this disk that stands in for it where it is remote."""
        return LOCAL_OUT if is_remote(self.out) else Path(self.out)

    def effective_journal_url(self) -> str:
        return self.journal_url or f"sqlite:///{(self.local_out / 'journal.db').absolute()}"

    def effective_limit(self) -> str | None:
        """The limit that this process shares with others; None where its own number of slots is enough."""
        shares_journal = self.effective_journal_url().startswith("postgres")
        return self.limit or (DEFAULT_LIMIT if shares_journal else None)

    def job_folder(self, job_id: str) -> str:
        """The address of a job's own folder."""
        return f"{self.out.rstrip('/')}/{job_id}" if is_remote(self.out) else str(self.work_folder(job_id))

    def work_folder(self, job_id: str) -> Path:
        """Where a job's files are made: its own folder, or `out/s3/bucket/prefix/<job>` for the one in a bucket."""
        below = self.out.replace("://", "/", 1) if is_remote(self.out) else ""
        return (self.local_out / below).absolute() / job_id


def read_settings(**given: Any) -> Settings:
    """The settings of this process, `given` variables over those of the environment.

    Raises `SettingsError` naming each variable that is wrong, never its secret.
    """
    try:
        return Settings(**given)
    except PydanticError as exc:
        raise SettingsError(
            "\n".join(_line(entry["loc"], entry["msg"], entry["input"]) for entry in exc.errors())
        ) from None


def _line(loc: tuple[str | int, ...], message: str, value: object) -> str:
    name = str(loc[0])
    if name == "VIDEO_GENERATOR_DURATION_BUFFER":
        message = "must be a number of at least 1"
    shown = "" if "TOKEN" in name else f", not {str(value)[:60]!r}"
    return f"{name}: {message.removeprefix('Value error, ')}{shown}"
