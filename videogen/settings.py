"""Settings, read from environment variables."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic import ValidationError as PydanticError
from pydantic_settings import BaseSettings, SettingsConfigDict

from videogen.errors import SettingsError
from videogen.registry.load import find_registry_path, read_registry
from videogen.storage.base import is_remote
from videogen.text import is_plain_number

ProviderName = Literal["replicate", "local"]
FREE_ORIGIN = "local"
"""The origin of the emulator that a run starts for itself. Predictions there cost nothing."""
LOCAL_OUT = Path("out")
DEFAULT_LIMIT = "replicate"
MAX_LIMIT_NAME = 80
MAX_BUDGET_NAME = 80
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PLAIN_HOST = re.compile(r"(?!.*xn--)[a-z0-9.-]*[a-z][a-z0-9.-]*")
"""A host name in ASCII, and no label of IDNA in it: every client accepts it."""


class Settings(BaseSettings):
    """The settings of this process. Creating an instance reads the environment variable that each field names."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True)

    replicate_api_token: Annotated[SecretStr | None, Field(validation_alias="REPLICATE_API_TOKEN")] = None
    """Token of the Replicate account. Without it, clips come from the emulator on this machine."""
    token_block: Annotated[str | None, Field(validation_alias="VIDEOGEN_TOKEN_BLOCK", pattern=r"^[a-z0-9-]+$")] = None
    """Name of the block of type Secret in Prefect that has the token of the Replicate account, for runs as flows; None
    means that there is none. If `REPLICATE_API_TOKEN` is set, that token is used."""
    replicate_base_url: Annotated[str, Field(validation_alias="REPLICATE_BASE_URL")] = "https://api.replicate.com"
    """Address of a server with Replicate's API."""
    duration_buffer: Annotated[
        float | None, Field(validation_alias="VIDEO_GENERATOR_DURATION_BUFFER", ge=1, allow_inf_nan=False)
    ] = None
    """Multiplier for models of continuous duration, at least 1; None means the registry's, which is 1.25."""
    allow_judges: Annotated[bool, Field(validation_alias="VIDEOGEN_ALLOW_JUDGES")] = False
    """Whether the `judge` of a job may be a command or a Python function, which runs on this machine."""
    out: Annotated[str, Field(validation_alias="VIDEOGEN_OUT")] = str(LOCAL_OUT)
    """Folder for the jobs' folders: a path, or the address of an object store such as `s3://bucket/prefix`."""
    journal_url: Annotated[str | None, Field(validation_alias="VIDEOGEN_JOURNAL_URL")] = None
    """SQLAlchemy URL of the journal, a SQLite file or a PostgreSQL database; `postgresql+psycopg://…` needs the extra
    `postgres`; None means `journal.db` in `VIDEOGEN_OUT`, or in the local folder `out` if that is an address."""
    limit: Annotated[str | None, Field(validation_alias="VIDEOGEN_LIMIT", max_length=MAX_LIMIT_NAME)] = None
    """Name of the limit on predictions that all runs on one journal share (`videogen limit NAME 5`); None means
    `replicate` with PostgreSQL, and no shared limit with SQLite."""
    budget: Annotated[str | None, Field(validation_alias="VIDEOGEN_BUDGET")] = None
    """Names of the budgets that every run counts for, separated by commas (`videogen budget NAME 200/month`), beside
    those of its job; None means only those of the job."""
    confirm_above: Annotated[
        Decimal | None, Field(validation_alias="VIDEOGEN_CONFIRM_ABOVE", ge=0, allow_inf_nan=False)
    ] = None
    """Amount in USD: if the new clips of a run cost more, the command line asks at a terminal, and without a terminal
    it refuses the run unless `--yes` is given; None means that it never asks."""
    registry: Annotated[Path | None, Field(validation_alias="VIDEOGEN_REGISTRY")] = None
    """A `models.toml` that adds models to the shipped ones or changes them; None means only the shipped ones."""
    provider: Annotated[ProviderName | None, Field(validation_alias="VIDEOGEN_PROVIDER")] = None
    """`replicate` or `local`; None means `replicate` if `REPLICATE_API_TOKEN` or `VIDEOGEN_TOKEN_BLOCK` is set, else
    `local`, the emulator."""
    gateway_token: Annotated[SecretStr | None, Field(validation_alias="VIDEOGEN_GATEWAY_TOKEN")] = None
    """Token required to view the gateway and to act in its review room; None means that anyone on this machine may
    view it."""
    gateway_watch_token: Annotated[SecretStr | None, Field(validation_alias="VIDEOGEN_GATEWAY_WATCH_TOKEN")] = None
    """Another token for the gateway, with which people can watch but not act in its review room."""
    gateway_url: Annotated[str | None, Field(validation_alias="VIDEOGEN_GATEWAY_URL")] = None
    """Public address of the gateway, to which the artifacts of a run in Prefect link."""

    record: Annotated[bool, Field(validation_alias="VIDEOGEN_RECORD")] = True
    """Whether each delivered mp4 says how it was made, and that it was made by AI."""
    c2pa_cert: Annotated[Path | None, Field(validation_alias="VIDEOGEN_C2PA_CERT")] = None
    """Path of a PEM file with the certificate to sign clips with, and those of its issuers; needs the extra `c2pa`."""
    c2pa_key: Annotated[Path | None, Field(validation_alias="VIDEOGEN_C2PA_KEY")] = None
    """Path of a PEM file with the private key of that certificate, without a password."""

    @field_validator("replicate_base_url", "gateway_url")
    @classmethod
    def _url_is_http(cls, value: str | None) -> str | None:
        if value is not None:
            _check_http_url(value)
        return value

    @field_validator("replicate_base_url")
    @classmethod
    def _base_url_is_an_origin(cls, value: str) -> str:
        return _normalize_base_url(value)

    @field_validator("duration_buffer", "confirm_above", mode="before")
    @classmethod
    def _number_is_plain(cls, value: Any) -> Any:
        if isinstance(value, str) and not is_plain_number(value.strip()):
            raise ValueError("must be a plain number")
        return value

    @field_validator("budget")
    @classmethod
    def _budgets_have_names(cls, value: str | None) -> str | None:
        for name in value.split(",") if value else ():
            if not name.strip():
                raise ValueError(
                    "names a budget without a name: write single commas between names, and none at the end"
                )
            check_budget_name(name.strip())
        return value

    @field_validator("registry")
    @classmethod
    def _registry_is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("must name a models.toml that exists, or be unset")
        return value

    @field_validator("replicate_api_token", "gateway_token", "gateway_watch_token")
    @classmethod
    def _token_fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else parse_token(value.get_secret_value())

    def choose_provider(self) -> tuple[ProviderName, str]:
        """Return the provider to use, and the reason."""
        if self.provider:
            return self.provider, "asked for"
        if self.replicate_api_token:
            return "replicate", "REPLICATE_API_TOKEN is set"
        if self.token_block:
            return "replicate", "VIDEOGEN_TOKEN_BLOCK is set"
        other = " (REPLICATE_API_KEY is, which is not read)" if os.environ.get("REPLICATE_API_KEY") else ""
        return "local", f"REPLICATE_API_TOKEN is not set{other}: the emulator on this machine, at no cost"

    def get_origin(self, provider: ProviderName) -> str:
        """Return the name of the provider's account in the journal: the host and path of its API, or `local`."""
        return FREE_ORIGIN if provider == "local" else self.replicate_base_url.split("://")[-1].strip("/")

    @property
    def local_out(self) -> Path:
        """`out`, or the local folder that is used instead if `out` is remote."""
        return LOCAL_OUT if is_remote(self.out) else Path(self.out)

    def get_journal_url(self) -> str:
        """Return the journal's URL, by default that of `journal.db` in `local_out`.

        Raises `SettingsError` if that path has a question mark, which would end the path in a URL.
        """
        file = (self.local_out / "journal.db").absolute()
        if not self.journal_url and "?" in str(file):
            raise SettingsError(
                f"{file.parent}: the journal cannot be in a folder with a question mark in its path. Choose another "
                "folder with --out or VIDEOGEN_OUT, or set VIDEOGEN_JOURNAL_URL"
            )
        return self.journal_url or f"sqlite:///{file}"

    def get_limit_name(self) -> str | None:
        """Return the name of the limit that this process shares with others; None if it shares none."""
        shares_journal = self.get_journal_url().startswith("postgres")
        return self.limit or (DEFAULT_LIMIT if shares_journal else None)

    @property
    def budget_names(self) -> tuple[str, ...]:
        """The names in `budget`."""
        return tuple(name.strip() for name in self.budget.split(",")) if self.budget else ()

    def get_job_folder(self, job_id: str) -> str:
        """Return the address of a job's folder."""
        if not is_remote(self.out):
            return str(self.get_work_folder(job_id))
        scheme, _, place = self.out.partition("://")
        return f"{scheme}://{place.rstrip('/')}/{job_id}"

    def get_work_folder(self, job_id: str) -> Path:
        """Return the local folder for a job's files: its own, or `out/s3/bucket/prefix/<job>` for one in a bucket."""
        below = self.out.replace("://", "/", 1) if is_remote(self.out) else ""
        return (self.local_out / below).absolute() / job_id


