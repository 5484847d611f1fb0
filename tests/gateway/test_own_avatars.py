"""Avatars that people bring to a running gateway: over real sockets, with a stand-in of the stages."""

from __future__ import annotations

import io
import json
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gateway.avatars.service import MOST_UPLOAD
from protocol.process.settings import ROOT
from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import Running, running
from tests.gateway.raw_http import RawReply, exchange
from tests.helpers.tokens import TokenBox
from tests.helpers.waiting import wait_for

#: Scopes of a token that may do what these tests do.
ALL = ("session", "avatars", "mint")
FACE = ROOT / "demo/bundled/avatars/maya.png"


def picture(mark: int = 0, kind: str = "PNG", size: tuple[int, int] = (320, 320), **options: Any) -> bytes:
    """A picture that differs by its mark."""
    image = Image.new("RGB", size, (40 + mark * 7 % 200, 120, 200))
    pen = ImageDraw.Draw(image)
    pen.ellipse((80, 40, 240, 220), (240, 200, 170))
    pen.rectangle((mark % 300, 250, mark % 300 + 20, 300), "black")
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def ask(
    run: Running, method: str, path: str, body: bytes = b"", token: str = "", **headers: str
) -> tuple[int, Any]:
    """Status and body of an answer: JSON where it is some, else text."""
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if body:
        lines.append(("Content-Length", str(len(body))))
    if token:
        lines.append(("Authorization", f"Bearer {token}"))
    reply = exchange(run.settings.port, path, lines, method=method, body=body)
    is_json = "json" in reply.headers.get("Content-Type", "")
    return reply.status, json.loads(reply.text) if is_json else reply.text


def bring(run: Running, body: bytes, query: str = "", token: str = "") -> dict[str, Any]:
    """The description of an avatar that is brought."""
    status, told = ask(run, "POST", f"/avatars?{query}", body, token)
    assert status == 201, told
    return dict(told)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(own_avatar_dir=tmp_path_factory.mktemp("home") / "own", own_avatars=3) as server:
        yield server


@pytest.fixture
def empty(run: Running) -> Running:
    """The module's gateway, without an own avatar."""
    for each in ask(run, "GET", "/avatars")[1]["own_avatars"]:
        assert ask(run, "DELETE", f"/avatars/{each['id']}")[0] == 204
    run.does.smears = False
    return run


@pytest.mark.process
async def test_an_avatar_is_brought_shown_used_and_removed(empty: Running) -> None:
    made = bring(empty, FACE.read_bytes(), "name=my_face")
    assert made["name"] == "My face" and not made["kept"] and not made["warning"]
    assert made["fit"]["edges"] > 0.8
    listed = ask(empty, "GET", "/avatars.json")[1]
    assert made["id"] not in listed["avatars"]  # not before it is kept
    assert ask(empty, "POST", f"/avatars/{made['id']}/keep")[1]["kept"]
    listed = ask(empty, "GET", "/avatars.json")[1]
    assert listed["avatars"][-1] == made["id"] and listed["names"]["avatars"][made["id"]] == "My face"
    film = exchange(empty.settings.port, f"/{made['preview']}")
    assert film.status == 200 and film.headers["Content-Type"] == "image/webp"
    async with client_v2(empty, hello={"avatar": made["id"]}) as client:
        assert client.text("ready")["avatar"] == made["id"]
        await client.speak(noise(0.6), pace=0)
        await client.until(lambda c: len(c.frames) >= 12)
        assert ask(empty, "DELETE", f"/avatars/{made['id']}")[0] == 204
        await client.speak(noise(0.6), pace=0)
        assert (await client.closed())[0] == 1011  # the stages have it no more
    assert ask(empty, "GET", "/avatars")[1]["own_avatars"] == []
    assert not list(folder_of(empty).glob("own-*"))


@pytest.mark.process
def test_a_smear_is_told(empty: Running) -> None:
    empty.does.smears = True
    made = bring(empty, FACE.read_bytes())
    assert made["fit"]["edges"] < 0.52 and "another crop" in made["warning"].lower()


