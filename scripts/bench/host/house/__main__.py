"""Measure the repository itself: size, functions, annotation, English and repeated lines.

    python -m scripts.bench.host.house                  this tree
    python -m scripts.bench.host.house --tree PATH      another checkout
    python -m scripts.bench.host.house --markdown       tables to paste into docs/lab

A tree is measured by the files that git tracks in it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from scripts.bench.host.house.code import (
    CodeFigures,
    PythonFile,
    docstrings,
    measure_code,
    quantile,
    read_python,
    repeated_lines,
)
from scripts.bench.host.house.english import Habits, habits, sentence_lengths

ROOT = Path(__file__).resolve().parents[4]

#: Packages that ship, in the order of a clip's way; `tests` is measured beside them.
SHIPPED = (
    "protocol",
    "gateway",
    "audio_worker",
    "gpu_worker",
    "encoder_worker",
    "voice_worker",
    "scripts",
    "demo",
    "clients",
)
#: Pages that are held to the bounds of the English; docs/lab is not.
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "protocol/SPEC.md", "docs", "clients")
PAGE_CODE = (".js", ".mjs", ".css", ".html")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="scripts.bench.host.house",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to measure (default: this one)")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    args = parser.parse_args(argv)
    try:
        tracked = tracked_files(args.tree)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"house: cannot list the files of {args.tree}: {error}", file=sys.stderr)
        return 1
    for rows in (
        code_table(args.tree, tracked),
        english_table(args.tree, tracked),
        docs_table(args.tree, tracked),
    ):
        print("\n".join(_markdown(rows) if args.markdown else _aligned(rows)), end="\n\n")
    return 0


def tracked_files(tree: Path) -> list[Path]:
    """The files that git tracks in a checkout, relative to it."""
    listed = subprocess.run(
        ["git", "-C", str(tree), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    return sorted(path for name in listed.split("\0") if name and (tree / (path := Path(name))).is_file())


def pages(tracked: Iterable[Path]) -> dict[str, list[Path]]:
    """Markdown pages by group of `PAGES`, without docs/lab."""
    found: dict[str, list[Path]] = {group: [] for group in PAGES}
    for path in tracked:
        if path.suffix == ".md" and not path.is_relative_to("docs/lab"):
            for group in PAGES:
                if path.is_relative_to(group):
                    found[group].append(path)
    return found


def python_files(tree: Path, tracked: Iterable[Path], package: str) -> list[PythonFile]:
    """The parsed Python files of a package."""
    return read_python(tree / path for path in tracked if path.suffix == ".py" and path.parts[0] == package)


def code_table(tree: Path, tracked: Sequence[Path]) -> list[list[str]]:
    """One row a package: files, lines, function lengths, annotation, repeated lines."""
    rows = [
        ["package", "files", "lines", "code", "page's lines", "functions", "median", "p95", "max",
         "annotated", "comments in functions", "repeated lines"],
    ]  # fmt: skip
    total, everything, page_total = CodeFigures(), [], 0
    for package in SHIPPED:
        files = python_files(tree, tracked, package)
        figures = measure_code(files)
        page = sum(
            len((tree / path).read_text(encoding="utf-8").splitlines())
            for path in tracked
            if path.parts[0] == package and path.suffix in PAGE_CODE
        )
        rows.append(_code_row(package, figures, page, repeated_lines(files)))
        total.add(figures)
        everything += files
        page_total += page
    rows.append(_code_row("all that ships", total, page_total, repeated_lines(everything)))
    tests = python_files(tree, tracked, "tests")
    rows.append(_code_row("tests", measure_code(tests), 0, repeated_lines(tests)))
    return rows


def _code_row(name: str, figures: CodeFigures, page: int, repeated: int) -> list[str]:
    count = len(figures.lengths)
    inside = sum(figures.lengths)
    return [
        name,
        f"{figures.files:,}",
        f"{figures.lines:,}",
        f"{figures.code:,}",
        f"{page:,}",
        f"{count:,}",
        *(str(quantile(figures.lengths, share)) for share in (0.5, 0.95, 1.0)),
        f"{figures.annotated / max(1, count):.1%}",
        f"{figures.commented / max(1, inside):.1%}",
        f"{repeated:,}",
    ]


def english_table(tree: Path, tracked: Sequence[Path]) -> list[list[str]]:
    """One row a package: words of docstrings, and the two habits in 1,000 of them."""
    rows = [["docstrings of", "words", '"what" in 1,000', "semicolons in 1,000"]]
    counts = []
    for package in (*SHIPPED, "tests"):
        files = python_files(tree, tracked, package)
        counts.append(habits(text for file in files for text in docstrings(file.tree)))
        rows.append(_english_row(package, counts[-1]))
    shipped = counts[:-1]
    total = Habits(
        words=sum(one.words for one in shipped),
        what=sum(one.what for one in shipped),
        semicolons=sum(one.semicolons for one in shipped),
    )
    rows.insert(-1, _english_row("all that ships", total))
    return rows


def _english_row(name: str, counted: Habits) -> list[str]:
    return [name, f"{counted.words:,}", f"{counted.what_per_1000:.1f}", f"{counted.semicolons_per_1000:.1f}"]


def docs_table(tree: Path, tracked: Sequence[Path]) -> list[list[str]]:
    """One row a group of pages: sentences and their lengths in words."""
    rows = [["sentences of", "number", "median", "p95", "longest"]]
    together: list[int] = []
    for group, paths in pages(tracked).items():
        lengths = [
            length for path in paths for length in sentence_lengths((tree / path).read_text(encoding="utf-8"))
        ]
        together += lengths
        rows.append(_sentences_row(group, lengths))
    rows.append(_sentences_row("together", together))
    return rows


def _sentences_row(name: str, lengths: Sequence[int]) -> list[str]:
    return [name, f"{len(lengths):,}", *(str(quantile(lengths, share)) for share in (0.5, 0.95, 1.0))]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    bars = ["|" + "|".join(["---"] + ["---:"] * (len(rows[0]) - 1)) + "|"]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], *bars, *lines[1:]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
