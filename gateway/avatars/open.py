"""Opens the folder of own avatars when the gateway starts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.avatars.given import GivenAvatars
from gateway.avatars.preview import PreviewMaker
from gateway.avatars.service import OwnAvatars
from gateway.avatars.shelf import Shelf, ShelfError
from gateway.stages import StageBoard
from protocol.model.own_avatars import own_avatar_folder
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)


def open_own_avatars(
    settings: Settings,
    board: StageBoard,
    previews: PreviewMaker,
    has_room: Callable[[], bool],
    is_quiet: Callable[[], bool],
) -> OwnAvatars:
    """The own avatars of this user's runs. Without a folder nobody can bring any, and the log says why.

    Args:
        settings: the gateway's.
        board: the stages' state.
        previews: animates avatars.
        has_room: whether the stages could serve one session more.
        is_quiet: whether no session runs.
    """
    shelf = None
    if settings.own_avatars:
        try:
            shelf = Shelf(own_avatar_folder(settings), settings.own_avatars)
        except ShelfError as error:
            logger.warning("nobody can bring an avatar: %s", error)
    own = OwnAvatars(shelf, board, previews, has_room, settings.frames_a_clip)
    if settings.reference_image and not settings.passthrough:
        own.given = GivenAvatars(board, previews, own.preview_shape, is_quiet)
    return own
