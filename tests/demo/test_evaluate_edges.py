"""Where edges are lost, on pictures whose verdict is known: the drawn truth, a frame late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from demo.factory.evaluate.bench import QUICK, Bench
from demo.factory.evaluate.command import SAMPLE
from demo.factory.evaluate.judge import Judge
from demo.factory.evaluate.material import HeldOut, Scene
from demo.factory.evaluate.path import Picture, StreamingPath
from demo.factory.evaluate.trial_edges import AS_SERVED, NEAREST, VAE_ALONE, EdgeRow, EdgeTrial, report
from protocol.wire.messages import Array16, Latents

FPS, FRAMES = 24, 8
#: Sides of the usual pictures and of the finer head's, and of latents.
SIDE, FINE, LATENT = 64, 512, 32


class LatePath:
    """Stands where the streaming path stands. Its pictures are the truth's, a frame late.

    Its latents are small pictures, and its decoder makes them larger: every edge loses by that alike.
    """

    fps = FPS

    def __init__(self, material: HeldOut, scene: Scene) -> None:
        self._material, self._scene = material, scene

    def latents(self, avatar: str, pose: str, samples: NDArray[np.float32]) -> Iterator[Latents]:
        states = self._material.states(self._scene, 0, FRAMES, FPS)
        who = self._material.identity(self._scene, FRAMES)
        drawn = self._material.renderer.render(who, states).mul(255).byte().permute(0, 2, 3, 1).numpy()
        late = np.concatenate((drawn[:1], drawn[:-1]))
        yield Latents("a", 0, 0, 0, FPS, self.encode(late))

    def encode(self, pictures: Picture) -> Array16:
        small = F.adaptive_avg_pool2d(torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float(), LATENT)
        latents: Array16 = small.div(255).half().numpy()
        return latents

    def pictures(self, latents: Array16, *, fine: bool) -> Picture:
        assert fine
        large = F.interpolate(torch.from_numpy(latents).float(), size=FINE, mode="bicubic").clamp(0, 1)
        pictures: Picture = large.mul(255).byte().permute(0, 2, 3, 1).numpy()
        return pictures


@pytest.fixture(scope="module")
def rows() -> list[EdgeRow]:
    torch.set_num_threads(1)
    material = HeldOut(SAMPLE / "identities.npz", SAMPLE / "speech.npz", 1, SIDE, torch.device("cpu"))
    (scene,) = material.scenes(1, 0.5)
    path = cast(StreamingPath, LatePath(material, scene))
    trial = EdgeTrial(Bench(path, material, Judge(material, FPS), QUICK), every=FRAMES)
    return list(trial.scene(scene))


def kept(rows: list[EdgeRow], way: str, place: str = "mouth") -> float:
    (row,) = [row for row in rows if (row.way, row.place) == (way, place)]
    return row.kept


def test_each_way_has_a_row_of_mouth_and_hands(rows: list[EdgeRow]) -> None:
    ways = {place: [row.way for row in rows if row.place == place] for place in ("mouth", "hands")}
    wrong = [f"drawn, the mouth {by} ms late" for by in (8, 17, 25)] + ["drawn, the mouth a tenth less open"]
    assert ways["mouth"] == [*ways["hands"], *wrong, NEAREST, "VAE alone, likest drawn mouth"]
    assert len(set(ways["mouth"])) == len(ways["mouth"]) == 14


def test_a_mouth_that_comes_late_is_told_by_the_frame_after(rows: list[EdgeRow]) -> None:
    assert kept(rows, "frame after") == pytest.approx(kept(rows, VAE_ALONE), abs=1e-3)
    assert kept(rows, "frame before") < kept(rows, AS_SERVED) < kept(rows, VAE_ALONE)


def test_true_latents_mend_the_place_where_they_are(rows: list[EdgeRow]) -> None:
    assert kept(rows, "true latents at the mouth") == pytest.approx(kept(rows, VAE_ALONE), abs=0.02)
    assert kept(rows, "true latents elsewhere") == pytest.approx(kept(rows, AS_SERVED), abs=0.02)


def test_the_likest_of_several_is_no_less_like(rows: list[EdgeRow]) -> None:
    served = next(row for row in rows if (row.way, row.place) == (AS_SERVED, "mouth"))
    for way in (NEAREST, "moved by a pixel"):
        likest = next(row for row in rows if (row.way, row.place) == (way, "mouth"))
        assert likest.likeness >= served.likeness


def test_the_report_has_all_tables(rows: list[EdgeRow]) -> None:
    tables = list(report(rows))
    assert [table.splitlines()[0].split(" | ")[0] for table in tables] == [
        "| mouth", "| hands", "| mouth, by moment", "| as served, by person",
    ]  # fmt: skip
    assert sum(table.count("\n") - 1 for table in tables[:2]) == 22


def test_a_perfect_drawing_that_is_a_little_late_loses_edges(rows: list[EdgeRow]) -> None:
    late = [kept(rows, f"drawn, the mouth {by} ms late") for by in (8, 17, 25)]
    assert 1 > late[0] > late[1] > late[2] > 0
