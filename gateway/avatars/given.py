"""Measures the pictures of `--reference-image` when a run is ready, and warns of those that it smears."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from gateway.avatars.fit import Fit, fit_of_frames
from gateway.avatars.preview import PreviewError, PreviewMaker, PreviewShape
from gateway.avatars.warning import warning_of
from gateway.stages import StageBoard
from protocol.model.assets import AssetError
from protocol.model.pictures import read_picture

logger = logging.getLogger(__name__)

#: Pictures that are measured at most. Each takes what a second of a session takes.
MOST = 16
#: Seconds between two looks for a quiet moment.
LOOK_EVERY = 1.0


class GivenAvatars:
    """Warnings about the avatars that the operator named.

    Attributes:
        warnings: by avatar, for those that the model does not carry.
    """

    def __init__(
        self,
        board: StageBoard,
        previews: PreviewMaker,
        shape: Callable[[], PreviewShape],
        is_quiet: Callable[[], bool],
    ) -> None:
        """Nothing is measured yet.

        Args:
            board: the stages' state.
            previews: animates an avatar.
            shape: of a preview.
            is_quiet: whether no session runs.
        """
        self._board = board
        self._previews = previews
        self._shape = shape
        self._is_quiet = is_quiet
        self.warnings: dict[str, str] = {}

    async def measure(self, files: Mapping[str, Path]) -> None:
        """Measure the first avatars of `files` (pictures by id) once, while nobody speaks."""
        for name, file in list(files.items())[:MOST]:
            while not (self._board.ready and self._is_quiet()):
                await asyncio.sleep(LOOK_EVERY)
            if name not in self._board.avatars:  # the GPU worker has said why
                continue
            try:
                frames = await self._previews.make(name, self._shape())
                fit = await asyncio.to_thread(_fit_of_file, file, self._board.size, frames)
            except (PreviewError, AssetError) as error:
                logger.warning("avatar %s was not measured: %s", name, error)
                continue
            self._tell(name, fit)

    def _tell(self, name: str, fit: Fit) -> None:
        told = f"avatar {name}: {fit.edges:.2f} of its edges kept, {fit.psnr:.1f} dB"
        if warning := warning_of(asdict(fit), self._board.model):
            self.warnings[name] = warning
            logger.warning("%s. %s", told, warning)
        else:
            logger.info("%s", told)


def _fit_of_file(file: Path, size: tuple[int, int], frames: Sequence[bytes]) -> Fit:
    picture: Image.Image = read_picture(file, size)
    return fit_of_frames(picture, frames)
