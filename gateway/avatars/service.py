"""The addresses of people's own avatars. `protocol/SPEC.md` has their fields and answers."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path

from PIL import Image

from gateway.answers import HttpAnswer, json_answer, plain
from gateway.avatars.alignment import AUTO, Alignment, align, is_installed, target_of
from gateway.avatars.cropping import WHOLE, CropError, parse_crop
from gateway.avatars.fit import Fit, fit_of_frames
from gateway.avatars.given import GivenAvatars
from gateway.avatars.preview import SPEECH, PreviewError, PreviewMaker, PreviewShape
from gateway.avatars.reader import PictureReader, PictureRefused
from gateway.avatars.shelf import OwnAvatar, Shelf, ShelfError
from gateway.avatars.warning import warning_of
from gateway.door.guard import Grant
from gateway.request_body import BodyError
from gateway.stages import StageBoard
from protocol.model.assets import display_name
from protocol.model.own_avatars import OWN_ID
from protocol.wire.clock import FULL_RATE
from protocol.wire.phrases import coded, phrase

logger = logging.getLogger(__name__)

#: Bytes of an uploaded picture, and seconds within which they have to come.
MOST_UPLOAD, UPLOAD_SECONDS = 16 * 2**20, 60.0
#: Uploads at once. Each may wait for the one picture that is being decoded.
MOST_UPLOADS = 4
#: Previews that are kept, some 300 kB each.
MOST_PREVIEWS = 32
#: Seconds between two looks for avatars whose time is over.
TIDY_EVERY = 30.0
#: Characters of a name that is shown.
MOST_NAME = 40

#: Reads a request's body: at most so many bytes, within so many seconds.
BodyReader = Callable[[int, float], Awaitable[bytes]]

#: Tells where a picture's face is, and keeps nothing.
ALIGN = "/avatars/align"
NO_ROOM_NOW = phrase("avatars_busy")
NOT_HERE = phrase("avatars_gone")


class _NotTaken(Exception):
    """An upload ends with this answer."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__()
        self.answer = answer


