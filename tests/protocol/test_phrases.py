"""The server's sentences: each is found again by its code, and the page has it in every language."""

from __future__ import annotations

import re

import pytest

from gateway.door.refusals import STATUSES
from gateway.site import PAGE
from protocol.process.settings import ROOT
from protocol.wire.browser import CLOSE_CODES
from protocol.wire.phrases import PHRASES, coded, phrase

ENTRY = re.compile(r'^ {2}"([\w.]+)":\s+"((?:[^"\\]|\\.)*)",$', re.MULTILINE)
LANGUAGES = [path.stem.removeprefix("told-") for path in sorted(PAGE.glob("told-*.js"))]


def names(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def catalogue(kind: str, language: str) -> dict[str, str]:
    return dict(ENTRY.findall((PAGE / f"{kind}-{language}.js").read_text(encoding="utf-8")))


@pytest.mark.parametrize("code", PHRASES)
def test_a_sentence_is_found_again_with_its_values(code: str) -> None:
    values = {name: f"a {name}, 1.5" for name in names(PHRASES[code])}
    assert coded(phrase(code, **values)) == {"code": code, "values": values}


def test_other_sentences_have_no_code() -> None:
    assert coded("") == coded("Something else.") == coded("stopped.") == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_every_sentence(language: str) -> None:
    told = catalogue("told", language)
    assert {key.removeprefix("told.") for key in told} == set(PHRASES)
    for code, text in PHRASES.items():
        assert names(told[f"told.{code}"]) <= names(text), code


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_knows_every_code_of_an_error(language: str) -> None:
    known = {key.removeprefix("error.") for key in catalogue("texts", language) if key.startswith("error.")}
    assert {*CLOSE_CODES, *STATUSES} <= known


def test_every_sentence_is_said_somewhere() -> None:
    folders = ("gateway", "gpu_worker", "protocol", "voice_worker")
    code = "\n".join(path.read_text() for name in folders for path in (ROOT / name).rglob("*.py"))
    said = set(re.findall(r'phrase\(\s*"(\w+)"', code)) | {"rate_held", "rate_too_slow"}
    said |= {name for name in PHRASES if name.startswith("outage_")}
    # These are written where a file's path stands before them.
    said |= {"picture_pixels", "picture_empty", "picture_damaged", "picture_unknown"}
    assert said == set(PHRASES)


def test_a_refused_picture_has_a_code() -> None:
    from PIL import Image

    from gateway.avatars.cropping import CropError, cut

    with pytest.raises(CropError) as refused:
        cut(Image.new("RGB", (20, 10)), (0, 0, 1, 1), 1.0)
    assert coded(str(refused.value))["code"] == "picture_part"
