"""The guard: from a request's token to a grant or a refusal, and grants that are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers

from gateway.door.credentials import AMBIGUOUS, token_of
from gateway.door.guard import ANY, EVERYBODY, Grant, Guard, Quota
from gateway.door.minting import MintError
from gateway.door.refusals import STATUSES, Refused
from gateway.door.throttle import BURST, CYCLE
from gateway.door.token_file import (
    PREFIX,
    SCOPES,
    TokenBook,
    TokenFileError,
    add_token,
    entry_for,
    new_book,
    new_token,
    read_book,
    revoke_token,
    rotate_key,
    write_book,
    writing,
)
from gateway.door.token_watch import LOOK_EVERY, READ_AGAIN_EVERY, TokenWatch

START = 1_764_237_600
HOME = "192.0.2.1"


class Door:
    """A guard with a token file and a clock that tests move."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self.now = 100.0
        self.put(new_book())
        self.guard = Guard(
            TokenWatch(self.path, lambda: self.now), lambda: self.now, lambda: START + self.now
        )

    def put(self, book: TokenBook) -> None:
        with writing(self.path):
            write_book(self.path, book)
        self.now += LOOK_EVERY

    def add(self, name: str, *scopes: str, **limits: Any) -> str:
        token = new_token()
        entry = entry_for(token, name, scopes or ("session",), START, **limits)
        self.put(add_token(read_book(self.path), entry))
        return token

    def check(self, token: str | None, scope: str = "session", address: str = HOME) -> Grant:
        return self.guard.check(token, address, scope)

    def code(self, token: str | None, scope: str = "session", address: str = HOME) -> str:
        with pytest.raises(Refused) as caught:
            self.guard.check(token, address, scope)
        refusal = caught.value.refusal
        assert refusal.code in STATUSES
        assert (refusal.status == 401) is any(name == "WWW-Authenticate" for name, _ in refusal.headers)
        assert token is None or len(token) < 5 or token not in refusal.message + refusal.log
        return refusal.code

    def minted(self, token: str, **wishes: str) -> str:
        return str(self.guard.mint(self.check(token, "mint"), wishes)["token"])


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_without_a_file_everybody_comes_in() -> None:
    guard = Guard(None)
    assert guard.check(None, HOME, "admin") is EVERYBODY and guard.lost(EVERYBODY) is None and not guard.asks
    assert EVERYBODY.may_use("anybody")


def test_a_programs_token(door: Door) -> None:
    token = door.add("studio", "session", "mint", sessions=2, avatars=("ada",))
    grant = door.check(token)
    assert grant.name == "studio" and grant.avatars == ("ada",) and [q.most for q in grant.quotas] == [2]
    assert grant.may_use("ada") and not grant.may_use("leo")
    assert door.code(token, "metrics") == "token_scope" and door.code(token, "admin") == "token_scope"


def test_each_scope_opens_its_own_door_alone(door: Door) -> None:
    for scope in SCOPES:
        token = door.add(f"only-{scope}", scope)
        assert door.check(token, scope).scopes == door.check(token, ANY).scopes == (scope,)
        assert [door.code(token, other) for other in SCOPES if other != scope] == ["token_scope"] * (
            len(SCOPES) - 1
        )


def test_missing_and_wrong_tokens(door: Door) -> None:
    token = door.add("studio")
    assert door.code(None) == "token_missing"
    for n, wrong in enumerate(
        ["", PREFIX, token[:-1], token + "A", token.upper(), token.swapcase(), "é", "x" * 9000, "a.b.c"]
    ):
        assert door.code(wrong, address=f"10.0.0.{n}") == "token_wrong"


def test_expired_and_revoked(door: Door) -> None:
    token = door.add("studio", expires=START + 200)
    grant = door.check(token)
    door.now = 199.0
    assert door.check(token) == grant and door.guard.lost(grant) is None
    door.now = 200.0
    lost = door.guard.lost(grant)
    assert door.code(token) == "token_expired" and lost is not None and lost.code == "token_expired"
    other = door.add("other")
    grant = door.check(other)
    door.put(revoke_token(read_book(door.path), "other", START))
    lost = door.guard.lost(grant)
    assert door.code(other) == "token_revoked" and lost is not None and lost.code == "token_revoked"


def test_a_browsers_token_has_the_narrower_limits(door: Door) -> None:
    token = door.add("studio", "session", "mint", sessions=5, avatars=("ada", "leo"), expires=START + 500)
    grant = door.check(door.minted(token))
    assert grant.scopes == ("session",) and grant.avatars == ("ada", "leo")
    assert grant.session_seconds is None and [q.most for q in grant.quotas] == [5, 1]
    grant = door.check(door.minted(token, avatars="leo", sessions="2", session_seconds="60"))
    assert grant.avatars == ("leo",) and grant.session_seconds == 60
    assert [q.most for q in grant.quotas] == [5, 2]
    assert grant.quotas[0].key == door.check(token).quotas[0].key  # they share the program's sessions
    answer = door.guard.mint(door.check(token, "mint"), {"ttl": "86400"})
    assert answer["expires"] == START + 500  # never beyond the program's own token


