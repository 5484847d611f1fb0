"""The measures of the repository: counted by hand on small texts."""

import ast
from pathlib import Path

import pytest

from scripts.bench.host.house.__main__ import main, pages
from scripts.bench.host.house.code import PythonFile, measure_code, quantile, repeated_lines
from scripts.bench.host.house.english import habits, sentence_lengths

pytestmark = pytest.mark.slow

PAGE = """# A heading is no sentence

One two three four. Five `six seven` eight [nine ten](a.md)! It rose to 3.5 dB
on the next line.

| no | sentence |
|---|---|

- An item.
- Another one, e.g. this one

```sh
not counted at all
```
"""


def test_sentences_of_a_page_are_counted_in_words() -> None:
    assert sentence_lengths(PAGE) == [4, 6, 9, 2, 5]


def test_habits_pass_over_code() -> None:
    counted = habits(["Say what is; `what;` stays code.", "What else"])
    assert (counted.words, counted.what, counted.semicolons) == (8, 2, 1)


def test_functions_are_measured_with_nested_ones() -> None:
    text = "def f(a: int) -> int:\n    # why\n    def g(b):\n        return b\n    return g(a)\n"
    figures = measure_code([_file(text)])
    assert sorted(figures.lengths) == [2, 5]
    assert (figures.annotated, figures.commented, figures.lines) == (1, 1, 5)


def test_code_is_counted_without_comments_docstrings_and_blank_lines() -> None:
    text = '"""Two\nlines."""\n\n# why\nx = """a\nstring"""\n'
    figures = measure_code([_file(text)])
    assert (figures.lines, figures.code) == (6, 2)


def test_a_run_of_six_equal_lines_repeats_and_five_do_not() -> None:
    six = "\n".join(f"value_{i} = {i}" for i in range(6))
    five = "\n".join(f"value_{i} = {i}" for i in range(5))
    assert repeated_lines([_file(six), _file('"""Text."""\nimport os\n\n' + six + "\nother = 1")]) == 12
    assert repeated_lines([_file(five), _file(five)]) == 0


def test_quantile_is_a_value_that_occurs() -> None:
    assert [quantile([1, 2, 3, 100], share) for share in (0.5, 0.95, 1.0)] == [2, 100, 100]


def test_lab_pages_are_not_held_to_the_bounds() -> None:
    found = pages(
        map(Path, ["README.md", "docs/a.md", "docs/lab/b.md", "docs/media/c.png", "demo/NOTICE.md"])
    )
    assert [path.as_posix() for paths in found.values() for path in paths] == ["README.md", "docs/a.md"]


def test_this_tree_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--markdown"]) == 0
    printed = capsys.readouterr().out
    assert "| all that ships |" in printed and "| together |" in printed


def _file(text: str) -> PythonFile:
    return PythonFile(Path("x.py"), text, ast.parse(text))
