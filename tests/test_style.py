"""The names and the prose of the code stay those of the field. Reads source files only."""

import ast
import re
from collections.abc import Iterator, Mapping

from tests.support.source_code import parse_code, parse_modules

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
IRREGULAR_PARTICIPLES = {
    "spent", "told", "found", "kept", "begun", "left", "made", "written", "shown", "lost", "sent", "given", "heard",
}  # fmt: skip
NOT_PARTICIPLES = {"seed", "speed", "need", "embed", "feed"}
HEADLESS = re.compile(
    r"\b(who|what|whatever|whoever)\s+(is|was|are|were|has|had|have|does|do|comes?|came|sends?|runs?|reaches|makes?|wants?|"
    r"holds?|fails?|failed|lives?|waits?|stands?|may|can|could|cannot|would|asks?|gives?|goes|leaves?|watches|looks|excludes|"
    r"belongs|helps|follows|passes|remains)\b",
    re.IGNORECASE,
)
"""A clause without a head, such as "what was sent" for "the inputs that were sent"."""
EXCEPTIONS = {
    "upgrade": "the name that Alembic calls in each version of the schema",
    "main": "`__main__.main` is the entry point that catches an interruption of the imports of `cli.main.main`",
}
"""Names that several modules may have, with the reason."""


def is_participle(name: str) -> bool:
    first = name.strip("_").partition("_")[0]
    return first in IRREGULAR_PARTICIPLES or (first.endswith("ed") and first not in NOT_PARTICIPLES)


def is_property(node: FUNCTIONS) -> bool:
    return any("property" in ast.unparse(each) or "validator" in ast.unparse(each) for each in node.decorator_list)


def find_participles(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the functions that are named as if they were values: `delivered()` for `deliver()`."""
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and is_participle(node.name) and not is_property(node):
                yield f"{path}:{node.lineno} {node.name}"


def find_odd_docstrings(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the docstrings that begin with a question word, or have a clause without a head."""
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                first = " ".join(text.split("\n\n")[0].split())
                is_predicate = isinstance(node, FUNCTIONS) and not is_property(node) and first.startswith("Whether")
                if is_predicate or re.match(r"(What|Who|Where|How|Why)\b", first) or HEADLESS.search(first):
                    yield f"{path}:{getattr(node, 'lineno', 1)} {first[:90]}"


def find_homonyms(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the public classes and functions that have one name in several modules."""
    places: dict[str, list[str]] = {}
    for path, tree in modules.items():
        for node in tree.body:
            if isinstance(node, FUNCTIONS | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path)
    for name, paths in places.items():
        if len(paths) > 1 and name not in EXCEPTIONS:
            yield f"{name}: {', '.join(paths)}"


def find_prefect_strings(modules: Mapping[str, ast.Module]) -> Iterator[str]:
    """Yield the places outside `videogen.flows` that know a setting of Prefect."""
    for path, tree in modules.items():
        constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        if not path.startswith("videogen/flows/"):
            yield from (f"{path}:{node.lineno}" for node in constants if "PREFECT_" in str(node.value))


def test_functions_are_named_by_verbs() -> None:
    assert list(find_participles(parse_modules())) == []


def test_docstrings_are_sentences_with_a_head() -> None:
    assert list(find_odd_docstrings(parse_modules())) == []


def test_one_public_name_has_one_meaning() -> None:
    assert list(find_homonyms(parse_modules())) == []


def test_each_exception_is_still_needed() -> None:
    modules = parse_modules()
    names = [node.name for tree in modules.values() for node in tree.body if isinstance(node, FUNCTIONS)]
    assert [name for name in EXCEPTIONS if names.count(name) < 2] == []


def test_only_flows_knows_the_settings_of_prefect() -> None:
    assert list(find_prefect_strings(parse_modules())) == []


def test_the_checks_find_what_they_are_for() -> None:
    """As in the code before the rules were set."""
    old = {
        "videogen/old.py": parse_code('def delivered():\n    """What was sent."""\n    x = "PREFECT_HOME"\n'),
        "videogen/older.py": parse_code('def delivered():\n    """Return what is sent to the model."""\n'),
    }
    assert len(list(find_participles(old))) == 2
    assert len(list(find_odd_docstrings(old))) == 2
    assert list(find_homonyms(old)) == ["delivered: videogen/old.py, videogen/older.py"]
    assert list(find_prefect_strings(old)) == ["videogen/old.py:3"]
