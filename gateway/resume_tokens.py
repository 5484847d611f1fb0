"""Tokens with which a client comes back to its session: JWT with HS256, good for the gateway's run.

The key lies in the run folder, so that a gateway that was started again knows the tokens of the last one.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import jwt

from protocol.hop.endpoints import RESUME_KEY_BYTES, RESUME_KEY_FILE, EndpointError, prepare_run_dir
from protocol.hop.private_file import PrivateFileError, read_or_make

#: Seconds for which a token is good.
GOOD_FOR = 86_400
ALGORITHM = "HS256"
ISSUER = "echomimic-live"
AUDIENCE = "resume"
#: Longest token that is looked at, in characters.
MAX_CHARS = 1024


class ResumeTokens:
    """Makes and checks the tokens of one run."""

    def __init__(self, run_dir: Path) -> None:
        """Read the run's key, or make it. Raises EndpointError when that cannot be done."""
        prepare_run_dir(run_dir)
        path = run_dir / RESUME_KEY_FILE
        try:
            self._key = read_or_make(path, lambda: secrets.token_bytes(RESUME_KEY_BYTES), RESUME_KEY_BYTES)
        except PrivateFileError as error:
            raise EndpointError(str(error)) from error
        except OSError as error:
            raise EndpointError(f"{path}: {error.strerror}; choose another folder with --run-dir") from error
        if len(self._key) != RESUME_KEY_BYTES:
            raise EndpointError(f"{path} holds no key of a run; remove it and start the run again")

    def sign(self, session: str, owner: str) -> str:
        """The token of a session whose client has the rights of `owner`, a token's name or nothing."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": session,
            "own": owner,
            "exp": int(time.time()) + GOOD_FOR,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def session_of(self, token: str, owner: str) -> str | None:
        """The session that a token is for. None if it is of no use to a client with the rights of `owner`."""
        if len(token) > MAX_CHARS:
            return None
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["iss", "aud", "sub", "own", "exp"]},
            )
        except jwt.InvalidTokenError:
            return None
        return str(claims["sub"]) if claims["own"] == owner else None
