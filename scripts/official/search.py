"""Files of the model that this machine has: in folders of the official layout and in the Hub's cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from protocol.model.file_damage import damage_error
from protocol.process.settings import ROOT
from protocol.process.settings.places import state_dir
from scripts.official.catalogue import ACCELERATED, PLAIN, REFERENCE, ModelPart, Variant, parts_of

#: The folder of weights in the official layout.
WEIGHTS = "pretrained_weights"
#: Files that tell a folder of weights.
_TELLING = (*ACCELERATED.denoiser.places, *PLAIN.denoiser.places, *REFERENCE.places)
#: Where a checkout of the official repository usually lies.
CHECKOUTS = (".", "echomimic_v2", "../echomimic_v2")


@dataclass
class Found:
    """What a search found.

    Attributes:
        variant: the accelerated or the plain model.
        files: by part. The others are `missing`.
        missing: parts that are nowhere.
        damaged: sentences about files that cannot be used.
    """

    variant: Variant
    files: dict[ModelPart, Path] = field(default_factory=dict)
    missing: list[ModelPart] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def weights_in(folder: Path) -> Path:
    """The folder of weights below a checkout, which need not exist, or the folder itself if it is that."""
    is_it = folder.name == WEIGHTS or any((folder / name).is_file() for name in _TELLING)
    return folder if is_it and not (folder / WEIGHTS).is_dir() else folder / WEIGHTS


def usual_folders(env: Mapping[str, str]) -> list[Path]:
    """Folders of weights that are searched in any case: checkouts nearby, then the own downloads."""
    checkouts = [place / checkout for place in (Path.cwd(), ROOT) for checkout in CHECKOUTS]
    folders = [(checkout / WEIGHTS).resolve() for checkout in checkouts]
    return [*dict.fromkeys(folder for folder in folders if folder.is_dir()), own_folder(env)]


def hub_home(env: Mapping[str, str]) -> Path:
    """The Hub's own folder, as huggingface_hub finds it: HF_HOME, else `huggingface` in the user's cache."""
    cache = env.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    named = env.get("HF_HOME") or os.path.join(cache, "huggingface")
    home = Path(os.path.expandvars(os.path.expanduser(named)))
    return home if home.is_absolute() else state_dir(env)  # a user without a home


def own_folder(env: Mapping[str, str]) -> Path:
    """The folder that downloads go to without `--model-dir`: on the disk that the user gave to the Hub."""
    return hub_home(env) / "echomimic-live" / WEIGHTS


def hub_cache(env: Mapping[str, str]) -> Path:
    """The Hub's cache of files: HF_HUB_CACHE, else `hub` in its folder."""
    named = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(named))) if named else hub_home(env) / "hub"


def search(folders: Sequence[Path], cache: Path, *, small_decoder: bool) -> Found:
    """Look for every part, in the folders first and then in the Hub's cache.

    The first folder with a denoiser decides between the accelerated and the plain model.

    Args:
        folders: of weights, in the official layout.
        cache: of the Hub.
        small_decoder: whether the small decoder is needed.
    """
    found = Found(_variant_in(folders, cache))
    for part in parts_of(found.variant, small_decoder=small_decoder):
        for path in _candidates(part, folders, cache):
            damage = damage_error(path)
            if damage is None:
                found.files[part] = path
                break
            found.damaged.append(damage)
        else:
            found.missing.append(part)
    return found


def _variant_in(folders: Sequence[Path], cache: Path) -> Variant:
    for folder in folders:
        for variant in (ACCELERATED, PLAIN):
            if any((folder / place).is_file() for place in variant.denoiser.places):
                return variant
    for variant in (ACCELERATED, PLAIN):
        if next(_cached(variant.denoiser, cache), None) is not None:
            return variant
    return ACCELERATED


def _candidates(part: ModelPart, folders: Iterable[Path], cache: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for place in part.places if (path := folder / place).is_file())
    yield from _cached(part, cache)


def _cached(part: ModelPart, cache: Path) -> Iterator[Path]:
    """The part's file in each snapshot of the Hub's cache, that of its main branch first."""
    repository = cache / f"models--{part.repository.replace('/', '--')}"
    try:
        main = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        main = ""
    snapshots = sorted(repository.glob("snapshots/*"), key=lambda path: (path.name != main, path.name))
    yield from (path for snapshot in snapshots if (path := snapshot / part.name).is_file())
