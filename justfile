# The one door: `uv run just` lists what there is.

# where the tests are that need no server, browser or media; those beside them that do are marked `integration`
unit := "tests/test_*.py tests/docs tests/job tests/registry tests/planning tests/results tests/execution tests/providers tests/storage tests/references tests/reports tests/cli"

_list:
    @just --list --unsorted

# all that has to hold before a change lands
check: lint types test

# format, then say what is wrong
lint:
    uv run ruff format .
    uv run ruff check .
    uv run lint-imports

types:
    uv run mypy

# the tests; arguments go to pytest: `just test tests/registry -k duration`
test *arguments:
    uv run pytest {{arguments}}

# the quick tests, which need no server, browser or media
test-unit *arguments:
    uv run pytest -m "not long and not integration" {{unit}} {{arguments}}

# eight scenes on the emulator: no account, no cost
demo:
    uv run python -m flows.generate examples/lighthouse.toml

# record the cassettes anew: from Replicate when REPLICATE_API_TOKEN is set, else from the emulator
record:
    uv run pytest tests/providers/test_cassettes.py --record-mode=rewrite --timeout=1200 --numprocesses=0

# the live page's pictures in docs/images anew, and more of them in FOLDER to be looked at
pictures folder:
    uv run python -m tests.browser.pictures {{folder}}

# rewrite what is generated from the types: schemas/*.json and the table in docs/environment.md
generate:
    uv run python -m tools.generate_docs

# everything that is measured, in under ten minutes, into docs/benchmarks.md; `just bench --full` measures more
bench *arguments:
    uv run python -m benchmarks.bench {{arguments}}

# jobs on hostile servers, killed and run again, judged by the servers' ledgers: `just chaos --first 1 --seeds 200`
chaos *arguments:
    uv run python -m benchmarks.chaos {{arguments}}

# CHANGELOG.md from the fragments in changelog.d
changelog:
    uv run towncrier build --yes
