"""Files from a server that speaks the Hub's HTTP: whole, broken off, altered, refused; by the real client."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download

from scripts.official import hub as hub_module
from scripts.official.catalogue import ECHOMIMIC, VAE, ModelPart
from scripts.official.download import already_here, fetch, part_file
from scripts.official.errors import OfficialError
from scripts.official.hub import CHUNK_BYTES, Hub
from tests.helpers.hub_server import COMMIT, Fault, HubServer

LARGE = ModelPart("weights.pth", ECHOMIMIC, "weights.pth")
SMALL = ModelPart("vae/config.json", VAE, "config.json")
KEY = f"{ECHOMIMIC}/{LARGE.name}"
#: More than three writes of the client.
CONTENT = random.Random(0).randbytes(3 * CHUNK_BYTES + 12345)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(hub_module, "RETRY_AFTER", 0.01)
    # The client's own waits, in its module alone.
    quick = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr(file_download, "time", quick)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with HubServer({ECHOMIMIC: {LARGE.name: CONTENT}, VAE: {SMALL.name: b'{"a": 1}'}}) as running:
        yield running


@pytest.fixture
def hub(server: HubServer) -> Hub:
    return hub_at(server.url)


def hub_at(url: str) -> Hub:
    """A client of this address. HF_ENDPOINT itself is read once in a process: `test_command` sets it."""
    made = Hub()
    made.endpoint, made.offline = url, False
    return made


def fetched(hub: Hub, target: Path, part: ModelPart = LARGE) -> int:
    """Fetch a part. Returns the bytes that were counted."""
    counts: list[int] = []
    fetch(hub, hub.look_up(part), target, counts.append)
    return sum(counts)


def test_facts_and_content(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    file = hub.look_up(LARGE)
    assert (file.size, file.sum) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert file.is_sha256 and COMMIT in file.url
    assert fetched(hub, tmp_path / "a/weights.pth") == len(CONTENT)
    assert (tmp_path / "a/weights.pth").read_bytes() == CONTENT
    assert hub.look_up(SMALL).is_git_sha1
    assert fetched(hub, tmp_path / "config.json", SMALL) == 8
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "config.json", "weights.pth"]


@pytest.mark.parametrize("reset", [False, True])
def test_a_break_is_gone_on_with_at_once(server: HubServer, hub: Hub, tmp_path: Path, reset: bool) -> None:
    server.faults[KEY] = Fault(cut_after=CHUNK_BYTES + 500, reset=reset, times=2)
    assert fetched(hub, tmp_path / "weights.pth") == len(CONTENT)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    ranges = [request.range for request in server.gets(LARGE.name) if request.path.startswith("/store")]
    assert len(ranges) == 3
    if not reset:  # which may take back bytes that have come
        assert ranges == ["", f"bytes={CHUNK_BYTES}-", f"bytes={2 * CHUNK_BYTES}-"]


def test_the_next_start_goes_on(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    """After breaks without end, of which each brings something at first and the last ones nothing."""
    target = tmp_path / "weights.pth"
    server.faults[KEY] = Fault(cut_after=2 * CHUNK_BYTES, times=1)
    with pytest.raises(OfficialError, match="what has come stays: start again"):
        server.faults["*"] = server.faults[KEY]

        def fail_after_the_first(count: int) -> None:
            if count > 0:
                server.faults[KEY] = Fault(cut_after=0, times=100)

        fetch(hub, hub.look_up(LARGE), target, fail_after_the_first)
    assert not target.exists()
    here = already_here(target, hub.look_up(LARGE))
    assert here > 0
    server.faults.clear()
    server.requests.clear()
    assert fetched(hub, target) == len(CONTENT) - here
    assert target.read_bytes() == CONTENT
    assert server.gets(LARGE.name)[-1].range == f"bytes={here}-"


def test_a_server_without_ranges_sends_everything(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "weights.pth"
    part_file(target, hub.look_up(LARGE)).write_bytes(CONTENT[:1000])
    server.faults[KEY] = Fault(no_ranges=True)
    assert fetched(hub, target) == len(CONTENT) - 1000  # those that came again were taken back
    assert target.read_bytes() == CONTENT


def test_a_beginning_that_was_damaged(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "weights.pth"
    part_file(target, hub.look_up(LARGE)).write_bytes(bytes(1000))
    assert fetched(hub, target) == len(CONTENT) - 1000
    assert target.read_bytes() == CONTENT


def test_a_beginning_of_another_version_is_not_used(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "weights.pth"
    old = target.with_name("weights.pth.0123456789ab.part")
    old.write_bytes(bytes(1000))
    target.write_bytes(b"old")
    assert fetched(hub, target) == len(CONTENT)
    assert target.read_bytes() == CONTENT and not old.exists()


@pytest.mark.parametrize("part", [LARGE, SMALL])
def test_another_content_than_the_sum(server: HubServer, hub: Hub, tmp_path: Path, part: ModelPart) -> None:
    server.faults["*"] = Fault(altered=True)
    target = tmp_path / "file"
    target.write_bytes(b"the user's")
    with pytest.raises(OfficialError, match="came with another content than"):
        fetched(hub, target, part)
    assert target.read_bytes() == b"the user's"
    assert already_here(target, hub.look_up(part)) == 0


def test_a_mirror_without_sums(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    """Its files are taken if they look whole."""
    server.faults["*"] = Fault(no_sum=True)
    assert fetched(hub, tmp_path / "weights.pth") == len(CONTENT)
    page = b"<html>" + bytes(2000)
    server.repositories = {ECHOMIMIC: {LARGE.name: page}}
    with pytest.raises(OfficialError, match="another content"):
        fetched(hub_at(server.url), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(403, "GatedRepo"), "asks for its terms to be accepted first: do that at http"),
        (Fault(401, "GatedRepo"), "give your token as HF_TOKEN"),
        (Fault(401), "refuses BadToBest/EchoMimicV2 (status 401); if HF_TOKEN"),
        (Fault(403), "(status 403)"),
        (Fault(404, "EntryNotFound"), "has no file weights.pth; if that is a mirror"),
        (Fault(404, "RepoNotFound"), "has no repository BadToBest/EchoMimicV2"),
        (Fault(429), "asks to wait (status 429)"),
        (Fault(503), "answers with status 503 for weights.pth"),
    ],
)
def test_an_answer_that_refuses(server: HubServer, hub: Hub, fault: Fault, words: str) -> None:
    server.faults[KEY] = fault
    with pytest.raises(OfficialError) as caught:
        hub.look_up(LARGE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_goes_to_the_hub_alone(
    server: HubServer, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetched(hub, tmp_path / "weights.pth")
    for request in server.requests:
        assert ("hf_secret" in request.authorization) is not request.path.startswith("/store"), request


def test_a_repository_of_another_name_today(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    server.repositories = {"today/name": {LARGE.name: CONTENT}}
    server.renamed[ECHOMIMIC] = "today/name"
    assert fetched(hub, tmp_path / "weights.pth") == len(CONTENT)


def test_a_login_page_in_the_way(server: HubServer, hub: Hub) -> None:
    server.portal = True
    with pytest.raises(OfficialError, match="asks for a login in a browser first"):
        hub.look_up(LARGE)


def test_nobody_at_the_address(server: HubServer) -> None:
    with HubServer({}) as gone:
        url = gone.url
    with pytest.raises(OfficialError, match=r"cannot be reached \(.*\); see the network and HTTPS_PROXY"):
        hub_at(url).look_up(LARGE)
    with pytest.raises(OfficialError, match="is no address of a server"):
        hub_at("mirror.example").look_up(LARGE)


def test_a_proxy_that_is_not_there(server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client takes the variables of proxies when it is made, so it is made anew."""
    from huggingface_hub import close_session

    with HubServer({}) as gone:
        proxy = gone.url
    close_session()
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    try:
        with pytest.raises(OfficialError):
            hub.look_up(LARGE)
    finally:
        monkeypatch.undo()
        close_session()
    assert not server.requests


