"""The order in which pictures are taken where the time may end before them."""

from __future__ import annotations

from PIL import Image

from demo.factory.evaluate.fit.pictures import FitPicture, in_turn


def test_kinds_come_in_turn() -> None:
    picture = Image.new("RGB", (1, 1))
    many = [FitPicture("many", str(number), picture) for number in range(9)]
    few = [FitPicture("few", str(number), picture) for number in range(3)]
    ordered = list(in_turn([*many, *few]))
    assert [each.kind for each in ordered[:6]] == ["many", "few"] * 3
    assert {each.name for each in ordered if each.kind == "many"} == {each.name for each in many}
    assert len(ordered) == 12 and ordered == list(in_turn([*many, *few]))
    assert [each.name for each in ordered if each.kind == "many"] != [each.name for each in many]
