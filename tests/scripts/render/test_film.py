"""Films by stand-ins of the workers, decoded again: every picture, its time, the sound, and failures."""

from __future__ import annotations

import io
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from protocol.process.settings import Settings, load_settings
from protocol.wire.clock import first_frame_from
from protocol.wire.generated import DIGITAL_SOURCE_TYPE, GENERATED_XMP
from scripts.fake_stages.face import FacePainter
from scripts.fake_stages.workers import FakeBehaviour, FakeStages
from scripts.render.errors import RenderError
from scripts.render.film import Film, open_film
from scripts.render.job import RenderThread
from scripts.render.progress import RenderProgress
from scripts.render.source import Source, read_source
from scripts.talk.sound import SoundError, read_channels, synthetic_voice, write_wav
from tests.scripts.render.decoded import decode, lag

pytest.importorskip("av")

SECONDS = 2.3
NAMES = ("ada", "talk")
#: Most that pictures and sound may lie apart, in seconds.
IN_STEP = 0.020


class FailsOnce(set[int]):
    """Clip numbers, each of which is there for its first question only."""

    def __contains__(self, clip: object) -> bool:
        there = super().__contains__(clip)
        if there and isinstance(clip, int):
            self.discard(clip)
        return there


class Studio:
    """The stand-ins, and films by them."""

    def __init__(self, settings: Settings, stages: FakeStages) -> None:
        self.stages = stages
        self._settings = settings

    def film(self, source: Source, target: str) -> RenderThread:
        film: Film = open_film(target, source, 24)
        heard = source.heard()
        progress = RenderProgress(first_frame_from(len(heard), 24), 24)
        thread = RenderThread(self._settings, NAMES, heard, film, progress)
        thread.run()  # in this thread
        if not thread.finished:
            film.discard()
        return thread


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with tempfile.TemporaryDirectory(prefix="render-") as folder:
        settings = load_settings(["--run-dir", folder, "--fps", "24"])
        with FakeStages(settings, FacePainter(128)) as stages:
            yield Studio(settings, stages)


def bursts(rate: int, channels: int) -> Source:
    """Silence with loud sound from 0.5 to 0.75 s and from 1.5 to 1.75 s, in 16-bit steps."""
    voice = synthetic_voice(SECONDS, rate=rate) * 3
    time = np.arange(len(voice)) / rate
    loud = ((time >= 0.5) & (time < 0.75)) | ((time >= 1.5) & (time < 1.75))
    buzz = 0.5 * np.sign(np.sin(2 * np.pi * 190 * time)) + 0.2 * voice
    sound = np.where(loud, np.clip(buzz, -0.9, 0.9), 0)
    both = np.stack([sound * (1 - 0.25 * index) for index in range(channels)], 1)
    return Source(rate, (np.round(both * 32767) / 32768).astype(np.float32))


def mouth_opens(pictures: list[npt.NDArray[np.uint8]]) -> list[int]:
    """The pictures that differ most from the one before: the drawn mouth opens or shuts there."""
    change = [
        float(np.abs(a.astype(np.int16) - b.astype(np.int16))[70:].max())
        for a, b in itertools.pairwise(pictures)
    ]
    limit = 0.5 * max(change)
    return [index + 1 for index, value in enumerate(change) if value > limit]


def test_mp4_has_every_picture_in_its_place_and_sound_in_step(studio: Studio, tmp_path: Path) -> None:
    source = bursts(44100, 2)
    assert studio.film(source, str(tmp_path / "out.mp4")).fault == ""
    film = decode(tmp_path / "out.mp4")
    assert film.codecs == ("h264", "aac")
    assert film.times == pytest.approx([index / 24 for index in range(56)], abs=1e-6)  # 2.3 s, rounded up
    assert (film.rate, film.sound.shape) == (44100, source.channels.shape)
    assert abs(film.sound_begins) <= IN_STEP
    assert abs(lag(film.sound[:, 0], source.channels[:, 0], 44100)) <= IN_STEP
    # the fake face opens its mouth in the picture that has the first loud sample: 0.5 s is picture 12
    assert {12, 18, 36, 42} <= set(mouth_opens(film.pictures))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(("scale", "codec"), [(1.0, "flac"), (0.77, "pcm_f32le")])
def test_matroska_has_the_exact_samples(studio: Studio, tmp_path: Path, scale: float, codec: str) -> None:
    sound = bursts(48000, 2)
    source = Source(48000, (sound.channels * np.float32(scale)).astype(np.float32))
    assert studio.film(source, str(tmp_path / "out.mkv")).fault == ""
    film = decode(tmp_path / "out.mkv")
    assert film.codecs == ("h264", codec)
    np.testing.assert_array_equal(film.sound, source.channels)
    assert film.sound_begins == 0
    # Matroska counts in milliseconds
    assert film.times == pytest.approx([index / 24 for index in range(56)], abs=6e-4)