def test_a_server_that_stops_sending(
    server: HubServer, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    server.faults[KEY] = Fault(hold_after=0)
    with pytest.raises(OfficialError, match="stopped answering while weights"):
        fetched(hub, tmp_path / "weights.pth")


def test_two_at_once(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    server.faults[KEY] = Fault(hold_after=CHUNK_BYTES)
    begun = threading.Event()
    target = tmp_path / "weights.pth"
    file = hub.look_up(LARGE)
    first = threading.Thread(target=fetch, args=(hub, file, target, lambda count: begun.set()))
    first.start()
    assert begun.wait(20)
    with pytest.raises(OfficialError, match="is being fetched by another run"):
        fetch(hub, file, target, lambda count: None)
    server.go_on.set()
    first.join()
    assert target.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OfficialError, match="cannot be written"):
        fetched(hub, tmp_path / "file" / "weights.pth")


def test_a_slow_server_is_waited_for(
    server: HubServer, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's patience is for the next bytes, not for the whole file."""
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    server.faults[KEY] = Fault(rate=2.5e6)
    begin = time.monotonic()
    assert fetched(hub, tmp_path / "weights.pth") == len(CONTENT)
    assert time.monotonic() - begin > 0.5
    assert len(server.gets(LARGE.name)) == 2  # the redirect, and the content at one go