@pytest.mark.parametrize(
    "wishes",
    [
        {"ttl": "0"}, {"ttl": "86401"}, {"ttl": "-1"}, {"ttl": "1e3"}, {"ttl": "²"}, {"ttl": "9" * 5000},
        {"sessions": "0"}, {"sessions": "6"}, {"avatars": ""}, {"avatars": "omar"}, {"avatars": "ada,omar"},
        {"avatars": ",".join(f"a{n}" for n in range(40))}, {"scopes": "admin"}, {"session_seconds": "0"},
    ],
)  # fmt: skip
def test_wishes_beyond_the_limits_are_refused(door: Door, wishes: dict[str, str]) -> None:
    token = door.add("studio", "mint", sessions=5, avatars=("ada", "leo"))
    with pytest.raises(MintError, match=next(iter(wishes))):
        door.minted(token, **wishes)


def test_a_browsers_token_falls_with_its_program_and_its_key(door: Door) -> None:
    token = door.add("studio", "mint")
    browser = door.minted(token)
    grant = door.check(browser)
    assert door.code(browser, "mint") == "token_scope"  # it mints nothing itself
    book = read_book(door.path)
    door.put(rotate_key(book))
    lost = door.guard.lost(grant)
    assert door.code(browser) == "token_revoked" and lost is not None and lost.code == "token_revoked"
    assert door.check(token, "mint")  # the program's own token stays
    browser = door.minted(token)
    assert door.check(browser)
    door.put(revoke_token(read_book(door.path), "studio", START))
    assert door.code(browser) == "token_revoked"
    # A new token of the same name does not bring it back.
    door.add("studio", "mint")
    assert door.code(browser) == "token_revoked"


def test_a_browsers_token_expires(door: Door) -> None:
    browser = door.minted(door.add("studio", "mint"), ttl="30")
    grant = door.check(browser)
    door.now += 31
    assert door.code(browser) == "token_expired"
    assert door.guard.lost(grant) is None  # a session that runs goes on


def test_a_bad_file_lets_nobody_new_in(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    token = door.add("studio")
    grant = door.check(token)
    text = door.path.read_bytes()
    for spoil in (lambda: door.path.chmod(0o644), lambda: door.path.write_text("{"), door.path.unlink):
        spoil()
        assert door.code(token) == "token_file" and door.guard.lost(grant) is None
        assert "nobody new is let in" in caplog.text
        caplog.clear()
        door.path.write_bytes(text)
        door.path.chmod(0o600)
        door.now += READ_AGAIN_EVERY
        assert door.check(token) == grant
    assert token not in caplog.text


def test_the_gateway_does_not_start_with_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="no token file"):
        TokenWatch(tmp_path / "no.json")


def test_guesses_are_slowed_and_others_are_not(door: Door) -> None:
    token = door.add("studio")
    codes = [door.code(f"{PREFIX}guess{n}") for n in range(BURST)]
    assert codes == ["token_wrong"] * BURST
    unread = [n for n in range(800) if door.code(f"{PREFIX}more{n}") == "throttled"]
    assert len(unread) > 500
    assert door.check(token, address="192.0.2.77")
    waited = 0.0
    while True:
        try:
            door.check(token)
            break
        except Refused as refused:
            assert refused.refusal.code == "throttled"
            assert 1 <= int(dict(refused.refusal.headers)["Retry-After"]) <= CYCLE
            door.now += 0.5
            waited += 0.5
    assert waited <= CYCLE


def test_expired_tokens_slow_nobody_down(door: Door) -> None:
    token = door.add("studio", "mint")
    browser = door.minted(token, ttl="1")
    door.now += 2
    assert [door.code(browser) for _ in range(50)] == ["token_expired"] * 50
    assert [door.code(None) for _ in range(50)] == ["token_missing"] * 50
    assert door.check(token, "mint")


def test_quotas_tell_tokens_apart(door: Door) -> None:
    token = door.add("studio", "mint", sessions=3)
    keys = {quota for n in range(5) for quota in door.check(door.minted(token)).quotas}
    assert len(keys) == 6 and all(isinstance(quota, Quota) for quota in keys)


@pytest.mark.parametrize(
    ("headers", "query", "found"),
    [
        ([], "", None),
        ([("Authorization", "Bearer abc")], "", "abc"),
        ([("authorization", "bearer  abc ")], "", "abc"),
        ([("Authorization", "Basic dXNlcjpw")], "", None),
        ([("Authorization", "Basic dXNlcjpw")], "token=abc", "abc"),
        ([("Authorization", "Bearer")], "", AMBIGUOUS),
        ([("Sec-WebSocket-Protocol", "echomimic-live.v2, echomimic-live.token.abc.d-e_f")], "", "abc.d-e_f"),
        (
            [("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "echomimic-live.token.abc")],
            "",
            "abc",
        ),
        ([("Sec-WebSocket-Protocol", "Echomimic-live.token.abc")], "", None),
        ([], "avatar=ada&token=abc", "abc"),
        ([], "t%6fken=%61bc", "abc"),
        ([], "token=", AMBIGUOUS),
        ([], "token=a&token=b", AMBIGUOUS),
        ([], "token=a&token=a", "a"),
        ([], "&".join(["token=a"] * 100), AMBIGUOUS),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], "", AMBIGUOUS),
        (
            [("Authorization", "Bearer a"), ("Sec-WebSocket-Protocol", "echomimic-live.token.b")],
            "token=c",
            "a",
        ),
    ],
)
def test_where_a_token_may_stand(headers: list[tuple[str, str]], query: str, found: str | None) -> None:
    assert token_of(Headers(headers), query) == found


def test_the_query_can_be_left_out() -> None:
    assert token_of(Headers(), "token=abc", query_allowed=False) is None
