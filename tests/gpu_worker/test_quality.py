"""`--quality auto` by made-up timings: the pick, its sentence, and how little is timed."""

from __future__ import annotations

import pytest

from gpu_worker.quality.options import Quality, qualities
from gpu_worker.quality.search import MOST_SHARE, QualitySearch, Timing, describe
from protocol.process.settings import Settings, load_settings

STEPS = 6

#: Seconds of 12 frames: exact tier, fast tier, and by decoder.
Card = tuple[float, float, dict[str, float]]

#: Figures of docs/lab at 512² and 768², and estimates of docs/lab/older-cards.md at 512².
H200_512: Card = (0.21, 0.133, {"kl": 0.060, "kl-8bit": 0.043, "tiny": 0.016})
H200_768: Card = (0.62, 0.361, {"kl": 0.143, "kl-8bit": 0.102, "tiny": 0.030})
RTX_4090: Card = (1.2, 0.71, {"kl": 0.36, "kl-8bit": 0.36, "tiny": 0.08})
RTX_3090: Card = (2.8, 1.8, {"kl": 0.84, "kl-8bit": 0.84, "tiny": 0.19})
FASTEST: Card = (0.06, 0.04, {"kl": 0.02, "kl-8bit": 0.015, "tiny": 0.005})


def settings(*argv: str) -> Settings:
    return load_settings(list(argv), env={})


def real_seconds(card: Card, timing: Timing) -> float:
    """Clips in a row take as long as denoising and decoding together."""
    exact, fast, decoders = card
    quality, tiers = timing.quality, {"exact": exact, "fast": fast}
    if timing.kind == "flow":
        steps = (STEPS - quality.late_start) / STEPS
        whole = tiers[quality.tier] * steps + decoders[quality.decoding]
    else:
        whole = (tiers if timing.kind == "denoise" else decoders)[timing.name]
    return whole * (quality.frames + 0.9) / 12.9


def search(card: Card, *argv: str, tiny: bool = True, **options: bool) -> tuple[QualitySearch, list[Timing]]:
    """The search at its end, and what it timed."""
    found = QualitySearch(qualities(settings(*argv), STEPS, tiny=tiny), STEPS, **options)
    asked: list[Timing] = []
    while (timing := found.next()) is not None:
        assert len(asked) < 20
        asked.append(timing)
        found.timed(timing, real_seconds(card, timing))
    return found, asked


def pick(card: Card, *argv: str, **options: bool) -> Quality | None:
    return search(card, *argv, **options)[0].result


def test_a_fast_card_gets_the_best_by_two_timings() -> None:
    found, asked = search(FASTEST)
    assert str(found.result) == "--tier exact --late-start 0 --decoder kl --clip-frames 2 at 24 fps"
    assert [timing.key for timing in asked] == [("denoise", "exact", 2), ("decode", "kl", 2)]
    assert describe(found, "512×512")[0].endswith("nothing better is left open")


def test_an_h200_holds_exact_clips_of_two_frames_at_512() -> None:
    """As it was measured but for the flow, which was 65 ms with 1.6 ms of inputs that a thread prepares now.

    The sum says 91 % of a clip, and clips in a row say 78 %.
    """
    quality = pick(H200_512)
    assert quality is not None
    assert (quality.tier, quality.late_start, quality.decoder, quality.clip_frames) == ("exact", 0, "kl", 2)
    measured = {"denoise": 0.0540, "decode": 0.0160, "flow": 0.0634}
    found = QualitySearch(qualities(settings(), STEPS, tiny=True), STEPS)
    asked: list[Timing] = []
    while (timing := found.next()) is not None:
        asked.append(timing)
        found.timed(timing, measured[timing.kind])
    assert [timing.kind for timing in asked] == ["denoise", "decode", "flow"]
    quality = found.result
    assert quality is not None
    assert (quality.tier, quality.late_start, quality.decoder, quality.clip_frames) == ("exact", 0, "kl", 2)
    assert found.share(quality) == pytest.approx(0.78, abs=0.01)


