"""`--model official`: find the files, ask once, fetch the missing ones, and name the configuration.

tell     the files that are missing, their sizes, the free disk, the speed of a CPU
ask      one question for the licences
fetch    each file, with a bar
link     everything in the official layout, with its configuration
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TextIO

from protocol.model.config import ACCELERATED_SAMPLING, PLAIN_SAMPLING
from protocol.process.settings import Settings
from protocol.process.settings.places import official_config
from scripts.official.catalogue import ACCELERATED, TAESD_PARTS
from scripts.official.download import already_here, fetch
from scripts.official.errors import OfficialError, disk_sentence
from scripts.official.folder import write_folder
from scripts.official.hub import Hub, RemoteFile
from scripts.official.licences import LicenceMemory, licence_lines
from scripts.official.machine import ask_outlook, cpu_warning, memory_warning
from scripts.official.progress import Progress, size_text
from scripts.official.samples import PAGE, SAMPLE_BYTES, Samples, fetch_samples, find_samples
from scripts.official.search import WEIGHTS, Found, hub_cache, own_folder, search, usual_folders, weights_in

#: Free bytes that a download leaves on the disk.
LEFT_FREE = 200 * 2**20


class Preparation:
    """Makes the official model ready, and tells about it on a stream.

    Args:
        settings: of the run.
        env: the environment.
        answers: where an answer is read from. None or no terminal: nobody can be asked.
        console: where everything is told.
    """

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str] = os.environ,
        answers: TextIO | None = None,
        console: TextIO | None = None,
    ) -> None:
        self._settings = settings
        self._env = env
        self._answers = sys.stdin if answers is None else answers
        self._console = sys.stderr if console is None else console
        given = settings.model_dir
        self._target = own_folder(env) if given is None else weights_in(given)
        self._folders = [*([self._target] if given is not None else []), *usual_folders(env)]

    def run(self) -> Settings:
        """The settings with the model's files, fetched where they were missing.

        Raises:
            OfficialError: the model cannot be had. The text says why and what to do.
        """
        found = search(self._folders, hub_cache(self._env), small_decoder=self._small_decoder != "no")
        if self._small_decoder == "with the others" and set(found.missing) <= set(TAESD_PARTS):
            found.missing.clear()  # all that is needed is here, so the network is not asked
        for damage in found.damaged:
            self._say(f"not used: {damage}")
        samples = self._samples_here()
        if found.missing:
            self._fetch(found)
            samples = samples or self._fetch_samples()
        try:
            config = write_folder(self._env, self._settings.model_dir, found.variant, found.files)
        except OSError as error:
            folder = official_config(self._env, self._settings.model_dir).parent
            raise OfficialError(disk_sentence(error, folder)) from error
        self._tell_use(found)
        return self._with_samples(dataclasses.replace(self._settings, config=config), samples)

    @property
    def _small_decoder(self) -> Literal["yes", "with the others", "no"]:
        """Whether the small decoder is fetched. --quality auto may use it, and does without it too."""
        if self._settings.decoder == "tiny":
            return "yes"
        picks = self._settings.decoder is None and self._settings.quality == "auto"
        return "with the others" if picks else "no"

    # ------------------------------------------------------------------ the weights

    def _fetch(self, found: Found) -> None:
        hub = Hub()
        if hub.offline:
            names = ", ".join(f"{part.name} of {part.repository}" for part in found.missing)
            raise OfficialError(
                f"HF_HUB_OFFLINE is set and {len(found.missing)} files are not on this machine: {names};"
                " unset it to fetch them, or name a folder that has them with --model-dir"
            )
        self._say(f"looking up {len(found.missing)} missing files at {hub.endpoint} …")
        files = [hub.look_up(part) for part in found.missing]
        self._tell_plan(hub, files)
        self._warn_of_machine(found)
        self._ask(hub, list(dict.fromkeys(part.repository for part in found.missing)))
        try:
            with Progress(sum(file.size for file in files), self._console) as progress:
                for file in files:
                    target = self._target / file.part.place
                    progress.begin(file.part.place, already_here(target, file))
                    fetch(hub, file, target, progress.add)
                    found.files[file.part] = target
        except KeyboardInterrupt:
            self._say("stopped; what has come stays, and the next start goes on")
            raise
        found.missing.clear()

    def _tell_plan(self, hub: Hub, files: Sequence[RemoteFile]) -> None:
        """Tell sizes and free disk. Raises OfficialError where the disk is too small."""
        here = sum(already_here(self._target / file.part.place, file) for file in files)
        to_come = sum(file.size for file in files) - here
        free = _free_bytes(self._target)
        self._say(f"missing of the official weights, from {hub.endpoint}:")
        for file in files:
            self._say(f"  {size_text(file.size):>8}  {file.part.place} ({file.part.repository})")
        resumed = f" ({size_text(here)} of them are here from an earlier start)" if here else ""
        whole = size_text(here + to_come)
        self._say(f"{whole} in all{resumed}, to {self._target}, where {size_text(free)} are free")
        if to_come + LEFT_FREE > free:
            raise OfficialError(
                f"{self._target}: {size_text(to_come)} are to come and {size_text(free)} are free;"
                " make space, or name a folder on another disk with --model-dir (or HF_HOME)"
            )

    def _warn_of_machine(self, found: Found) -> None:
        outlook = ask_outlook()
        if outlook is None:
            return
        small = memory_warning(outlook)
        if small is not None:
            self._say(small)
        if outlook.gpu is not None or not outlook.flops:
            return
        steps, guidance = ACCELERATED_SAMPLING if found.variant is ACCELERATED else PLAIN_SAMPLING
        settings = self._settings
        self._say(cpu_warning(outlook, settings.steps or steps, settings.cfg or guidance))

    def _ask(self, hub: Hub, repositories: list[str]) -> None:
        """Ask for the licences that are still open. Raises OfficialError for a no, or where nobody can."""
        memory = LicenceMemory(self._env)
        still_open = memory.still_open(repositories)
        if not still_open:
            return
        self._say("the files have these licences:")
        for line in licence_lines(still_open, hub.endpoint):
            self._say(line)
        if not self._settings.accept_licences and not self._agreed():
            raise OfficialError("nothing was fetched, because the licences were not accepted")
        try:
            memory.accept(still_open)
        except OSError as error:
            self._say(f"the answer is not remembered: {memory.path}: {error.strerror}")

    def _agreed(self) -> bool:
        if not self._answers.isatty():
            raise OfficialError(
                "nobody can be asked here, as there is no terminal; read the licences and start again with"
                " --accept-licences"
            )
        self._console.write("fetch the files and accept their licences? [y/N] ")
        self._console.flush()
        return self._answers.readline().strip().lower() in ("y", "yes")

    def _tell_use(self, found: Found) -> None:
        variant = found.variant
        self._say(f"official weights: {variant.name} model, {found.files[variant.denoiser]}")
        if variant is not ACCELERATED:
            self._say(
                "this is the plain model: 30 steps with guidance 2.5 unless --steps and --cfg say otherwise,"
                " ten times the work of the accelerated one; --model-dir NEW_FOLDER fetches that"
            )

    # ------------------------------------------------------------------ the samples

    @property
    def _wants_samples(self) -> bool:
        return not (self._settings.reference_image and self._settings.pose_dir)

    @property
    def _samples_folder(self) -> Path:
        """A folder in the official layout: that of `--model-dir`, unless it is one of weights alone."""
        return (self._target if self._target.name == WEIGHTS else own_folder(self._env)).parent

    def _samples_here(self) -> Samples | None:
        if not self._wants_samples:
            return None
        return find_samples(folder.parent for folder in self._folders)

    def _fetch_samples(self) -> Samples | None:
        """Fetch the official sample portrait and pose. A failure is told, and the bundled ones serve."""
        if not self._wants_samples:
            return None
        self._say(f"fetching the official sample portrait and pose ({size_text(SAMPLE_BYTES)}) …")
        try:
            return fetch_samples(self._samples_folder)
        except OSError as error:
            self._say(
                f"the official sample portrait and pose could not be fetched ({error}); they are at {PAGE}"
            )
            return None

    def _with_samples(self, settings: Settings, samples: Samples | None) -> Settings:
        """The settings with the samples in the place of avatars and poses that the user did not name."""
        if not self._wants_samples:
            return settings
        if samples is None:
            self._say("the bundled avatars and poses serve; --reference-image and --pose-dir name others")
            return settings
        return dataclasses.replace(
            settings,
            reference_image=settings.reference_image or (samples.portrait,),
            pose_dir=settings.pose_dir or (samples.pose,),
        )

    def _say(self, line: str) -> None:
        self._console.write(f"{line}\n")
        self._console.flush()


def _free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder that may not exist yet."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free
