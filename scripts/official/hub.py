"""The Hugging Face Hub: facts about files, and their contents from any byte on.

The client is huggingface_hub, so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT and the
variables of proxies count as everywhere. It is imported here and nowhere else, as it takes most of a second.

Its own `hf_hub_download` throws away what has come when it is interrupted (version 2), and compares no sums.
So this takes the two steps that it is made of: the metadata of a file, and a GET from a byte on, with its
retries.
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from scripts.official.catalogue import ModelPart
from scripts.official.errors import OfficialError, hub_sentence, kinds_of

#: Bytes of one write. The client's own 10 MB would be lost at each break, and hide slow progress.
CHUNK_BYTES = 2**20

#: Tries without a single new byte before a file is given up, and seconds between two.
TRIES = 5
RETRY_AFTER = 1.0

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of the Hub as it is now.

    Attributes:
        part: the part of the model.
        url: of exactly this version.
        size: in bytes.
        sum: the Hub's ETag: SHA-256 of a large file, git's SHA-1 of a small one, or a mirror's own words.
    """

    part: ModelPart
    url: str
    size: int
    sum: str

    @property
    def is_sha256(self) -> bool:
        """Whether `sum` is the SHA-256 of the content."""
        return _SHA256.fullmatch(self.sum) is not None

    @property
    def is_git_sha1(self) -> bool:
        """Whether `sum` is the SHA-1 by which git names the content."""
        return _SHA1.fullmatch(self.sum) is not None


class Appendable(Protocol):
    """An open file, as far as a download uses it."""

    def write(self, data: bytes, /) -> int: ...

    def tell(self) -> int: ...

    def seek(self, position: int, /) -> int: ...

    def truncate(self) -> int: ...


class Hub:
    """The Hub, or its mirror that HF_ENDPOINT names."""

    def __init__(self) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read as it is imported
        import huggingface_hub
        from huggingface_hub import constants, file_download

        self._files = file_download
        self._headers = huggingface_hub.utils.build_hf_headers  # type: ignore[attr-defined]
        self._url = huggingface_hub.hf_hub_url
        self.endpoint: str = constants.ENDPOINT
        self.offline: bool = constants.HF_HUB_OFFLINE
        constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it repeats each retry
        self._commits: dict[str, str] = {}

    def look_up(self, part: ModelPart) -> RemoteFile:
        """Facts about a file. All files of a repository are those of one commit.

        Raises:
            OfficialError: the Hub cannot be reached, refuses the file or has none.
        """
        revision = self._commits.get(part.repository, "main")
        try:
            url = self._url(part.repository, part.name, revision=revision, endpoint=self.endpoint)
            facts = self._files.get_hf_file_metadata(url, endpoint=self.endpoint)
        except Exception as error:  # of the client and its HTTP library, which changes with its version
            raise OfficialError(hub_sentence(error, self.endpoint, part.repository, part.name)) from error
        if not facts.commit_hash or not facts.etag or facts.size is None:
            raise OfficialError(
                f"{self.endpoint} does not answer as the Hugging Face Hub does; see HF_ENDPOINT, the proxy,"
                " and whether this network asks for a login in a browser first"
            )
        self._commits.setdefault(part.repository, facts.commit_hash)
        exact = self._url(part.repository, part.name, revision=facts.commit_hash, endpoint=self.endpoint)
        return RemoteFile(part, exact, facts.size, facts.etag)

    def read(self, file: RemoteFile, into: Appendable) -> None:
        """Append the rest of a file's content to an open file. Breaks are retried while something comes.

        Args:
            file: from `look_up`.
            into: holds the beginning, or nothing, and stands at its end. It is emptied if the server can only
                send everything.

        Raises:
            OfficialError: the Hub fails for good.
            OSError: `into` cannot be written.
        """
        tries = 0
        while True:
            start = into.tell()
            try:
                self._get(file, into, start)
                return
            except OSError as error:
                if error.errno is not None:  # of the disk; those of the client have no number
                    raise
                failure: Exception = error
            except Exception as error:
                failure = error
            # The client retries other breaks by itself.
            tries = 1 if into.tell() > start else tries + 1
            if "NetworkError" not in kinds_of(failure) or tries >= TRIES:
                told = hub_sentence(failure, self.endpoint, file.part.repository, file.part.name)
                raise OfficialError(told) from failure
            time.sleep(RETRY_AFTER)

    def _get(self, file: RemoteFile, into: Appendable, start: int) -> None:
        self._files.http_get(
            file.url,
            cast(BinaryIO, into),  # these four methods of it are used
            resume_size=start,
            headers=self._headers(),
            expected_size=file.size,
        )
