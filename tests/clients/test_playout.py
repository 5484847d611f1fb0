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

#: Speech in real time, half a second of quiet in 2.7 s. A clip's sound comes DELAY seconds after its last
#: sample. Prints the mean buffer after 4 s, the late clips, and the seconds that pauses were shortened by.
PROGRAM = """
import { Playout } from "PACKAGE/client/playout.js";
import { Stats } from "PACKAGE/client/stats.js";
let state = 7;
const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
const about = (spread) => (random() + random() + random() + random() - 2) * Math.sqrt(3) * spread;
const stats = new Stats();
const playout = new Playout({ getContext: () => ({}) }, stats, { taken() {}, shown() {} });
let now = 0;
playout.timeline = { get now() { return now; }, play: () => null, close() {} };
playout.live = true;
const size = 2667;
const early = [];
for (let clip = 0; clip * size < 60 * 16000; clip += 1) {
  now = Math.max(now, ((clip + 1) * size) / 16000 + (DELAY));
  const loud = clip % 16 < 13 ? 0.2 : 0;
  const samples = Float32Array.from({ length: size }, (_, n) => loud * Math.sin(n / 9));
  const pts = clip * size;
  playout.audio({ epoch: 0, seq: clip, pts, position: pts, own: size, samples, pictures: true }, null);
  if (pts > 4 * 16000) early.push(stats.buffer);
}
const mean = early.reduce((sum, value) => sum + value, 0) / early.length;
console.log(JSON.stringify({ mean, late: stats.underruns, faster: stats.faster, lead: playout.lead }));
"""


@pytest.mark.parametrize(
    ("delay", "most", "late"),
    [
        ("0.07 + about(0.004)", 0.030, 0),  # a quiet machine
        ("0.14 + about(0.008)", 0.042, 0),
        ("(clip ? 0.14 : 0.18) + about(0.005)", 0.042, 0),  # the first clip loads an avatar
        ("0.14 + about(0.005) + (clip % 100 === 99 ? 0.1 : 0)", 0.15, 1),  # one in a hundred is late
        ("0.2 + about(0.06)", 0.30, 4),  # a busy machine
    ],
)
def test_the_buffer_follows_the_clips(tmp_path: Path, delay: str, most: float, late: int) -> None:
    program = PROGRAM.replace("PACKAGE", str(PACKAGE)).replace("DELAY", delay)
    (line,) = run_node(tmp_path, program)
    told = json.loads(line)
    assert 0.01 < told["mean"] < most and told["late"] <= late, told
    assert told["faster"] < 0.5
