"""protocol/asyncapi.yaml: it is what the code says, and what a real gateway says and takes fits it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from protocol.wire.browser import BrowserError
from protocol.wire.controls import parse_control
from scripts.asyncapi import FILE, text
from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import Running


@pytest.fixture(scope="module")
def messages() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["components"]["messages"]
    return found


def test_the_file_is_what_the_code_says() -> None:
    assert FILE.read_text() == text(), "run python -m scripts.asyncapi"


def fits(value: object, schema: dict[str, Any]) -> bool:
    """Whether a value is of a schema's type, as far as the file uses JSON Schema."""
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
        "object": (dict,), "array": (list,), "null": (type(None),),
    }  # fmt: skip
    if "const" in schema:
        return bool(value == schema["const"])
    if "enum" in schema:
        return value in schema["enum"]
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(isinstance(value, kinds[name]) for name in named)


@pytest.mark.process
async def test_what_a_gateway_says_fits(gateway: Running, messages: dict[str, Any]) -> None:
    async with client_v2(gateway) as client:
        await client.speak(noise(1.0))
        await client.ws.send('{"type":"flush"}')
        await client.until(lambda c: any(text["type"] == "idle" for text in c.texts), 10)
        await client.ws.send('{"type":"interrupt"}')
        await client.until(lambda c: any(text["type"] == "interrupted" for text in c.texts))
        await client.ws.send('{"type":"hello"}')  # a second one ends the session
        await client.closed()
    seen = {text["type"] for text in client.texts}
    assert seen >= {"ready", "status", "speech_started", "speech_ended", "idle", "interrupted", "error"}
    for said in client.texts:
        properties = messages[said["type"]]["payload"]["properties"]
        assert said.keys() <= properties.keys(), said
        for name, value in said.items():
            assert fits(value, properties[name]), (said["type"], name, value)


@pytest.mark.parametrize("kind", ["hello", "options", "shown", "flush", "interrupt", "say"])
def test_what_the_file_lets_a_client_say_is_taken(messages: dict[str, Any], kind: str) -> None:
    examples: dict[str, object] = {"string": "a", "integer": 1, "array": ["h264"]}

    def example(schema: dict[str, Any]) -> object:
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("type") == "object":
            return {name: example(inner) for name, inner in schema["properties"].items()}
        return schema.get("const", examples.get(schema.get("type", "")))

    payload = messages[kind]["payload"]
    assert parse_control(json.dumps(example(payload))) is not None


def test_a_wrong_type_is_refused(messages: dict[str, Any]) -> None:
    for name, schema in messages["hello"]["payload"]["properties"].items():
        if name != "type":
            wrong = "x" if schema.get("type") == "array" else ["x"]
            with pytest.raises(BrowserError):
                parse_control(json.dumps({"type": "hello", name: wrong}))
