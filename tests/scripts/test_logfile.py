"""The log's files: rotated, bounded, closed to others; only the project's own are removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scripts.run import logfile
from scripts.run.logfile import MARK, LogFile, LogLimits


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def lines_of(folder: Path) -> list[str]:
    """All lines that the folder's logs hold but for the mark, in the order in which they were written."""
    by_number = sorted(folder.iterdir(), key=lambda path: (path.name[:19], int(path.stem[20:] or 0)))
    texts = [path.read_bytes() for path in by_number]
    assert all(text.startswith(MARK) for text in texts)
    return [line for text in texts for line in text.removeprefix(MARK).decode().splitlines()]


def test_a_large_log_goes_on_in_a_new_file(tmp_path: Path) -> None:
    log = LogFile(tmp_path, LogLimits(file_bytes=2000))
    wanted = [f"line {number} of many" for number in range(500)]
    for line in wanted:
        log.write_line(line)
        assert log.path.stat().st_size <= 2000
    log.close()
    assert 4 < len(names(tmp_path)) < 10
    assert lines_of(tmp_path) == wanted
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_the_oldest_files_go(tmp_path: Path) -> None:
    log = LogFile(tmp_path, LogLimits(file_bytes=1000, files=3))
    for number in range(500):
        log.write_line(f"line {number}")
    log.close()
    assert len(names(tmp_path)) == 3
    kept = lines_of(tmp_path)
    assert kept == [f"line {number}" for number in range(500 - len(kept), 500)]


def test_files_of_many_days_go_and_a_run_of_days_begins_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = LogFile(tmp_path, LogLimits())
    old.write_line("old")
    old.close()
    os.utime(old.path, (0, time.time() - 31 * 86400))
    log = LogFile(tmp_path, LogLimits())
    assert names(tmp_path) == {log.path.name}
    log.write_line("today")
    first = log.path
    monkeypatch.setattr(logfile, "NEW_FILE_EVERY", 0.0)
    log.write_line("tomorrow")
    log.close()
    assert log.path != first
    assert lines_of(tmp_path) == ["today", "tomorrow"]


def test_only_the_projects_own_files_are_removed(tmp_path: Path) -> None:
    for name in ("run_20260101-000000.log", "notes.txt", "run_20260101-000000.log.gz"):
        (tmp_path / name).write_text("mine")
    marked = tmp_path / "elsewhere.log"
    marked.write_bytes(MARK)
    (tmp_path / "run_20260101-000001.log").symlink_to(marked)
    (tmp_path / "run_20260101-000002.log").mkdir()
    os.mkfifo(tmp_path / "run_20260101-000003.log")
    in_use = LogFile(tmp_path, LogLimits())  # a run that goes on beside this one
    in_use.write_line("still here")
    before = names(tmp_path)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0), follow_symlinks=False)
    log = LogFile(tmp_path, LogLimits(files=1, days=1))
    log.close()
    in_use.close()
    assert names(tmp_path) == before | {log.path.name}


def test_a_line_longer_than_a_file_is_written_whole(tmp_path: Path) -> None:
    log = LogFile(tmp_path, LogLimits(file_bytes=1000))
    for line in ("a", "b" * 5000, "c"):
        log.write_line(line)
    log.close()
    assert lines_of(tmp_path) == ["a", "b" * 5000, "c"]
