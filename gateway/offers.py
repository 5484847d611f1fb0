"""What a client can have: the options of its session, and the catalogue that the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.avatars.alignment import is_installed
from gateway.avatars.framing import framing_of
from gateway.avatars.service import OwnAvatars
from gateway.core.audio_log import ClipShape
from gateway.core.options import SessionOptions
from gateway.door.guard import Grant
from gateway.recording import recording_problem
from gateway.stages import StageBoard
from gateway.thumbnails import Thumbnails
from protocol.process.settings import Settings
from protocol.process.voices import choose_voice
from protocol.wire.browser import BrowserError
from protocol.wire.clock import FRAME_RATES, FULL_RATE, SAMPLE_RATE, frames_of_clip
from protocol.wire.controls import Options
from protocol.wire.phrases import coded, phrase
from protocol.wire.video import JPEG

#: Sessions at once where no GPU worker measures: nothing is computed there.
UNMEASURED_SESSIONS = 4


class Offers:
    """The avatars, poses and rates that the stages have now."""

    def __init__(
        self, settings: Settings, board: StageBoard, thumbnails: Thumbnails, own_avatars: OwnAvatars
    ) -> None:
        self._settings = settings
        self._own_avatars = own_avatars
        self._board = board
        self._thumbnails = thumbnails
        self._voice_engine = choose_voice(settings).engine
        self._finds_faces = is_installed()
        #: The last known number, for a time without a GPU worker.
        self._measured = 0

    def resolve_options(self, options: Options, grant: Grant) -> SessionOptions:
        """Fill in the options that the client left open. Raises BrowserError if they cannot be had."""
        if not self._board.ready:
            why = ", ".join(f"{stage} is {state}" for stage, state in self._board.states().items())
            raise BrowserError("not_ready", f"try again soon: {why}")
        full = self._board.full_fps or FULL_RATE
        fps = min(options.fps or full, full)
        if options.fps is not None and options.fps not in {full, *FRAME_RATES} and options.fps < full:
            known = ", ".join(str(rate) for rate in sorted({full, *FRAME_RATES}) if rate <= full)
            raise BrowserError("bad_option", phrase("option_fps", fps=options.fps, known=known))
        width, height = self._board.size
        return SessionOptions(
            avatar=self._own_avatars.own_id(options.avatar, grant)
            or _known_avatar(options.avatar, self._board.avatars, grant),
            pose=_known_name("no_pose", options.pose, self._board.poses),
            shape=ClipShape(fps, frames_of_clip(fps, self._clip_frames)),
            sample_rate=options.sample_rate or self._settings.sample_rate,
            width=width,
            height=height,
            int16=options.pcm == "s16",
            codec=next((name for name in options.video or () if name in (JPEG, *self._board.codecs)), JPEG),
        )

    @property
    def _clip_frames(self) -> int:
        """Frames of a clip at 24 fps: the length that the GPU workers report, else that of the settings."""
        return self._board.clip_frames or self._settings.frames_a_clip

    def sessions(self) -> int:
        """Sessions that there can be at once: as many as the GPU workers have measured, or --max-sessions.

        The lower of the two counts. With --fps the rate is kept at any cost, and so is --max-sessions.
        """
        self._measured = self._board.sessions or self._measured
        asked = self._settings.max_sessions
        if not self._measured or (asked is not None and self._settings.fps is not None):
            return asked or UNMEASURED_SESSIONS
        return min(self._measured, self._settings.most_sessions)

    def catalogue(self, grant: Grant, notice: str) -> dict[str, object]:
        """The object of /avatars.json, as far as the rights of `grant` go."""
        width, height = self._board.size
        avatars = [name for name in self._board.avatars if grant.may_use(name)]
        own = self._own_avatars.catalogue(grant)
        warnings = self._own_avatars.warnings()
        kept = {each["id"]: each["name"] for each in own if each["kept"]}
        return {
            "avatars": [*avatars, *kept],
            "own_avatars": own,
            "own_avatars_most": self._own_avatars.most(grant),
            "warnings": warnings,
            "warning_phrases": {name: coded(text) for name, text in warnings.items()},
            "own_avatars_align": self._finds_faces,
            "framing": framing_of(self._board.model),
            "poses": self._board.poses,
            "names": {
                "avatars": {**_names_of(avatars, self._thumbnails.avatar_names), **kept},
                "poses": _names_of(self._board.poses, self._thumbnails.pose_names),
            },
            "fps": self._board.fps,
            "full_fps": self._board.full_fps,
            "clip_frames": self._clip_frames,
            "width": width,
            "height": height,
            "model": self._board.model,
            "notice": notice,
            "notice_phrase": coded(notice),
            "generated": self._settings.mark_generated,
            "record": not recording_problem(self._settings),
            "sample_rate": SAMPLE_RATE,
            "max_sessions": self.sessions(),
            "voice_engine": self._voice_engine,
        }


def _names_of(ids: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """Display names by id. A worker with other files may have an id that is not known here."""
    return {name: names.get(name, name) for name in ids}


def _known_avatar(asked: str | None, known: list[str], grant: Grant) -> str:
    """The avatar of a session. The first one that the token may use, where the client names none."""
    mine = [name for name in known if grant.may_use(name)]
    if asked in known and asked not in mine:
        raise BrowserError("forbidden", phrase("avatar_forbidden", name=repr(asked)))
    if known and not mine:
        raise BrowserError("forbidden", phrase("avatars_forbidden"))
    return _known_name("no_avatar", asked, mine)


def _known_name(refusal: str, asked: str | None, known: list[str]) -> str:
    if asked is None:
        return known[0] if known else "default"
    if asked not in known:
        listed = ", ".join(known[:20]) or "none"
        raise BrowserError("bad_option", phrase(refusal, name=repr(asked[:64]), known=listed))
    return asked
