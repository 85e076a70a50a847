"""`videogen settings`: what applies, and where it comes from."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from videogen.cli.main import main
from videogen.settings import get_variable_names, mask_secrets, read_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without any variable of ours."""
    for name in get_variable_names().values():
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str | None]]:
    assert main(["settings", "--json"]) == 0
    told: dict[str, dict[str, str | None]] = json.loads(capsys.readouterr().out)
    return told


def test_every_setting_has_a_value_or_none_and_an_origin(capsys: pytest.CaptureFixture[str]) -> None:
    """Also what another setting or the registry decides."""
    told = shown(capsys)
    assert list(told) == list(get_variable_names().values())
    assert told["VIDEOGEN_OUT"] == {"value": "out", "from": "default"}
    assert told["VIDEO_GENERATOR_DURATION_BUFFER"] == {"value": "1.25", "from": "registry"}
    assert told["VIDEOGEN_JOURNAL_URL"]["value"] == f"sqlite:///{Path('out/journal.db').absolute()}"
    assert str(told["VIDEOGEN_PROVIDER"]["from"]).startswith("default: REPLICATE_API_TOKEN is not set")


def test_the_environment_is_said_to_be_the_origin(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of a variable that is set to something; an own registry decides what is its own."""
    own = tmp_path / "mine.toml"
    own.write_text("defaults = { duration_buffer = 1.5 }\n")
    environment.setenv("VIDEOGEN_REGISTRY", str(own))
    environment.setenv("VIDEOGEN_OUT", "")
    told = shown(capsys)
    assert told["VIDEOGEN_REGISTRY"] == {"value": str(own), "from": "environment"}
    assert told["VIDEO_GENERATOR_DURATION_BUFFER"] == {"value": "1.5", "from": "registry"}
    assert told["VIDEOGEN_OUT"]["from"] == "default"


def test_yes_and_no_are_shown_as_they_are_set(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anything else is refused, and the content of a key that is set in place of its path is not quoted."""
    assert shown(capsys)["VIDEOGEN_RECORD"] == {"value": "true", "from": "default"}
    environment.setenv("VIDEOGEN_RECORD", "no")
    assert shown(capsys)["VIDEOGEN_RECORD"] == {"value": "false", "from": "environment"}
    environment.setenv("VIDEOGEN_RECORD", "maybe")
    assert main(["settings"]) == 2
    assert capsys.readouterr().err == "error: VIDEOGEN_RECORD: must be true or false, not 'maybe'\n"


def test_no_secret_is_shown(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Tokens and passwords, in the table, as JSON, and when a value is refused."""
    environment.setenv("REPLICATE_API_TOKEN", "hidden")
    environment.setenv("VIDEOGEN_GATEWAY_TOKEN", "hidden")
    environment.setenv("VIDEOGEN_JOURNAL_URL", "postgresql+psycopg://films:hidden@db/films")
    for arguments in (["settings"], ["settings", "--json"]):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        assert ("hidden" in said, said.count("***")) == (False, 3)
    environment.setenv("REPLICATE_BASE_URL", "ftp://films:hidden@films")
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert ("hidden" in said, "ftp://films:***@films" in said) == (False, True)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql+psycopg://me:p@s/s@db:5432/x", "postgresql+psycopg://me:***@db:5432/x"),
        (
            "postgresql://db/x?user=me&password=p&sslmode=require",
            "postgresql://db/x?user=me&password=***&sslmode=require",
        ),
        ("https://films.example/?token=t", "https://films.example/?token=***"),
        ("sqlite:////srv/films:old@2/journal.db", "sqlite:////srv/films:old@2/journal.db"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_only_what_is_secret_in_an_address_is_masked(address: str, expected: str) -> None:
    assert mask_secrets(address) == expected


@pytest.mark.parametrize("variable", ["REPLICATE_BASE_URL", "VIDEOGEN_GATEWAY_URL"])
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:99999", "port from 1 to 65535"),
        ("http://127.0.0.1:0", "port from 1 to 65535"),
        ("http://127.0.0.1:abc", "port from 1 to 65535"),
        ("http://127.0.0.1:-1", "port from 1 to 65535"),
        ("http://[::1]:80x", "port from 1 to 65535"),
        ("https://[::1", "name a host"),
        ("https://[films]/", "name a host"),
        ("https://", "name a host"),
        ("https:///v1", "name a host"),
        ("https://:8474", "name a host"),
        ("https://xn--0.com", "name a host"),
        ("https://exa\u200bmple.com", "blanks or control characters"),
        ("https://films.example/\x9b31m", "blanks or control characters"),
        ("https://films example", "blanks or control characters"),
        ("films.example", "begin with http:// or https://"),
        ("ftp://films.example", "begin with http:// or https://"),
    ],
)
def test_an_address_that_nobody_can_connect_to_is_said(
    variable: str, url: str, says: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its variable, with what would be right, before anything connects; on one line that no terminal obeys."""
    environment.setenv(variable, url)
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {variable}: must ")
    assert says in said
    assert said.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8473",
        "https://films.example:",
        "http://[::1]:8474/api/",
        "https://fílms.example",
    ],
)
def test_an_address_that_is_one_is_taken(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REPLICATE_BASE_URL", url)
    assert main(["settings"]) == 0


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://LOCALHOST:80", "http://localhost"),
        ("https://API.replicate.com:443/", "https://api.replicate.com"),
        ("https://api.replicate.com/v1", "https://api.replicate.com"),
        ("https://api.replicate.com//v1//", "https://api.replicate.com"),
        ("https://films.example:80/API/v1/", "https://films.example:80/API"),
        ("http://[::1]:80/", "http://[::1]"),
        ("https://films.example:", "https://films.example"),
        ("http://127.0.0.1:8473", "http://127.0.0.1:8473"),
    ],
)
def test_spellings_of_one_address_are_one_account(url: str, same: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REPLICATE_BASE_URL", url)
    assert read_settings().replicate_base_url == same


@pytest.mark.parametrize(
    "url",
    [
        "https://hidden@films.example",
        "https://me:hidden@films.example",
        "https://me:hid@hidden@films.example",
        "https://films.example/?key=1&x=hidden",
        "https://films.example/#hidden",
    ],
)
def test_a_secret_in_the_address_is_refused_without_it(
    url: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address names the account in the journal and in messages."""
    environment.setenv("REPLICATE_BASE_URL", url)
    assert main(["settings"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: REPLICATE_BASE_URL: must not have a user name, password, query or fragment")
    assert "hidden" not in said


def test_help_imports_no_settings_and_no_types(tmp_path: Path) -> None:
    """So it takes no 0.4 s of CPU: pydantic alone is a half of that."""
    script = tmp_path / "help.py"
    script.write_text(
        "import sys\nfrom videogen.cli.main import main\nmain(['--help'])\n"
        "print({'pydantic', 'prefect', 'sqlalchemy', 'httpx', 'av'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