@pytest.mark.process
@pytest.mark.long
def test_it_outlasts_a_restart_under_the_same_id(empty: Running) -> None:
    made = bring(empty, picture(1), "keep=1&name=one")
    draft = bring(empty, picture(2))
    assert bring(empty, picture(1, compress_level=1), "keep=1")["id"] == made["id"]  # the same pixels
    begun = folder_of(empty) / f".own-{'0' * 32}.png.abc"
    begun.write_bytes(b"half")
    (folder_of(empty) / "diary.txt").write_text("mine")
    empty.restart()
    empty.wait_ready()
    listed = {each["id"]: each for each in ask(empty, "GET", "/avatars")[1]["own_avatars"]}
    assert listed[made["id"]]["kept"] and listed[made["id"]]["fit"] and not listed[draft["id"]]["kept"]
    assert not begun.exists() and (folder_of(empty) / "diary.txt").read_text() == "mine"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder_of(empty).glob("own-*")}
    assert modes == {0o600} and stat.S_IMODE(folder_of(empty).stat().st_mode) == 0o700
    (folder_of(empty) / "diary.txt").unlink()


@pytest.mark.process
@pytest.mark.long
def test_counts_are_bounded(empty: Running) -> None:
    for mark in range(3):
        bring(empty, picture(mark), "keep=1")
    status, told = ask(empty, "POST", "/avatars?keep=1", picture(9))
    assert status == 507 and "remove one" in told
    drafts = [bring(empty, picture(20 + mark))["id"] for mark in range(5)]
    waiting = [each["id"] for each in ask(empty, "GET", "/avatars")[1]["own_avatars"] if not each["kept"]]
    assert len(waiting) == 4 and drafts[-1] in waiting and drafts[0] not in waiting


