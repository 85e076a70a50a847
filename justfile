# The one door: `uv run just` lists what there is.

# where the tests are that need no server, browser or media; those beside them that do are marked `integration`
unit := "tests/test_*.py tests/docs tests/job tests/registry tests/planning tests/results tests/execution tests/providers tests/storage tests/references tests/reports tests/cli"

# the code that `mutate` breaks, by names of mutants; the modules and the tests are in pyproject.toml
mutants := "'videogen.planning.*' 'videogen.registry.durations.*' 'videogen.registry.conditions.*' 'videogen.registry.lengths.*' 'videogen.registry.prices.*' 'videogen.results.*' 'videogen.journal.*' 'videogen.errors.x_is_retryable*'"

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

# break the code in small ways and see whether the unit tests notice: the mutants that survived, then the score by module
mutate *arguments:
    rm -rf mutants && mkdir mutants
    uv run mutmut run {{arguments}} {{mutants}} > mutants/log.txt || { tail -50 mutants/log.txt; false; }
    @uv run mutmut results --all true | sort | awk -F ': ' '$2 == "not checked" { next } \
        { sub(/^ +/, ""); module = $1; sub(/[.][^.]*$/, "", module); all[module]++; all["together"]++ } \
        $2 == "killed" || $2 == "timeout" { killed[module]++; killed["together"]++; next } { print } \
        END { for (name in all) printf "%5.1f %%  %4d of %4d  %s\n", 100 * killed[name] / all[name], killed[name], all[name], name | "sort -k5" }'

# eight scenes on the emulator: no account, no cost
demo:
    uv run python -m flows.generate examples/lighthouse.toml

# record the cassettes anew: from Replicate when REPLICATE_API_TOKEN is set, else from the emulator
record:
    uv run pytest tests/providers/test_cassettes.py --record-mode=rewrite --timeout=1200 --numprocesses=0

# the pictures of the live page and the review room in docs/images anew, and more of them in FOLDER to be looked at
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
