"""Checks of the settings that say where the page is reached, and from where.

Each check takes the place where a value stood, for the error, and the value. It raises SettingsError.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from protocol.process.addresses import is_loopback, parse_ip
from protocol.process.settings.places import default_token_file
from protocol.process.settings.values import SettingsError
from protocol.process.web_hosts import parse_authority, parse_origin

#: Said where a run lets everyone in who reaches its port.
NO_AUTH_WARNING = (
    "--no-auth: everyone who reaches this port can use the page, this machine's GPU and its pictures"
)

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def check_host(where: str, value: str) -> None:
    """`--host`: a numeric address, with a zone where it needs one, or a name."""
    read = parse_authority(value)
    if parse_ip(value) is None and (read is None or read.port is not None or read.address is not None):
        raise SettingsError(
            f"{where} {value}: give an address of this machine, such as 127.0.0.1, 192.168.1.5 or ::1;"
            " 0.0.0.0 and :: stand for all of them"
        )


def check_allowed_host(where: str, value: str) -> None:
    """One of `--allowed-hosts`: a name, a `.domain` or an address, with or without a port."""
    if value == "*":
        raise SettingsError(
            f"{where} *: name the hosts; with any name, a page whose name is made to point here could come in"
        )
    if parse_ip(value) is None and parse_authority(value.removeprefix(".")) is None:
        raise SettingsError(
            f"{where} {value}: give names such as face.example, .example (and all below it) or 10.0.0.7:8080,"
            " without a scheme and without a path"
        )


def check_origin(where: str, value: str) -> None:
    """One of `--allowed-origins` or `--embed-origins`: scheme, host and port as a browser writes them."""
    if parse_origin(value) is None:
        raise SettingsError(
            f"{where} {value}: give origins such as https://app.example, https://app.example:8443 or"
            " https://*.example, without a path"
        )


def check_root_path(where: str, value: str) -> None:
    """`--root-path`: a path that begins with a slash and does not end with one."""
    if not _PREFIX.fullmatch(value):
        raise SettingsError(f"{where} {value}: give a path such as /face, without a slash at its end")


def check_network(where: str, value: str) -> None:
    """One of `--trusted-proxies`: an address or a network."""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise SettingsError(
            f"{where} {value}: give addresses such as 127.0.0.1 or networks such as 10.0.0.0/8"
        ) from None


def check_service(where: str, value: str) -> None:
    """`--voice-url`: the address of a service, without a user and without a query."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise SettingsError(f"{where}: give an address such as http://127.0.0.1:8880/v1, without a key in it")


def tokens_command() -> str:
    """The command that makes tokens, to be copied from a message."""
    python = os.path.relpath(sys.executable)
    return f"{sys.executable if python.startswith('..') else python} -m scripts.tokens"


def usual_token_file(env: Mapping[str, str]) -> Path | None:
    """The token file at its usual place. None where there is none."""
    path = default_token_file(env)
    return path if path is not None and os.path.lexists(path) else None


def check_admission(host: str, auth: bool, has_tokens: bool) -> None:
    """Beyond loopback someone must have said who may come in.

    Args:
        host: `--host`.
        auth: False for `--no-auth`.
        has_tokens: whether there is a token file.
    """
    if not auth and has_tokens:
        raise SettingsError("--no-auth and --token-file exclude each other: give one of them")
    if auth and not has_tokens and not is_loopback(host):
        raise SettingsError(
            f"--host {host}: other machines could open the page, so make a token first and start again:"
            f" {tokens_command()} add NAME; or let in everyone who reaches the port: --no-auth"
        )


def check_tls(mode: str | None, has_certificate: bool, has_key: bool) -> None:
    """Raises SettingsError for a certificate without its key, and for --tls beside --tls-cert.

    Args:
        mode: `--tls`.
        has_certificate: whether there is a `--tls-cert`.
        has_key: whether there is a `--tls-key`.
    """
    if has_certificate != has_key:
        given, missing = ("--tls-cert", "--tls-key") if has_certificate else ("--tls-key", "--tls-cert")
        raise SettingsError(f"{given}: give {missing} too")
    if mode is not None and has_certificate:
        raise SettingsError(f"--tls {mode}: leave it out, since --tls-cert names a certificate")
