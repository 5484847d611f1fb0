"""The words of a preparation: licences, the machine's speed, progress."""

from __future__ import annotations

import io
import time

import pytest

from scripts.official import prepare
from scripts.official.catalogue import ECHOMIMIC, LICENCES, TAESD
from scripts.official.errors import OfficialError
from scripts.official.licences import LicenceMemory
from scripts.official.machine import Outlook, cpu_warning, memory_warning
from scripts.official.prepare import Preparation
from scripts.official.progress import Progress, size_text
from tests.helpers.hub_server import HubServer
from tests.scripts.official.world import given, hub_of


def test_licences_are_remembered(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = LicenceMemory(env)
    assert memory.still_open([ECHOMIMIC, ECHOMIMIC, TAESD]) == [ECHOMIMIC, TAESD]
    memory.accept([ECHOMIMIC])
    assert LicenceMemory(env).still_open([ECHOMIMIC, TAESD]) == [TAESD]
    memory.path.write_text("[damaged")
    assert memory.still_open([ECHOMIMIC]) == [ECHOMIMIC]
    memory.accept([ECHOMIMIC])
    monkeypatch.setitem(LICENCES, ECHOMIMIC, "another one today")
    assert memory.still_open([ECHOMIMIC]) == [ECHOMIMIC]


def test_the_speed_of_a_cpu() -> None:
    told = cpu_warning(Outlook(None, 0, None, 250e9), 6, 1.0)
    assert "there is no NVIDIA GPU" in told and "about 17 minutes at 768×768, or 6 minutes at 512×512" in told
    told = cpu_warning(Outlook(None, 0, "the driver is too old", 250e9), 30, 2.5)
    assert "NVIDIA's driver is there, but the driver is too old" in told and "2.8 hours" in told


def test_the_memory_of_a_gpu() -> None:
    assert memory_warning(Outlook("RTX 4090", 25_300_000_000, None, 0.0)) is None
    assert memory_warning(Outlook(None, 0, None, 250e9)) is None
    told = memory_warning(Outlook("RTX 3070", 8_200_000_000, None, 0.0))
    assert told is not None and "RTX 3070 has 8 GB of memory" in told


def test_the_question_and_its_answers(
    env: dict[str, str], server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question at a terminal. Anything but yes fetches nothing, and a yes is not asked again."""

    class Answer(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(prepare, "Hub", hub_of(server))
    monkeypatch.setattr(prepare, "ask_outlook", lambda: None)
    for answer in ("n\n", "\n", ""):
        console = io.StringIO()
        with pytest.raises(OfficialError, match="licences were not accepted"):
            Preparation(given("--decoder", "kl"), env, Answer(answer), console).run()
        assert console.getvalue().count("[y/N]") == 1
    assert not [request for request in server.requests if request.method == "GET"]
    Preparation(given("--decoder", "kl"), env, Answer("Yes\n"), io.StringIO()).run()
    assert not LicenceMemory(env).still_open([ECHOMIMIC])
    assert LicenceMemory(env).still_open([TAESD]), "only those that were told"


def test_lines_of_progress() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(6_100_000_000, stream, clock=lambda: now[0])
    assert progress.text().startswith("0 % of 6.1 GB, 0 B/s")
    progress.begin("denoising_unet_acc.pth", already=1_220_000_000)
    now[0] = 10.0
    progress.add(61_000_000)
    assert progress.text() == "21 % of 6.1 GB, 6.1 MB/s, 13 min left: denoising_unet_acc.pth"
    progress.add(-61_000_000)
    assert progress.text().startswith("20 % of 6.1 GB")


def test_progress_where_no_terminal_is_and_where_one_is() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (io.StringIO(), Terminal()):
        with Progress(1000, stream, line_every=0.05) as progress:
            progress.begin("a.pth")
            progress.add(1000)
            time.sleep(0.4)
        text = stream.getvalue()
        assert text.endswith("a.pth\n") and "100 % of 1.0 kB" in text
        assert ("\r" in text) is ("[####" in text) is stream.isatty()
        assert len(text.splitlines()) > 2 or stream.isatty()


@pytest.mark.parametrize(
    ("count", "text"), [(5, "5 B"), (4005, "4.0 kB"), (335e6, "335 MB"), (6.1e9, "6.1 GB"), (2e12, "2.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text
