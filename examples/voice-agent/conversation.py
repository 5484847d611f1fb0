"""One conversation: an utterance becomes words, the words an answer, and the face speaks the answer."""

from __future__ import annotations

import asyncio
import logging
import re
import time

from listener import Samples
from openai_api import OpenAiApi

from echomimic_live_client import Say, Session

logger = logging.getLogger("voice-agent")

PROMPT = (
    "You speak with somebody, and your words are spoken aloud. Answer in one to three short sentences,"
    " without lists and without markup."
)
#: An end of a sentence in a text that still grows.
END = re.compile(r"(?<=[.!?。！？])\s+")


class Conversation:
    """The history, and the answer that is under way. `interrupt` ends that."""

    def __init__(self, face: Session, api: OpenAiApi) -> None:
        self._face, self._api = face, api
        self._history = [{"role": "system", "content": PROMPT}]
        self._answering: asyncio.Task[None] | None = None
        self._said: list[Say] = []

    @property
    def busy(self) -> bool:
        """Whether an answer is made or spoken."""
        return self._answering is not None and not self._answering.done()

    def answer(self, utterance: Samples) -> None:
        """Begin to answer an utterance, float32 (n,) at 16 kHz."""
        self._answering = asyncio.create_task(self._answer(utterance))

    async def interrupt(self) -> None:
        """Somebody speaks over the face: it falls silent, and the history has only what was said."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)
        await self._face.interrupt()
        self._remember(" …")

    async def _answer(self, utterance: Samples) -> None:
        try:
            began = time.monotonic()
            words = await self._api.transcribe(utterance)
            logger.info("heard %r after %.2f s", words, time.monotonic() - began)
            if not words:
                return
            self._history.append({"role": "user", "content": words})
            self._said = []
            text = ""
            async for piece in self._api.chat(self._history):
                *sentences, text = END.split(text + piece)
                self._said += [self._face.say(sentence) for sentence in sentences if sentence.strip()]
            if text.strip():
                self._said.append(self._face.say(text))
            for say in self._said:
                await say
            self._remember("")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            logger.error("no answer: %s", error)

    def _remember(self, mark: str) -> None:
        """Write the sentences that were spoken into the history, the one that was cut off with `mark`."""
        begun = [say for say in self._said if say.started_pts is not None or say.outcome == "spoken"]
        cut_off = [say for say in begun if say.outcome != "spoken"]
        if begun:
            content = " ".join(say.text for say in begun) + (mark if cut_off else "")
            self._history.append({"role": "assistant", "content": content})
        self._said = []
