"""The imports of the code, lazy ones included, form no cycle."""

import ast
from pathlib import PurePath

from tests.support.source_code import parse_modules


def read_imports() -> dict[str, set[str]]:
    """Return the modules that each module imports anywhere, but for the type checker."""
    trees = {
        ".".join(PurePath(path).with_suffix("").parts).removesuffix(".__init__"): tree
        for path, tree in parse_modules().items()
    }
    return {name: _find_imports(tree, set(trees)) - {name} for name, tree in trees.items()}


def _find_imports(tree: ast.Module, names: set[str]) -> set[str]:
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{each.name}" for each in node.names}
            found |= inner & names or {node.module}
    return found & names


def find_cycles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that import each other."""
    reach = {name: _reach(name, imports) for name in imports}
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in imports}
    return [set(group) for group in groups if group]


def _reach(name: str, imports: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        new = imports[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert find_cycles(read_imports()) == []


def test_a_cycle_is_found() -> None:
    assert find_cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
