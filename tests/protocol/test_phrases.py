"""The server's sentences: each is found again by its code, and the page has it in every language."""

from __future__ import annotations

import ast
import re

import pytest

from gateway.door.refusals import STATUSES
from gateway.site import PAGE
from protocol.process.settings import ROOT
from protocol.wire.browser import CLOSE_CODES
from protocol.wire.phrases import PHRASES, coded, phrase

ENTRY = re.compile(r'^ {2}"([\w.]+)":\s+"((?:[^"\\]|\\.)*)",$', re.MULTILINE)
LANGUAGES = [path.stem.removeprefix("told-") for path in sorted(PAGE.glob("told-*.js"))]


#: Sentences that the GPU worker writes out, each with an example.
SAID_BY_GPU_WORKER = {
    "failed_avatar_gone": "the avatar u-1 was removed, or never was",
    "failed_clip_frames": "a clip of 48 frames: this model takes 32",
    "failed_tokens": "30 audio tokens a frame, it must be 50 by this worker's --audio-margin",
    "no_avatar": "there is no avatar zoe; there are toy",
    "no_pose": "there is no pose zoe; there are toy",
}
#: Errors whose sentence the page shows, where their first argument is one of these codes, or `fatal` is set.
CODED_ERRORS: dict[str, tuple[str, ...]] = {
    "BrowserError": ("failed", "bad_option", "bad_message", "bad_audio"),
    "ClipError": (),
    "DecodeError": (),
    "SpeechError": (),
}


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
    folders = ("gateway", "audio_worker", "gpu_worker", "encoder_worker", "protocol", "voice_worker")
    code = "\n".join(path.read_text() for name in folders for path in (ROOT / name).rglob("*.py"))
    said = set(re.findall(r"phrase\(\s*[\"'](\w+)[\"']", code)) | {"rate_held", "rate_too_slow"}
    said |= {name for name in PHRASES if name.startswith("outage_")}
    said |= {"no_avatar", "no_pose"}  # by `_known_name`
    said |= set(SAID_BY_GPU_WORKER)
    said |= {"picture_format", "picture_raw", "picture_video"}  # by `pictures._FOREIGN`
    said |= {"picture_page", "picture_pointer"}  # by `file_damage`, which names files of weights too
    assert said == set(PHRASES)


def test_a_refused_picture_has_a_code() -> None:
    from PIL import Image

    from gateway.avatars.cropping import CropError, cut

    with pytest.raises(CropError) as refused:
        cut(Image.new("RGB", (20, 10)), (0, 0, 1, 1), 1.0)
    assert coded(str(refused.value))["code"] == "picture_part"


@pytest.mark.parametrize(("code", "text"), SAID_BY_GPU_WORKER.items())
def test_the_gpu_workers_sentences_have_codes(code: str, text: str) -> None:
    assert coded(text)["code"] == code
    pattern = re.sub(r"\\{\w+\\}", ".+?", re.escape(PHRASES[code]))
    sources = "".join(path.read_text() for path in (ROOT / "gpu_worker").rglob("*.py"))
    assert re.search(pattern, sources)


@pytest.mark.parametrize("folder", ["gateway", "audio_worker", "encoder_worker", "protocol"])
def test_what_ends_a_session_has_a_code(folder: str) -> None:
    without = []
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text()
        phrases = set(re.findall(r"(\w+) = phrase\(", text))
        for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
            if (said := _sentence_of(call)) is not None and not _is_coded(said, phrases):
                without.append(f"{path.name}:{call.lineno}")
    assert without == []


def _sentence_of(call: ast.Call) -> ast.expr | None:
    """The sentence of an error that ends a session, which the page shows behind its own words."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    codes = CODED_ERRORS.get(name)
    if codes is None:
        return None
    if name == "BrowserError":
        first = call.args[0]
        return call.args[-1] if isinstance(first, ast.Constant) and first.value in codes else None
    fatal = name == "SpeechError" or any(keyword.arg == "fatal" for keyword in call.keywords)
    return call.args[0] if fatal else None


def _is_coded(said: ast.expr, phrases: set[str]) -> bool:
    if isinstance(said, ast.Call):
        return isinstance(said.func, ast.Name) and said.func.id == "phrase"
    # A variable with a phrase, or the reason that a stage gave, which is coded there.
    return (isinstance(said, ast.Name) and said.id in phrases) or ast.unparse(said) == "failed.reason"
