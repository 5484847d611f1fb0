"""Size, functions, annotation and repeated lines of Python files."""

from __future__ import annotations

import ast
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

#: A line repeats when it lies in a run of this many lines that stands somewhere else too.
RUN = 6


@dataclass(frozen=True)
class PythonFile:
    """One parsed file."""

    path: Path
    text: str
    tree: ast.Module


@dataclass
class CodeFigures:
    """The figures of one package.

    Attributes:
        files: Number of Python files.
        lines: Lines of those files, blank ones and comments included.
        code: Lines without blank ones, comments and docstrings.
        lengths: Lines of each function from `def` to its end, the docstring included.
        annotated: Number of functions whose arguments and result are all annotated.
        commented: Lines inside functions that are a comment.
    """

    files: int = 0
    lines: int = 0
    code: int = 0
    lengths: list[int] = field(default_factory=list)
    annotated: int = 0
    commented: int = 0

    def add(self, other: CodeFigures) -> None:
        """Add the figures of another package to these."""
        self.files += other.files
        self.lines += other.lines
        self.code += other.code
        self.lengths += other.lengths
        self.annotated += other.annotated
        self.commented += other.commented


def read_python(paths: Iterable[Path]) -> list[PythonFile]:
    """Parse files.

    Raises:
        SyntaxError: If a file is not Python.
    """
    files = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        files.append(PythonFile(path, text, ast.parse(text, filename=str(path))))
    return files


def measure_code(files: Sequence[PythonFile]) -> CodeFigures:
    """Measure the files of one package."""
    figures = CodeFigures(files=len(files))
    for file in files:
        lines = file.text.splitlines()
        figures.lines += len(lines)
        figures.code += _code_lines(file)
        inside: set[int] = set()
        for function in functions(file.tree):
            end = function.end_lineno or function.lineno
            figures.lengths.append(end - function.lineno + 1)
            figures.annotated += is_annotated(function)
            inside.update(range(function.lineno, end + 1))
        figures.commented += sum(lines[number - 1].lstrip().startswith("#") for number in inside)
    return figures


def functions(tree: ast.Module) -> Iterator[Function]:
    """All functions and methods of a module, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_annotated(function: Function) -> bool:
    """Whether all arguments but `self` and `cls` are annotated, and (not in `__init__`) the result."""
    given = function.args
    arguments = [*given.posonlyargs, *given.args]
    if arguments and arguments[0].arg in {"self", "cls"}:
        arguments = arguments[1:]
    arguments += [*given.kwonlyargs, *(one for one in (given.vararg, given.kwarg) if one)]
    if not all(argument.annotation for argument in arguments):
        return False
    return function.returns is not None or function.name == "__init__"


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Every string that stands as a statement: docstrings, and strings below constants and attributes."""
    for node in ast.walk(tree):
        if (text := _text_statement(node)) is not None:
            yield text


def _text_statement(node: ast.AST) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value.value if isinstance(node.value.value, str) else None
    return None


def _code_lines(file: PythonFile) -> int:
    """Count the lines that are not blank, not a comment and not in a docstring."""
    texts = {
        number
        for node in ast.walk(file.tree)
        if isinstance(node, ast.stmt) and _text_statement(node) is not None
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sum(
        number not in texts and line.strip() != "" and not line.lstrip().startswith("#")
        for number, line in enumerate(file.text.splitlines(), 1)
    )


def repeated_lines(files: Sequence[PythonFile]) -> int:
    """Count the lines that lie in a run of `RUN` equal lines which stands in a second place.

    Blank lines, comments, docstrings, imports and lines of punctuation alone are passed over. White space
    at both ends of a line does not count.
    """
    places: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    kept = [_telling_lines(file) for file in files]
    for number, lines in enumerate(kept):
        for start in range(len(lines) - RUN + 1):
            run = "\n".join(text for _, text in lines[start : start + RUN])
            places[hashlib.sha256(run.encode()).digest()].append((number, start))
    repeated = {
        (number, kept[number][start + offset][0])
        for found in places.values()
        if len(found) > 1
        for number, start in found
        for offset in range(RUN)
    }
    return len(repeated)


def _telling_lines(file: PythonFile) -> list[tuple[int, str]]:
    """Line numbers and stripped lines that say something."""
    silent: set[int] = set()
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.stmt):
            continue
        if _text_statement(node) is not None or isinstance(node, ast.Import | ast.ImportFrom):
            silent.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return [
        (number, line.strip())
        for number, line in enumerate(file.text.splitlines(), 1)
        if number not in silent and any(map(str.isalnum, line)) and not line.lstrip().startswith("#")
    ]


def quantile(values: Sequence[int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed (0 for no values)."""
    if not values:
        return 0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