def test_clips_in_a_row_that_are_too_slow_give_way() -> None:
    """The next length is timed by itself, and the failed flow is not asked for again."""
    found = QualitySearch(qualities(settings(), STEPS, tiny=True), STEPS)
    asked: list[Timing] = []
    while (timing := found.next()) is not None:
        assert len(asked) < 20
        asked.append(timing)
        two = timing.quality.frames == 2
        sums = {"denoise": 0.0524, "decode": 0.0138} if two else {"denoise": 0.068, "decode": 0.018}
        found.timed(timing, 0.070 if timing.kind == "flow" else sums[timing.kind])
    assert [timing.kind for timing in asked] == ["denoise", "decode", "flow", "denoise", "decode"]
    assert found.result is not None and found.result.clip_frames == 3


def test_at_768_it_gives_up_what_costs_least() -> None:
    found, asked = search(H200_768)
    quality = found.result
    assert quality is not None
    assert (quality.tier, quality.fps, quality.decoder) == ("fast", 24, "kl")
    # one timing of the exact tier and of its decoder is enough to know that it is too slow
    assert [timing.key for timing in asked[:2]] == [("denoise", "exact", 2), ("decode", "kl", 2)]
    assert all(timing.name in ("fast", "kl-8bit", "clips in a row") for timing in asked[2:])
    assert quality.late_start == STEPS // 3
    line, notice = describe(found, "768×768")
    assert "would take a card" in line and notice == ""


def by_figures(
    choices: list[Quality], figures: dict[tuple[str, str, int], float]
) -> tuple[Quality | None, list[str]]:
    """The pick by measured seconds, and the timings that it took."""
    found, asked = QualitySearch(choices, STEPS), list[str]()
    while (timing := found.next()) is not None:
        asked.append(f"{timing.kind} {timing.name} {timing.quality.frames}")
        found.timed(timing, figures[timing.key])
    return found.result, asked


def test_a_team_of_two_gets_clips_of_four_frames_at_768() -> None:
    """By its times of 2, 4 and 6 frames. The flow is four of six steps, and the GPU's part of decoding."""
    figures = {
        ("denoise", "exact", 2): 0.081, ("denoise", "exact", 4): 0.126, ("denoise", "exact", 6): 0.172,
        ("decode", "kl", 2): 0.036, ("decode", "kl", 4): 0.053, ("decode", "kl", 6): 0.077,
        ("flow", "clips in a row", 4): 0.084 + 0.041,
    }  # fmt: skip
    choices = [
        one for one in qualities(settings("--tier", "exact"), STEPS, tiny=False) if one.frames % 2 == 0
    ]
    quality, asked = by_figures(choices, figures)
    assert quality is not None
    assert (quality.late_start, quality.clip_frames) == (2, 4)
    assert asked == [
        "denoise exact 2", "decode kl 2", "denoise exact 4", "decode kl 4", "flow clips in a row 4",
    ]  # fmt: skip
    figures["flow", "clips in a row", 4] = 0.136  # 82 % with Whisper
    quality, asked = by_figures(choices, figures)
    assert quality is not None
    assert (quality.late_start, quality.clip_frames) == (2, 6)


def test_a_length_between_two_that_were_timed_is_estimated_by_both() -> None:
    choices = qualities(settings("--tier", "exact", "--late-start", "0", "--fps", "24"), STEPS, tiny=False)
    found, by_frames = QualitySearch(choices, STEPS), {one.clip_frames: one for one in choices}
    for frames, seconds in ((2, 0.060), (6, 0.180)):
        found.timed(Timing("denoise", "exact", by_frames[frames]), seconds)
    for frames, wanted in ((2, 0.060), (3, 0.090), (4, 0.120), (6, 0.180), (12, 0.180 * 12.9 / 6.9)):
        share = found.share(by_frames[frames])
        assert share * by_frames[frames].lasts == pytest.approx(wanted + 0.006), frames


def test_one_card_at_768_makes_the_fast_tier_ready_for_one_length() -> None:
    """By the times of an H200, whose first start had made it ready for 12 and for 3 frames too."""
    figures = {
        ("denoise", "exact", 2): 0.119, ("decode", "kl", 2): 0.036,
        ("denoise", "fast", 4): 0.126, ("decode", "kl-8bit", 4): 0.044, ("flow", "clips in a row", 4): 0.129,
    }  # fmt: skip
    quality, asked = by_figures(qualities(settings(), STEPS, tiny=False), figures)
    assert quality is not None
    assert (quality.tier, quality.late_start, quality.clip_frames) == ("fast", 2, 4)
    assert len(asked) == 5