def parse_token(text: str) -> SecretStr | None:
    """Return the token; None if the text is blank. Raise `ValueError` if it could not be sent in a header."""
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("must be one word of printable ASCII characters: copy it again")
    return SecretStr(token) if token else None


def check_budget_name(name: str) -> None:
    """Raise `ValueError` if a budget cannot have this name."""
    if not 1 <= len(name) <= MAX_BUDGET_NAME or not name.isprintable() or name != name.strip() or "," in name:
        raise ValueError(f"must be the name of a budget: 1 to {MAX_BUDGET_NAME} characters, without commas")


def _check_http_url(value: str) -> None:
    """Raise `ValueError` naming the wrong part if no client could connect to this address."""
    if not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    if not value.isprintable() or " " in value:
        raise ValueError("must not have blanks or control characters in it")
    try:
        parts = urlsplit(value)
        has_host = _is_valid_host(parts.scheme, parts.hostname or "")
    except ValueError:
        has_host = False
    if not has_host:
        raise ValueError("must name a host after the //")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must have a port from 1 to 65535, or none")


def _is_valid_host(scheme: str, host: str) -> bool:
    """Return whether a client could connect to this host. httpx takes long to import, and is asked only if needed."""
    if _PLAIN_HOST.fullmatch(host):
        return True
    with suppress(ValueError):
        IPv4Address(host)
        return True
    import httpx

    try:
        return bool(httpx.URL(scheme=scheme, host=host).host)
    except httpx.InvalidURL:
        return False


