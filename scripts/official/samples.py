"""The official sample portrait and pose: those of a checkout, or those that are fetched from its repository.

Its pose folders are pickles. They are checked against the sum that git has for the whole folder, and a
process of its own converts them (`scripts.convert_pose`).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from protocol.process.logs import first_line

#: The official repository's commit that was read, and its files' address.
COMMIT = "a312dec05ec7f9b3e0e2c2802e4a1a5d3788cfb3"
RAW = f"https://raw.githubusercontent.com/antgroup/echomimic_v2/{COMMIT}"
PAGE = f"https://github.com/antgroup/echomimic_v2/tree/{COMMIT}/assets/halfbody_demo"

#: The portrait and the pose of its first example (`test_cases` in configs/prompts/infer_acc.yaml).
PORTRAIT = "assets/halfbody_demo/refimag/natural_bk_openhand/0014.png"
POSE = "assets/halfbody_demo/pose/01"
#: Frames of the pose: 0.npy, 1.npy, …
POSE_FRAMES = 336
#: Git's names of the portrait's content and of the pose's folder at that commit.
PORTRAIT_SHA1 = "742f8949fab5848b141ae870e5e0cfd7a14d10b2"
POSE_SHA1 = "ff1ee9513508963b9f70fa85be8d946e7dae327f"
#: Bytes of both, for people.
SAMPLE_BYTES = 2_400_000

_THREADS = 8
_TIMEOUT = 20.0


@dataclass(frozen=True)
class Samples:
    """A portrait, and a folder of the pose's frames."""

    portrait: Path
    pose: Path


def find_samples(checkouts: Iterable[Path]) -> Samples | None:
    """The samples of the first folder that holds both."""
    for checkout in checkouts:
        samples = Samples(checkout / PORTRAIT, checkout / POSE)
        if samples.portrait.is_file() and (samples.pose / "0.npy").is_file():
            return samples
    return None


def fetch_samples(checkout: Path, raw: str = RAW) -> Samples:
    """Fetch both into `checkout`, in the official layout.

    Args:
        checkout: the folder, made if it is not there.
        raw: address of the repository's files.

    Raises:
        OSError: a file cannot be fetched or written, or its content is another one.
    """
    from huggingface_hub import get_session  # proxies count, and so does HF_HUB_OFFLINE

    def get(name: str) -> bytes:
        try:
            answer = get_session().get(f"{raw}/{name}", timeout=_TIMEOUT, follow_redirects=True)
            answer.raise_for_status()
        except Exception as error:  # of either of the client's HTTP libraries
            raise OSError(f"{raw}: {first_line(error)}") from error
        return bytes(answer.content)

    portrait = get(PORTRAIT)
    if git_sha1("blob", portrait) != PORTRAIT_SHA1:
        raise OSError(f"{raw}/{PORTRAIT}: another content than git's sum says")
    frames = _frames(get)
    if folder_sha1(frames) != POSE_SHA1:
        raise OSError(f"{raw}/{POSE}: another content than git's sum says")
    samples = Samples(checkout / PORTRAIT, checkout / POSE)
    samples.portrait.parent.mkdir(parents=True, exist_ok=True)
    samples.portrait.write_bytes(portrait)
    fresh = samples.pose.with_name(samples.pose.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, content in frames.items():
        (fresh / name).write_bytes(content)
    shutil.rmtree(samples.pose, ignore_errors=True)
    fresh.replace(samples.pose)
    return samples


def _frames(get: Callable[[str], bytes]) -> dict[str, bytes]:
    names = [f"{number}.npy" for number in range(POSE_FRAMES)]
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            contents = list(pool.map(lambda name: get(f"{POSE}/{name}"), names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return dict(zip(names, contents, strict=True))


def git_sha1(kind: str, content: bytes) -> str:
    """The name that git gives an object of this kind ("blob" or "tree")."""
    return hashlib.sha1(
        b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False
    ).hexdigest()


def folder_sha1(files: dict[str, bytes]) -> str:
    """The name that git gives a folder of plain files, by their names."""
    entries = (
        b"100644 %s\0" % name.encode() + bytes.fromhex(git_sha1("blob", files[name]))
        for name in sorted(files)
    )
    return git_sha1("tree", b"".join(entries))
