"""Errors of fetching, as sentences that say what to do."""

from __future__ import annotations

import errno

from protocol.process.logs import first_line


class OfficialError(RuntimeError):
    """The official weights cannot be had. The text says why and what to do."""


#: Errors of a write that mean that there is no place: the disk, the user's share of it, the size of a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_GO_ON = "start again and it goes on from there"
_REACH = "see the network and HTTPS_PROXY, or name a mirror with HF_ENDPOINT=https://…"


def kinds_of(error: BaseException) -> set[str]:
    """Names of an error's classes. The Hub's client has one of two HTTP libraries, with equal names."""
    return {kind.__name__ for kind in type(error).__mro__}


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error tells, or None."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def hub_sentence(error: BaseException, endpoint: str, repository: str, name: str) -> str:
    """A sentence for an error of the Hub's client.

    Args:
        error: of the client, or of the network beneath it.
        endpoint: address of the Hub or its mirror.
        repository: of the Hub.
        name: the file's path in the repository.
    """
    kinds, status = kinds_of(error), status_of(error)
    what = f"{name} of {repository}"
    if "OfflineModeIsEnabled" in kinds:
        return f"HF_HUB_OFFLINE is set and {what} is not on this machine; unset it to fetch the file"
    if status is not None:
        return _of_status(kinds, status, endpoint, repository, name)
    if "ProxyError" in kinds:
        return f"the proxy lets nothing through to {endpoint} ({first_line(error)}); see HTTPS_PROXY"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"the certificate of {endpoint} is not trusted ({first_line(error)}); if your network has its own"
            " authority, name its certificates with SSL_CERT_FILE=/path/to/bundle.pem"
        )
    if "TimeoutException" in kinds:
        return f"{endpoint} stopped answering while {what} was fetched; what has come stays: {_GO_ON}"
    if "ConnectError" in kinds:
        return f"{endpoint} cannot be reached ({first_line(error)}); {_REACH}"
    if "UnsupportedProtocol" in kinds or "InvalidURL" in kinds:
        return f"HF_ENDPOINT={endpoint} is no address of a server; write https://…"
    return f"{what} could not be fetched ({first_line(error)}); what has come stays: {_GO_ON}"


def _of_status(kinds: set[str], status: int, endpoint: str, repository: str, name: str) -> str:
    page = f"{endpoint}/{repository}"
    if "GatedRepoError" in kinds:
        return (
            f"{repository} asks for its terms to be accepted first: do that at {page} while logged in there,"
            " and give your token as HF_TOKEN"
        )
    if "EntryNotFoundError" in kinds or (status == 404 and "RepositoryNotFoundError" not in kinds):
        return f"{page} has no file {name}; if that is a mirror, choose another with HF_ENDPOINT"
    if status in (401, 403):
        return (
            f"{endpoint} refuses {repository} (status {status}); if HF_TOKEN or `hf auth login` gives an old"
            " token, unset it or run `hf auth logout`"
        )
    if status == 404:
        return (
            f"{endpoint} has no repository {repository}; if that is a mirror, choose another with HF_ENDPOINT"
        )
    if status == 407:
        return f"the proxy asks for a name and a password (status {status}); write them into HTTPS_PROXY"
    if status == 429:
        return f"{endpoint} asks to wait (status 429); start again in some minutes; HF_TOKEN allows more"
    return f"{endpoint} answers with status {status} for {name} of {repository}; {_GO_ON}"


def disk_sentence(error: OSError, folder: object) -> str:
    """A sentence for an error of writing into a folder."""
    if error.errno in FULL:
        return (
            f"no more can be written to {folder} ({error.strerror}); make space, or name another place with"
            f" --model-dir; what has come stays: {_GO_ON}"
        )
    return f"{folder} cannot be written ({error.strerror}); name another place with --model-dir"