def test_a_third_of_the_steps_goes_before_a_clip_has_twelve_frames() -> None:
    order = [
        (one.late_start, one.clip_frames) for one in qualities(settings("--tier", "exact"), STEPS, tiny=False)
    ]
    assert order[:10] == [*((0, n) for n in (2, 3, 4, 6)), *((2, n) for n in (2, 3, 4, 6)), (0, 12), (2, 12)]


def test_whatever_is_picked_leaves_a_fifth() -> None:
    for card in (H200_512, H200_768, RTX_4090, FASTEST):
        found, _ = search(card)
        assert found.result is not None
        assert found.share(found.result) <= MOST_SHARE


def test_an_older_card_gives_up_frames_last() -> None:
    """By the estimate for a 4090, 24 fps take 0.44 of 0.5 s even with everything given up."""
    found, _ = search(RTX_4090)
    assert found.result is not None and found.result.fps == 12
    least = min((q for q in qualities(settings(), STEPS, tiny=True) if q.fps == 24), key=found.share)
    assert found.share(least) > MOST_SHARE
    faster = (RTX_4090[0] * 0.8, RTX_4090[1] * 0.8, RTX_4090[2])
    quality = pick(faster)
    assert quality is not None
    assert (quality.fps, quality.tier, quality.late_start, quality.decoder) == (24, "fast", 3, "tiny")


def test_without_the_small_decoder_it_is_never_picked() -> None:
    quality = pick(RTX_4090, tiny=False)
    assert quality is None or quality.decoder == "kl"


def test_a_card_that_holds_nothing_is_told_so_in_a_sentence() -> None:
    found, asked = search(RTX_3090, "--fps", "24")
    assert found.result is None
    line, notice = describe(found, "512×512")
    assert line == notice
    assert notice.startswith("this card is too slow for 512×512: a clip of 0.") and "--width" in notice
    assert len(asked) <= 6


def test_flags_that_are_given_win() -> None:
    given = ("--tier", "exact", "--late-start", "3", "--decoder", "kl", "--clip-frames", "12", "--fps", "24")
    assert pick(H200_768, *given) is None  # 0.31 + 0.14 of 0.5 s
    wanted: list[tuple[str, object, tuple[str, ...]]] = [
        ("clip_frames", 12, ("--clip-frames", "12")),
        ("tier", "exact", ("--tier", "exact")),
        ("late_start", 0, ("--late-start", "0")),
        ("decoder", "tiny", ("--decoder", "tiny")),
        ("fps", 12, ("--fps", "12")),
        ("late_start", 0, ("--no-use-init-latent",)),
    ]
    for name, value, flags in wanted:
        quality = pick(H200_768, *flags)
        assert quality is not None, flags
        assert getattr(quality, name) == value, (flags, quality)


def test_another_device_for_decoding_takes_its_part() -> None:
    together, apart = pick(H200_768), pick(H200_768, apart=True)
    assert together is not None and apart is not None
    assert apart.loss < together.loss


def test_a_tier_that_fails_is_left_out() -> None:
    found = QualitySearch(qualities(settings(), STEPS, tiny=True), STEPS)
    while (timing := found.next()) is not None:
        failed = timing.name in ("exact", "kl", "kl-8bit")
        found.timed(timing, None if failed else real_seconds(FASTEST, timing))
    assert found.result is not None
    assert (found.result.tier, found.result.decoder) == ("fast", "tiny")


def test_nothing_timed_is_told() -> None:
    found = QualitySearch(qualities(settings(), STEPS, tiny=False), STEPS)
    while (timing := found.next()) is not None:
        found.timed(timing, None)
    assert found.result is None and describe(found, "512×512") == ("nothing could be timed", "")


@pytest.mark.parametrize("fps", [24, 12, 8])
def test_every_rate_keeps_whole_frames(fps: int) -> None:
    """A clip of every quality can be thinned to its rate."""
    for quality in qualities(settings(), STEPS, tiny=True):
        if quality.fps == fps:
            assert quality.clip_frames * fps % 24 == 0
            assert quality.lasts == quality.clip_frames / 24