@pytest.mark.process
@pytest.mark.long
def test_crop_orientation_and_kinds(empty: Running) -> None:
    """The part is of the upright picture, and the part beyond it has the border's colour."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (400, 200), "white")
    image.paste("red", (0, 0, 200, 200))  # upright: 200 wide, 400 high, and red above
    data = io.BytesIO()
    image.save(data, "JPEG", exif=exif, quality=95)
    above = pixels_of(empty, bring(empty, data.getvalue(), "crop=0,0,1,0.5"))
    red, green, _ = np.asarray(above)[100, 100].astype(int)
    assert above.size == (200, 200) and red > 240 and green < 100
    wide = pixels_of(empty, bring(empty, picture(3), "crop=-0.5,-0.5,2,2"))
    assert wide.size == (640, 640) and abs(int(np.asarray(wide)[5, 5, 2]) - 200) < 4
    for kind in ("WEBP", "GIF", "BMP"):
        bring(empty, picture(4, kind))


def pixels_of(run: Running, made: Mapping[str, Any]) -> Image.Image:
    """The picture that was kept of an avatar."""
    return Image.open(folder_of(run) / f"{made['id']}.png").convert("RGB")


def folder_of(run: Running) -> Path:
    assert run.settings.own_avatar_dir is not None
    return run.settings.own_avatar_dir


# ---- hostile pictures


def bomb() -> bytes:
    made = io.BytesIO()
    Image.new("L", (12000, 12000)).save(made, "PNG")
    return made.getvalue()


def tiff_with_a_huge_head() -> bytes:
    return picture(5, "TIFF").replace(b"\x40\x01", b"\xff\xff", 2)


HOSTILE: dict[str, tuple[Callable[[], bytes], int]] = {
    "bomb of 144 megapixels in 140 kB": (bomb, 415),
    "SVG with a script": (lambda: b"<svg><script>alert(1)</script></svg>", 415),
    "HTML": (lambda: b"<!doctype html><script>alert(1)</script>", 415),
    "EPS, which would start a program": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    "PDF": (lambda: b"%PDF-1.4\n", 415),
    "HEIC": (lambda: b"\0\0\0\x18ftypheic" + bytes(64), 415),
    "cut short": (lambda: picture(6)[:200], 415),
    "a head that lies about its size": (tiff_with_a_huge_head, 415),
    "nothing": (lambda: b"\0", 415),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), 415),
    "too small": (lambda: picture(7, size=(40, 40)), 415),
    "too many bytes": (lambda: picture(8) + bytes(MOST_UPLOAD), 413),
}


#: Rows that CI tries too.
QUICK = ("bomb of 144 megapixels in 140 kB", "SVG with a script", "too many bytes")


@pytest.mark.process
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in QUICK else pytest.mark.long) for each in HOSTILE]
)
def test_hostile_pictures(empty: Running, name: str) -> None:
    make, expected = HOSTILE[name]
    status, told = ask(empty, "POST", "/avatars?keep=1", make())
    assert status == expected, told
    assert "was not taken" in told and "Traceback" not in told and str(ROOT) not in told
    assert not list(folder_of(empty).glob("*own-*"))


@pytest.mark.process
def test_a_polyglot_leaves_its_other_half_behind(empty: Running) -> None:
    """A picture with a script behind it is a picture. The kept file is made anew of its pixels."""
    made = bring(empty, picture(9) + b"<script>alert(1)</script>PK\x03\x04" + bytes(1000), "keep=1")
    kept = (folder_of(empty) / f"{made['id']}.png").read_bytes()
    assert b"<script>" not in kept and b"PK\x03\x04" not in kept
    shown = exchange(empty.settings.port, f"/{made['picture']}")
    assert shown.headers["Content-Type"] == "image/png"
    assert shown.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.process
def test_path_tricks_and_wrong_requests(empty: Running) -> None:
    outside = folder_of(empty).parent / "outside.png"
    outside.write_bytes(picture(1))
    name = "own-" + "0" * 32
    for path in (
        "/avatars/../outside", "/avatars/own-../../outside", "/avatars/%2e%2e%2foutside", "/avatars/",
        f"/avatars/{name}/../../outside", f"/avatars/{name}%00", f"/avatars/{name.upper()}",
        f"/avatars/{name}x",
    ):  # fmt: skip
        for method in ("DELETE", "POST", "PUT"):
            assert ask(empty, method, path)[0] in (400, 404, 405), (method, path)
        assert ask(empty, "GET", path + ".png")[0] in (400, 404), path
    assert outside.exists()
    assert ask(empty, "DELETE", f"/avatars/{name}")[0] == 404
    assert ask(empty, "POST", f"/avatars/{name}/keep")[0] == 404
    for crop in ("1", "0,0,0,0", "nan,0,1,1", "2,2,1,1", "0,0,99,99", "0,0,1,1,1", "0,0,1e999,1", "a,b,c,d"):
        assert ask(empty, "POST", f"/avatars?crop={crop}", picture())[0] == 400, crop
    assert ask(empty, "POST", "/avatars")[0] == 400  # without a body
    assert ask(empty, "POST", "/tokens", b"body")[0] == 413  # takes none


@pytest.mark.process
def test_pages_of_other_sites_change_nothing(empty: Running) -> None:
    made = bring(empty, picture(1), "keep=1")
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{empty.settings.port + 1}"):
        assert ask(empty, "POST", "/avatars", picture(2), Origin=origin)[0] == 403
        assert ask(empty, "DELETE", f"/avatars/{made['id']}", Origin=origin)[0] == 403
    own = f"http://127.0.0.1:{empty.settings.port}"
    assert ask(empty, "DELETE", f"/avatars/{made['id']}", Origin=own)[0] == 204
    # DNS rebinding: the page's own name points here.
    reply = exchange(empty.settings.port, "/avatars", [("Content-Length", "9")], method="POST",
                     host="evil.example", body=b"123456789")  # fmt: skip
    assert reply.status == 421


# ---- bodies


@pytest.mark.process
@pytest.mark.long
def test_bodies_that_do_not_come(empty: Running) -> None:
    """A body that is promised and not sent holds nobody up, and 100 Continue is said to who waits for it."""
    data = picture(11)
    host = f"127.0.0.1:{empty.settings.port}"
    head = f"POST /avatars HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection(("127.0.0.1", empty.settings.port), 10) as slow:
        slow.sendall(f"{head}\r\n".encode() + data[:10])
        bring(empty, picture(12))
    with socket.create_connection(("127.0.0.1", empty.settings.port), 20) as polite:
        polite.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert polite.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        polite.sendall(data)
        assert polite.recv(100).startswith(b"HTTP/1.1 201 ")
    chunked = [("Transfer-Encoding", "chunked")]
    reply: RawReply = exchange(empty.settings.port, "/avatars", chunked, method="POST", body=b"0\r\n\r\n")
    assert reply.status == 413
    twice = [("Content-Length", "5"), ("Content-Length", "6")]
    assert exchange(empty.settings.port, "/avatars", twice, method="POST", body=b"12345").status == 413


@pytest.mark.process
@pytest.mark.long
def test_many_uploads_at_once_are_bounded(empty: Running) -> None:
    statuses: list[int] = []

    def one(mark: int) -> None:
        statuses.append(ask(empty, "POST", "/avatars", picture(30 + mark))[0])

    threads = [threading.Thread(target=one, args=(mark,)) for mark in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {201, 503} and statuses.count(201) >= 4


# ---- tokens


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, TokenBox]]:
    folder = tmp_path_factory.mktemp("guarded")
    maker = TokenBox(folder)
    with running(token_file=maker.path, own_avatar_dir=folder / "own") as server:
        yield server, maker


@pytest.mark.process
async def test_an_avatar_is_its_token_s_alone(guarded: tuple[Running, TokenBox]) -> None:
    server, maker = guarded
    mine, other = maker.add("mine", *ALL), maker.add("other", *ALL)
    viewer = maker.add("viewer", "session")
    made = bring(server, picture(1), "keep=1", mine)
    assert ask(server, "POST", "/avatars", picture(2))[0] == 401
    assert ask(server, "POST", "/avatars", picture(2), viewer)[0] == 403
    for path in (f"/{made['picture']}", f"/{made['preview']}"):
        assert ask(server, "GET", path, token=other)[0] == 404
        assert ask(server, "GET", path)[0] == 401
        assert exchange(server.settings.port, path, [("Authorization", f"Bearer {mine}")]).status == 200
    assert ask(server, "GET", "/avatars", token=other)[1]["own_avatars"] == []
    assert made["id"] not in ask(server, "GET", "/avatars.json", token=other)[1]["avatars"]
    assert ask(server, "GET", "/avatars.json", token=viewer)[1]["own_avatars_most"] == 0
    assert ask(server, "DELETE", f"/avatars/{made['id']}", token=other)[0] == 404
    assert ask(server, "POST", f"/avatars/{made['id']}/keep", token=other)[0] == 404
    twin = bring(server, picture(1), "keep=1", other)
    assert twin["id"] != made["id"]
    headers: dict[str, Any] = {"additional_headers": {"Authorization": f"Bearer {other}"}}
    async with client_v2(server, ready=False, hello={"avatar": made["id"]}, **headers) as client:
        code, why = await client.closed()
        assert code == 1008 and why.startswith("bad_option: there is no avatar")
    async with client_v2(server, hello={"avatar": twin["id"]}, **headers) as client:
        assert client.text("ready")["avatar"] == twin["id"]
        await client.ws.send(json.dumps({"type": "options", "avatar": made["id"]}))
        assert (await client.closed())[0] == 1008


@pytest.mark.process
@pytest.mark.long
def test_browsers_tokens_and_their_persons(guarded: tuple[Running, TokenBox]) -> None:
    server, maker = guarded
    program = maker.add("program", *ALL)

    def mint(query: str) -> str:
        status, told = ask(server, "POST", f"/tokens?{query}", token=program)
        assert status == 200, told
        return str(told["token"])

    assert ask(server, "POST", "/avatars", picture(3), mint(""))[0] == 403
    passing = bring(server, picture(3), "keep=1", mint("own_avatars=1&ttl=3"))
    assert passing["until"] is not None
    ada = bring(server, picture(3), "keep=1", mint("own_avatars=1&subject=ada"))
    assert ada["until"] is None
    again = ask(server, "GET", "/avatars", token=mint("own_avatars=1&subject=ada"))[1]["own_avatars"]
    assert [each["id"] for each in again] == [ada["id"]]
    for stranger in (mint("own_avatars=1&subject=bob"), mint("own_avatars=1"), program):
        assert ask(server, "GET", "/avatars", token=stranger)[1]["own_avatars"] == []
    assert ask(server, "POST", "/tokens?subject=a/b", token=program)[0] == 400
    folder = server.settings.own_avatar_dir
    assert folder is not None
    gone = folder / f"{passing['id']}.png"

    def is_gone() -> bool:
        bring(server, picture(4), "", program)  # whoever comes next clears it away
        return not gone.exists()

    assert wait_for(is_gone, 8)


@pytest.mark.process
def test_a_picture_of_the_operator_is_measured_when_the_run_is_ready(tmp_path: Path) -> None:
    """`--reference-image`: log and catalogue warn of a picture that becomes a smear, and of no other."""
    given, shown = tmp_path / "given", tmp_path / "shown"
    given.mkdir()
    shown.mkdir()
    for name in ("maya", "omar"):
        picture = Image.open(ROOT / f"demo/bundled/avatars/{name}.png")
        picture.save(given / f"{name}.png")
        # The stand-ins draw the second upside down.
        (picture.rotate(180) if name == "omar" else picture).save(shown / f"{name}.png")
    with running(portraits=shown, reference_image=(given,)) as server:
        wait_for(lambda: "avatar omar" in server.log(), 15)
        assert "WARNING gateway gateway.avatars.given: avatar omar" in server.log()
        assert "WARNING gateway gateway.avatars.given: avatar maya" not in server.log()
        warnings = ask(server, "GET", "/avatars.json")[1]["warnings"]
        assert list(warnings) == ["omar"] and "another crop" in warnings["omar"]
