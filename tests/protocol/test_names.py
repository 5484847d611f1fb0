"""One thing, one name: no two classes that ship share one, and a clip's path has a name for each step."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from protocol.process.settings import ROOT

SHIPPED = ("protocol", "gateway", "audio_worker", "gpu_worker", "encoder_worker", "scripts", "demo")


def shipped_trees() -> Iterator[tuple[str, ast.Module]]:
    """Each Python file that ships: its path from the root, and its syntax tree."""
    for package in SHIPPED:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _names_a_type(node: ast.AST) -> str | None:
    """The name that a class or a union of types gets here; None for everything else."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
        target, operator = node.targets[0], node.value.op
        if isinstance(target, ast.Name) and isinstance(operator, ast.BitOr) and target.id[0].isupper():
            return None if target.id.isupper() else target.id
    return None


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in shipped_trees():
        for node in ast.walk(tree):
            if (name := _names_a_type(node)) is not None:
                places[name.lstrip("_")].append(f"{file}:{getattr(node, 'lineno', 0)}")
    doubled = {name: where for name, where in places.items() if len(where) > 1}
    assert doubled == {}


def test_no_name_stands_for_two_types() -> None:
    """A short name of a type (`Samples = NDArray[np.float32]`) means the same wherever it is made."""
    meanings: dict[str, set[str]] = defaultdict(set)
    for _, tree in shipped_trees():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
                target = node.targets[0]
                if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper():
                    meanings[target.id].add(ast.unparse(node.value).replace("npt.", ""))
    assert "Samples" in meanings
    assert {name: types for name, types in meanings.items() if len(types) > 1} == {}


def test_nothing_is_named_submit() -> None:
    """Six methods of that name once stood on a clip's way; the steps have names of their own now."""
    found = [
        f"{file}:{node.lineno}"
        for file, tree in shipped_trees()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.strip("_") == "submit"
    ]
    assert found == []