class OwnAvatars:
    """Takes in, shows and removes own avatars."""

    def __init__(
        self,
        shelf: Shelf | None,
        board: StageBoard,
        previews: PreviewMaker,
        has_room: Callable[[], bool],
        clip_frames: int,
        reader: PictureReader | None = None,
    ) -> None:
        """Serve the avatars of a shelf.

        Args:
            shelf: where they are kept. None: nobody can bring any.
            board: the stages' state.
            previews: animates an avatar.
            has_room: whether the stages could serve one session more.
            clip_frames: frames of a clip at 24 fps, where no GPU worker says it.
            reader: decodes pictures.
        """
        self.shelf = shelf
        self._board = board
        self._previews = previews
        self._has_room = has_room
        self._clip_frames = clip_frames
        self._reader = reader or PictureReader()
        self._uploads = 0
        #: Measures the pictures of `--reference-image`, where there are some.
        self.given: GivenAvatars | None = None
        #: Animated previews by avatar, WebP, the newest last.
        self._films: dict[str, bytes] = {}

    def methods(self, path: str) -> tuple[str, ...]:
        """Methods besides GET that a path takes."""
        if self.shelf is None:
            return ()
        if path == "/avatars":
            return ("POST", "PUT")
        if path == ALIGN:
            return ("POST",)
        folder, _, rest = path.rpartition("/")
        if rest == "keep" and _own_id(folder):
            return ("POST",)
        return ("DELETE",) if _own_id(path) else ()

    async def run(self, files: Mapping[str, Path]) -> None:
        """Measure the operator's avatars, and remove avatars whose time is over, until it is cancelled.

        Args:
            files: pictures of the server's avatars, by id.
        """
        measuring = None if self.given is None else asyncio.create_task(self.given.measure(files))
        try:
            while True:
                await asyncio.sleep(TIDY_EVERY)
                if self.shelf is not None:
                    self._tidy(self.shelf)
        finally:
            if measuring is not None:
                measuring.cancel()

    def _tidy(self, shelf: Shelf) -> None:
        try:
            shelf.remove_expired()
        except OSError as error:
            logger.warning("an avatar whose time is over cannot be removed: %s", error)
        self._films = {name: film for name, film in self._films.items() if shelf.has(name)}

    async def change(
        self, method: str, path: str, fields: Mapping[str, str], grant: Grant, read_body: BodyReader
    ) -> HttpAnswer:
        """Answer a request with one of `methods`. The door has let it in."""
        assert self.shelf is not None
        try:
            if path == "/avatars":
                return await self._take_in(fields, grant, read_body)
            if path == ALIGN:
                return await self._tell_alignment(read_body)
            avatar = self.shelf.find(grant.owner, _own_id(path.removesuffix("/keep")))
            if avatar is None:
                return plain(HTTPStatus.NOT_FOUND, NOT_HERE)
            if method == "DELETE":
                self.shelf.remove(avatar)
                self._films.pop(avatar.id, None)
                return HttpAnswer(b"", status=HTTPStatus.NO_CONTENT)
            return json_answer(self.described(self.shelf.keep(grant.owner, avatar)))
        except _NotTaken as refusal:
            return refusal.answer
        except ShelfError as error:
            status = HTTPStatus.INSUFFICIENT_STORAGE if error.full else HTTPStatus.SERVICE_UNAVAILABLE
            return plain(status, f"The avatar cannot be kept: {error}.", why=str(error))

    async def show(self, path: str, grant: Grant) -> HttpAnswer | None:
        """Answer GET for a path below /avatars. None where it is no own avatar's."""
        if self.shelf is None:
            return None
        if path == "/avatars":
            return json_answer({"own_avatars": self.catalogue(grant), "own_avatars_most": self.most(grant)})
        folder, _, file = path.rpartition("/")
        avatar_id = _own_id(folder if file == "preview.webp" else path.removesuffix(".png"))
        if not avatar_id:
            return None
        avatar = self.shelf.find(grant.owner, avatar_id)
        if avatar is None:
            return plain(HTTPStatus.NOT_FOUND, NOT_HERE)
        if file == "preview.webp":
            return await self._film(avatar)
        picture = await asyncio.to_thread(self.shelf.picture(avatar).read_bytes)
        return HttpAnswer(picture, "image/png", cached=True)

    def own_id(self, asked: str | None, grant: Grant) -> str | None:
        """The id that a client asks for, if it is an avatar of its own."""
        found = self.shelf.find(grant.owner, asked) if self.shelf is not None and asked is not None else None
        return None if found is None else found.id

    def catalogue(self, grant: Grant) -> list[dict[str, object]]:
        """Everything that belongs to the holder of these rights."""
        return [] if self.shelf is None else [self.described(each) for each in self.shelf.of(grant.owner)]

    def warnings(self) -> dict[str, str]:
        """Warnings about the server's avatars, by id."""
        return {} if self.given is None else self.given.warnings

    def most(self, grant: Grant) -> int:
        """Avatars that the holder of these rights may keep."""
        return 0 if self.shelf is None or "avatars" not in grant.scopes else self.shelf.each

    def described(self, avatar: OwnAvatar) -> dict[str, object]:
        """The fields that a client learns of an avatar of its own."""
        warning = warning_of(avatar.fit, self._board.model)
        return {
            "id": avatar.id,
            "name": avatar.name,
            "kept": avatar.kept,
            "until": avatar.until,
            "fit": avatar.fit or None,
            "warning": warning,
            "warning_phrase": coded(warning),
            "picture": f"avatars/{avatar.id}.png",
            "preview": f"avatars/{avatar.id}/preview.webp",
        }

    # ---- taking one in

    async def _take_in(self, fields: Mapping[str, str], grant: Grant, read_body: BodyReader) -> HttpAnswer:
        assert self.shelf is not None
        asked = fields.get("crop")
        try:
            crop = WHOLE if asked in (None, AUTO) else parse_crop(asked)
        except CropError as error:
            return plain(HTTPStatus.BAD_REQUEST, f"{error}.")
        aligned: dict[str, object] = {}
        async with self._upload(read_body) as picture:
            if asked == AUTO:
                alignment = await self._align(picture)
                crop = alignment.crop or WHOLE
                aligned = alignment.fields()
            pixels = await self._reader.read(picture, crop, self._ratio)
        name = display_name(fields.get("name", ""))[:MOST_NAME] or "My avatar"
        avatar = await asyncio.to_thread(self.shelf.add, grant.owner, name, pixels)
        await self._measure(avatar)
        avatar = self.shelf.find(grant.owner, avatar.id) or avatar
        if fields.get("keep") == "1":
            avatar = self.shelf.keep(grant.owner, avatar)
        return json_answer({**self.described(avatar), **aligned}, HTTPStatus.CREATED)

    async def _tell_alignment(self, read_body: BodyReader) -> HttpAnswer:
        """The part that a picture's face chooses. Nothing of the picture is kept."""
        async with self._upload(read_body) as picture:
            return json_answer((await self._align(picture)).fields())

    async def _align(self, picture: bytes) -> Alignment:
        sight = await self._reader.find_faces(picture) if is_installed() else None
        return align(sight, target_of(self._board.model), self._ratio)

    @property
    def _ratio(self) -> float:
        """Width over height of the frames."""
        width, height = self._board.size
        return width / height if height else 1.0

    @asynccontextmanager
    async def _upload(self, read_body: BodyReader) -> AsyncIterator[bytes]:
        """A picture that is sent, while it is read. Raises _NotTaken."""
        if self._uploads >= MOST_UPLOADS:
            raise _NotTaken(plain(HTTPStatus.SERVICE_UNAVAILABLE, NO_ROOM_NOW, [("Retry-After", "2")]))
        self._uploads += 1
        try:
            picture = await read_body(MOST_UPLOAD, UPLOAD_SECONDS)
            if not picture:
                raise _NotTaken(plain(HTTPStatus.BAD_REQUEST, phrase("body_none")))
            yield picture
        except BodyError as error:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if error.too_long else HTTPStatus.REQUEST_TIMEOUT
            raise _NotTaken(_not_taken(status, error)) from error
        except PictureRefused as error:
            raise _NotTaken(_not_taken(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, error)) from error
        finally:
            self._uploads -= 1

    async def _measure(self, avatar: OwnAvatar) -> None:
        """Animate the avatar, and note how much of it the model kept. Without room, nothing is noted."""
        assert self.shelf is not None
        if avatar.id in self._films or not self._board.ready or not self._has_room():
            return
        try:
            frames = await self._previews.make(avatar.id, self.preview_shape())
        except PreviewError as error:
            logger.warning("no preview of the avatar %s: %s", avatar.id, error)
            return
        picture = self.shelf.picture(avatar)
        fit, film = await asyncio.to_thread(_fit_and_film, picture.read_bytes, frames)
        if self.shelf.has(avatar.id):  # else it was removed meanwhile
            self.shelf.note_fit(avatar, asdict(fit))
        level = logging.INFO if fit.carried else logging.WARNING
        told = f"{fit.edges:.2f} of its edges kept, {fit.psnr:.1f} dB"
        warning = warning_of(asdict(fit), self._board.model)
        logger.log(level, "own avatar %s: %s. %s", avatar.id, told, warning)
        self._films[avatar.id] = film
        while len(self._films) > MOST_PREVIEWS:
            del self._films[next(iter(self._films))]

    def preview_shape(self) -> PreviewShape:
        """The shape of a preview that the stages can make now."""
        clip_frames = self._board.clip_frames or self._clip_frames
        pose = next(iter(self._board.poses), "default")
        return PreviewShape(self._board.full_fps or FULL_RATE, clip_frames, pose)

    async def _film(self, avatar: OwnAvatar) -> HttpAnswer:
        if avatar.id not in self._films:
            await self._measure(avatar)
        film = self._films.get(avatar.id)
        if film is None:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, phrase("avatars_no_preview"))
        return HttpAnswer(film, "image/webp")


def _not_taken(status: HTTPStatus, error: Exception) -> HttpAnswer:
    return plain(status, f"The picture was not taken: {error}.", why=str(error))


def _own_id(path: str) -> str:
    """The id in `/avatars/ID`, or nothing."""
    name = path.removeprefix("/avatars/")
    return name if name != path and OWN_ID.fullmatch(name) else ""


def _fit_and_film(read_picture: Callable[[], bytes], frames: list[bytes]) -> tuple[Fit, bytes]:
    """How much the frames keep of the picture, and an animated WebP of them that goes on for ever."""
    # Every second one: that is enough to judge by.
    with Image.open(io.BytesIO(read_picture()), formats=["PNG"]) as picture:
        fit = fit_of_frames(picture.convert("RGB"), frames[::2])
    shown = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in frames[::2]]
    made = io.BytesIO()
    each = round(1000 * SPEECH / len(shown))  # milliseconds
    shown[0].save(
        made, "WEBP", save_all=True, append_images=shown[1:], duration=each, loop=0, quality=80, method=0
    )
    return fit, made.getvalue()