def test_a_folder_gets_the_workers_own_jpegs_and_the_exact_sound(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # as where PyAV is not installed
    source = bursts(22050, 1)
    with pytest.raises(RenderError, match=r"echomimic-live\[video\].*-o FOLDER/"):
        open_film(str(tmp_path / "out.mp4"), source, 24)
    assert studio.film(source, f"{tmp_path}/pictures/").fault == ""
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [*(f"{index:05d}.jpg" for index in range(56)), "sound.wav"]
    rate, channels = read_channels(tmp_path / "pictures/sound.wav")
    assert rate == 22050
    np.testing.assert_array_equal(channels, source.channels)
    with pytest.raises(RenderError, match="not an empty folder"):
        open_film(f"{tmp_path}/pictures/", source, 24)


@pytest.mark.parametrize(("failing", "history"), [(1, 8000), (4, 24000)])
def test_failed_clips_are_made_again_and_nothing_is_lost(
    studio: Studio, tmp_path: Path, failing: int, history: int
) -> None:
    studio.stages.behaviour = FakeBehaviour(failing_clips=FailsOnce({failing}), shuffle=True)
    try:
        source = bursts(16000, 1)
        assert studio.film(source, str(tmp_path / "out.mkv")).fault == ""
    finally:
        studio.stages.behaviour = FakeBehaviour()
    film = decode(tmp_path / "out.mkv")
    assert len(film.times) == 56
    assert {12, 18, 36, 42} <= set(mouth_opens(film.pictures))
    begins = [pcm for pcm in studio.stages.audio.received if pcm.seq == 0][-2:]
    # made again from this clip on, and heard with the sound before it
    assert [(pcm.pts, pcm.history) for pcm in begins] == [(0, 0), (8000 * failing, history)]


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (FakeBehaviour(failing_clips={2}), "clip 2 failed 4 times, lastly: gpu_worker: overload"),
        (FakeBehaviour(fatal=True), "clip 0 cannot be made: gpu_worker: the model has a fault"),
    ],
)
def test_a_clip_that_cannot_be_made_ends_the_film_and_leaves_no_file(
    studio: Studio, tmp_path: Path, behaviour: FakeBehaviour, fault: str
) -> None:
    studio.stages.behaviour = behaviour
    try:
        assert fault in studio.film(bursts(16000, 1), str(tmp_path / "out.mp4")).fault
    finally:
        studio.stages.behaviour = FakeBehaviour()
    assert list(tmp_path.iterdir()) == []


def test_sound_of_kinds_that_ffmpeg_alone_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    voice = synthetic_voice(1.0, rate=48000)
    with av.open(str(tmp_path / "voice.m4a"), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        file.mux([*stream.encode(frame), *stream.encode(None)])
    source = read_source(tmp_path / "voice.m4a")
    assert source.rate == 48000
    assert abs(lag(source.channels[:, 0], voice, 48000)) <= IN_STEP
    assert abs(len(source.heard()) - 16000) < 400
    (tmp_path / "text.m4a").write_text("no sound at all")
    with pytest.raises(SoundError, match=r"text\.m4a"):
        read_source(tmp_path / "text.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SoundError, match="convert it: ffmpeg"):
        read_source(tmp_path / "voice.m4a")


@pytest.mark.parametrize("colour", [(200, 40, 60), (30, 160, 90), (250, 250, 250), (5, 5, 5)])
def test_colours_survive(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(jpeg, "JPEG", quality=95, subsampling=0)
    film = open_film(str(tmp_path / "out.mp4"), bursts(16000, 1), 24)
    film.add_picture(jpeg.getvalue())
    film.finish()
    middle = decode(tmp_path / "out.mp4").pictures[0][32, 32]
    assert np.abs(middle.astype(int) - colour).max() <= 4


def test_what_the_model_hears(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", synthetic_voice(0.5, rate=48000), 48000)
    heard = read_source(tmp_path / "a.wav").heard()
    assert (heard.dtype.name, heard.shape) == ("float32", (8000,))


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"end it with \.mp4, \.mkv"):
        open_film(str(tmp_path / "out.avi"), bursts(16000, 1), 24)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("generated", [True, False])
def test_a_film_says_that_a_model_made_it_unless_that_is_switched_off(
    tmp_path: Path, ending: str, generated: bool
) -> None:
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(jpeg, "JPEG")
    film = open_film(str(tmp_path / f"out{ending}"), bursts(16000, 1), 24, generated=generated)
    film.add_picture(jpeg.getvalue())
    film.finish()
    content = (tmp_path / f"out{ending}").read_bytes()
    assert (DIGITAL_SOURCE_TYPE.encode() in content) == generated
    assert content.endswith(GENERATED_XMP) == (generated and ending == ".mp4")
    assert len(decode(tmp_path / f"out{ending}").pictures) == 1
