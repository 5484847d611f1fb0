"""The page's buffer, by a clock of the test: small where clips keep their time, larger where they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.node_programs import HAS_SOCKET, PACKAGE, run_node

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not HAS_SOCKET, reason="needs Node.js 20.10"),
]

#: A minute of speech in real time, half a second of quiet in 2.7 s. A clip's sound comes DELAY seconds
#: after its last sample. Its first two pictures are ready then, and the other two DECODE seconds later.
#: The screen paints 60 times a second. Prints figures of all after 4 s: the mean buffer of clips with a
#: voice, late clips, pictures that were shown 20 ms late or not at all, seconds for which a picture
#: stayed too long, and how even the steps between pictures are.
PROGRAM = """
import { Playout } from "PACKAGE/client/playout.js";
import { Stats } from "PACKAGE/client/stats.js";
let state = 7;
const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
const about = (spread) => (random() + random() + random() + random() - 2) * Math.sqrt(3) * spread;
let now = 0;
performance.now = () => now * 1000;
globalThis.document = { hidden: false };
const stats = new Stats();
const canvas = { width: 1, height: 1, getContext: () => ({ drawImage() {} }) };
const playout = new Playout(canvas, stats, { taken() {}, shown() {} });
playout.timeline = { get now() { return now; }, heard: (when) => when / 1000, play: () => null, close() {} };
playout.pictures = { decode: async () => ({ width: 1, height: 1, close() {} }) };
playout.live = true;
playout.muted = MUTED;
const size = 2667;
const events = [];
let came = 0;
for (let clip = 0; clip * size < 60 * 16000; clip += 1) {
  const loud = clip % 16 < 13;
  came = Math.max(came, ((clip + 1) * size) / 16000 + (DELAY));
  events.push({ at: came, clip, loud });
  for (const index of [0, 1, 2, 3]) events.push({ at: came + 0.001 + (index > 1 ? DECODE : 0), clip, index });
}
for (let at = 0; at < 60; at += 1 / 60) events.push({ at, paint: true });
events.sort((a, b) => a.at - b.at);
const inHand = [];
let late = 0;
let frozen = 0;
let last = 0;
const steps = [];
playout.draw = (frame) => {
  const step = now - last;
  last = now;
  if (now < 4) return;
  if (now - frame.due > 0.02) late += 1;
  if (step > 0.075) frozen += step - 1 / 24;
  else steps.push(Math.abs(step - 1 / 24));
};
const after = (value, at) => (at < 4 ? 0 : value);
let clipsLate = 0;
let passedOver = 0;
for (const { at, clip, loud, index, paint } of events) {
  now = at;
  if (paint) {
    const before = stats.passedOver;
    playout.paint();
    passedOver += after(stats.passedOver - before, at);
  } else if (index === undefined) {
    const samples = Float32Array.from({ length: size }, (_, n) => (loud ? 0.2 : 0) * Math.sin(n / 9));
    const pts = clip * size;
    const before = stats.underruns;
    playout.audio({ epoch: 0, seq: clip, pts, position: pts, own: size, samples, pictures: true }, null);
    clipsLate += after(stats.underruns - before, at);
    if (at > 4 && loud) inHand.push(stats.buffer);
  } else {
    const pts = clip * size + Math.round((index * 16000) / 24);
    const message = { epoch: 0, seq: clip, index, count: 4, pts, codec: "jpeg", idle: false, data: [] };
    await playout.picture(message);
  }
}
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
console.log(JSON.stringify({
  inHand: mean(inHand), clipsLate, late: late + passedOver, frozen, uneven: mean(steps), faster: stats.faster,
}));
"""

QUIET = "0.07 + about(0.004)"
BUSY = "0.2 + about(0.06)"
#: Silence is not computed, so its clips come early. The first clip loads an avatar.
SILENT = "loud ? 0.14 + about(0.008) + (clip ? 0 : 0.06) : 0.015"
OUTLIERS = "0.14 + about(0.005) + (clip % 100 === 99 ? 0.1 : 0)"


def figures(tmp_path: Path, delay: str, *, decode: str = "0.02", muted: bool = True) -> dict[str, float]:
    program = PROGRAM.replace("PACKAGE", str(PACKAGE)).replace("DELAY", delay).replace("DECODE", decode)
    (line,) = run_node(tmp_path, program.replace("MUTED", json.dumps(muted)))
    told: dict[str, float] = json.loads(line)
    return told


@pytest.mark.parametrize("muted", [True, False], ids=["muted", "heard"])
@pytest.mark.parametrize(
    ("delay", "most", "clips_late", "late"),
    [
        (QUIET, 0.035, 0, 0),
        ("0.14 + about(0.008)", 0.055, 0, 0),
        ("(clip ? 0.14 : 0.18) + about(0.005)", 0.035, 0, 0),  # the first clip loads an avatar
        (SILENT, 0.045, 0, 0),
        (OUTLIERS, 0.14, 3, 4),
        (BUSY, 0.22, 2, 2),
    ],
)
def test_the_buffer_follows_the_clips(
    tmp_path: Path, delay: str, most: float, clips_late: int, late: int, muted: bool
) -> None:
    told = figures(tmp_path, delay, muted=muted)
    assert 0.01 < told["inHand"] < most, told
    assert told["clipsLate"] <= clips_late and told["late"] <= late, told


def test_pictures_that_come_late_count_as_the_clip(tmp_path: Path) -> None:
    """The sound is in time, and the last two pictures are not. Nobody hears that the turn moves."""
    told = figures(tmp_path, QUIET, decode="0.12 + about(0.01)")
    assert told["late"] == 0 and told["inHand"] > 0.035, told


def test_a_late_clip_holds_a_muted_picture_no_longer_than_it_was_late(tmp_path: Path) -> None:
    told = figures(tmp_path, OUTLIERS)
    assert told["frozen"] < 0.1 * 3, told


def test_pictures_move_evenly_while_the_buffer_changes(tmp_path: Path) -> None:
    """A screen alone, of 60 pictures a second for 24, is 8 ms from even steps."""
    assert figures(tmp_path, QUIET)["uneven"] < 0.0095
    assert figures(tmp_path, BUSY)["uneven"] < 0.011