def _normalize_base_url(value: str) -> str:
    """Return the one spelling of an address, so that the journal knows its account by one name.

    The host is in lower case, and the default port, the client's own `/v1` and trailing slashes are left out. Raise
    `ValueError` if the address has parts that may be secret, because the name of the account is shown and stored.
    """
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not have a user name, password, query or fragment in it")
    host = re.sub(r":\d*$", "", parts.netloc.lower())
    port = f":{parts.port}" if parts.port and parts.port != _DEFAULT_PORTS[parts.scheme] else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"


@dataclass(frozen=True)
class EffectiveSetting:
    """The value of a setting that is in effect, with secrets masked so that it can be shown."""

    variable: str
    value: str | None
    origin: str
    """`environment`, or the reason for the value if the environment does not set it."""


def find_effective_settings(settings: Settings) -> tuple[EffectiveSetting, ...]:
    """Return the value and origin of every setting, in the order of the fields of `Settings`.

    Raises `ValidationError` if the registry, which has some of the defaults, is not valid.
    """
    provider, why = settings.choose_provider()
    from_elsewhere: dict[str, tuple[object, str]] = {
        "duration_buffer": (read_registry(settings.registry).defaults.duration_buffer, "registry"),
        "journal_url": (settings.get_journal_url(), "default, by VIDEOGEN_OUT"),
        "limit": (settings.get_limit_name(), "default, by VIDEOGEN_JOURNAL_URL"),
        "registry": (find_registry_path(), "default"),
        "provider": (provider, f"default: {why}"),
    }
    return tuple(
        _make_effective_setting(settings, name, *from_elsewhere.get(name, (None, "default")))
        for name in get_variable_names()
    )


def get_variable_names() -> dict[str, str]:
    """Return the environment variable of each setting, by the name of the setting."""
    return {name: str(field.validation_alias) for name, field in Settings.model_fields.items()}


def mask_secrets(text: str) -> str:
    """Return the address with its password and the secret parts of its query replaced by `***`."""
    text = re.sub(r"(://[^:@/?#]*:).*@", r"\1***@", text)
    return re.sub(r"([?&][^=&#]*(?:password|token|secret|key|signature)[^=&#]*=)[^&#]*", r"\1***", text, flags=re.I)


def _make_effective_setting(settings: Settings, name: str, otherwise: object, origin: str) -> EffectiveSetting:
    value = getattr(settings, name)
    if value is not None and name in settings.model_fields_set:
        origin = "environment"
    if value is None:
        value = otherwise
    shown = None
    if value is not None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        shown = "***" if isinstance(value, SecretStr) else mask_secrets(text)
    return EffectiveSetting(get_variable_names()[name], shown, origin)


def read_settings(**given: Any) -> Settings:
    """Return the settings of this process. Variables in `given` override those of the environment.

    Raises `SettingsError` naming each invalid variable, without secret values.
    """
    try:
        return Settings(**given)
    except PydanticError as exc:
        raise SettingsError(
            "\n".join(_format_error(entry["loc"], entry["msg"], entry["input"]) for entry in exc.errors())
        ) from None


def _format_error(loc: tuple[str | int, ...], message: str, value: object) -> str:
    name = str(loc[0])
    if name == "VIDEO_GENERATOR_DURATION_BUFFER":
        message = "must be a number of at least 1"
    elif name == "VIDEOGEN_TOKEN_BLOCK":
        message = "must be the name of a block in lower-case letters, digits and dashes"
    elif name == "VIDEOGEN_CONFIRM_ABOVE":
        message = "must be an amount in USD such as 10"
    elif name == "VIDEOGEN_RECORD":
        message = "must be true or false"
    shown = "" if "TOKEN" in name or "KEY" in name else f", not {_mask_wrong_address(str(value))[:60]!r}"
    return f"{name}: {message.removeprefix('Value error, ')}{shown}"


def _mask_wrong_address(value: str) -> str:
    """Return the address without any part that may be secret, also where it is not the place for a secret."""
    if "://" not in value:
        return value
    return re.sub(r"[?#].*", "?…", re.sub(r"://[^:@/?#]*@", "://***@", mask_secrets(value)), flags=re.DOTALL)
