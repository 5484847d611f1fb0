"""The documentation: its links lead somewhere, its map and its table of dependencies are complete."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from protocol.process.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks, by patterns; every file below the root where there is no git."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", *patterns], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in HEADING.findall(text)}


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it: lower case, punctuation gone, a hyphen for each space."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file or to no heading."""
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    return broken


def test_relative_links_lead_to_files_and_headings() -> None:
    broken = {
        page.relative_to(ROOT).as_posix(): links for page in tracked("*.md") if (links := broken_links(page))
    }
    assert not broken


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading: one\n[a](#a-heading-one) [b](gone.md) [c](#nowhere)\n```\n[d](no.md)\n```\n"
    )
    assert broken_links(page) == ["gone.md", "#nowhere"]


PACKAGES = (
    "protocol", "gateway", "audio_worker", "gpu_worker", "encoder_worker", "voice_worker",
    "scripts", "demo/factory", "clients/python", "clients/js",
)  # fmt: skip
SECTION = re.compile(r"^### `([^`]+)/`.*?(?=^### |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| (?:\*\*)?`([^`]+)`", re.MULTILINE)


def modules() -> set[str]:
    """Python modules but `__init__`, shell scripts, the page's JavaScript, and the folders that hold them."""
    found = {path.relative_to(ROOT) for package in PACKAGES for path in tracked(package)}
    files = {path for path in found if path.suffix in {".py", ".sh", ".js"} and path.name != "__init__.py"}
    folders = {parent.as_posix() for path in files for parent in path.parents} - {
        ".",
        "demo",
        "clients",
        *PACKAGES,
    }
    return {path.as_posix() for path in files} | {f"{folder}/" for folder in folders}


def test_the_map_has_a_line_for_each_module_and_no_other() -> None:
    text = (ROOT / "docs/structures.md").read_text(encoding="utf-8")
    lines = [
        f"{section.group(1)}/{row}"
        for section in SECTION.finditer(text)
        for row in ROW.findall(section.group())
    ]
    assert len(lines) == len(set(lines)), "a module has two lines"
    assert modules() - set(lines) == set(), "without a line in docs/structures.md"
    assert set(lines) - modules() == set(), "in docs/structures.md, and not in the tree"


def test_the_table_of_dependencies_names_each_of_them() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(one for extra in extras for one in extra)]
    names = {re.split(r"[\[<>=~!; ]", one, maxsplit=1)[0].lower() for one in wanted} - {project["name"]}
    for manifest in tracked("*package.json"):
        described = json.loads(manifest.read_text(encoding="utf-8"))
        names |= {*described.get("dependencies", {}), *described.get("devDependencies", {})}
    text = (ROOT / "docs/decisions.md").read_text(encoding="utf-8").lower()
    tables = text[text.index("## dependencies") : text.index("## kept by hand")]
    rows = re.findall(r"^\| ([^|]+) \|", tables, re.MULTILINE)
    listed = {name.strip() for row in rows for name in row.split(",")} - {"package", "---"}
    assert names - listed == set(), "without a row in docs/decisions.md"
    assert listed - names == set(), "in docs/decisions.md, and not a dependency"


STEP = re.compile(r"^\| `([^`]+\.(?:py|js))` `([^`]+)` \|", re.MULTILINE)


def qualified_names(tree: ast.Module) -> set[str]:
    """The functions and methods of a module, as `function` and `Class.method`."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        names |= {
            f"{owner.name}.{node.name}"
            for node in owner.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
    return names


def test_the_functions_on_a_clips_way_exist() -> None:
    steps = STEP.findall((ROOT / "docs/structures.md").read_text(encoding="utf-8"))
    gone = []
    for path, name in steps:
        text = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
        if path.endswith(".py"):
            known = name in qualified_names(ast.parse(text))
        else:
            known = re.search(rf"^\s*(?:async )?{re.escape(name)}\(.*\) \{{$", text, re.MULTILINE) is not None
        if not known:
            gone.append(f"{path} {name}")
    assert len(steps) > 20
    assert gone == []


def test_pages_that_the_code_names_exist() -> None:
    gone = [
        f"{source.relative_to(ROOT)}: {page}"
        for source in tracked("*.py", "*.sh", "*.js", "*.toml", "*.yaml", ".ci/*")
        for page in re.findall(r"(?<![\w/])docs/[\w/-]+\.md\b", source.read_text(encoding="utf-8"))
        if not source.is_relative_to(ROOT / "tests") and not (ROOT / page).is_file()
    ]
    assert gone == []


@pytest.mark.parametrize("page", ["README.md", "docs/guide/serving.md"])
def test_flags_in_the_tables_are_settings(page: str) -> None:
    rows = re.findall(r"^\| (`--[^|]+) \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    named = {name.replace("-", "_") for row in rows for name in re.findall(r"`--(?:no-)?([\w-]+)", row)}
    assert len(named) > 10
    assert named - {field.name for field in fields(Settings)} == set()
