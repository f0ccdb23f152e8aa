"""What a run reserves: the sums, the limits, and an estimate that holds on machines of several kinds."""

from __future__ import annotations

import itertools
import random

import pytest

import duration
import estimate
from duration import Reservation
from errors import BadInput, SetupError
from estimate import FIRST, LOAD, PICTURE, SECOND, SOUND, STAGE_NAMES, WRITE
from modes import MODES
from request import Request


def job(mode: str = "t2v", **values) -> Request:
    """A request; files need not be there."""
    size = {"prompt": "a fox", "width": 768, "height": 512, "seconds": 5.0}
    return Request(mode=mode, **{**size, **values})


def fresh(weights: str = "fp8", size: str = "large") -> estimate.Speeds:
    """Nothing measured yet."""
    return estimate.Speeds(duration.costs(weights, size))


def learn(known: estimate.Speeds, request: Request, stages: list[tuple[str, float]]) -> None:
    """Teach it a run whose samplers did nothing but steps."""
    known.learn(request, stages, [pair for pair in stages if pair[0] in (FIRST, SECOND)])


class Machine:
    """Seconds a stage really takes: so much at least, so much a forward, so much a unit of work."""

    def __init__(self, least: float, forward: float, unit: float, noise: float = 0.0):
        self.least, self.forward, self.unit = least, forward, unit
        self.noise, self.random = noise, random.Random(7)

    def run(self, request: Request) -> list[tuple[str, float]]:
        """(stage, seconds) of one warm run."""
        forwards = dict(
            zip((FIRST, SECOND), MODES[request.mode].presets[request.preset].forwards, strict=True)
        )
        found = []
        for name, units in estimate.work(request).items():
            if name == LOAD:
                continue
            unit = self.unit if name in forwards else 5 * self.unit
            seconds = self.least + forwards.get(name, 0) * self.forward + units * unit
            found.append((name, seconds * (1 + self.random.uniform(-self.noise, self.noise))))
        return found


CARD = Machine(0.05, 0.0, 0.004, 0.03)
SMALL_CARD = Machine(0.1, 0.02, 0.02, 0.03)
PROCESSOR = Machine(0.2, 0.03, 0.004, 0.05)


# ---------------------------------------------------------------------------- the estimate


@pytest.mark.parametrize("machine", [CARD, SMALL_CARD, PROCESSOR])
def test_a_measured_estimate_is_never_too_short_and_at_most_1_6_times_too_long(machine):
    known = fresh()
    sizes = ((768, 512, 5.0), (512, 320, 3.0), (1024, 576, 8.0))
    for width, height, seconds in sizes * 2:
        request = job(width=width, height=height, seconds=seconds)
        learn(known, request, machine.run(request))
    fixed = duration.STARTING["fp8"] + duration.LOADING["fp8"][0]
    for preset, (width, height, seconds) in itertools.product(
        ("fast", "balanced", "quality"), (*sizes, (640, 448, 4.0), (1280, 704, 6.0))
    ):
        request = job(width=width, height=height, seconds=seconds, preset=preset)
        took = fixed + sum(seconds for _, seconds in machine.run(request))
        needed = duration.reserve(request, "fp8", known, True, most=3600).needed
        assert 1.0 <= needed / took <= 1.6, (preset, width, height, seconds, needed / took)


def test_one_odd_run_changes_nothing():
    known, request = fresh(), job()
    for _ in range(4):
        learn(known, request, CARD.run(request))
    before = known.seconds(request, warm=True)
    learn(known, request, [(name, 20 * seconds) for name, seconds in CARD.run(request)])
    after = known.seconds(request, warm=True)
    assert after[FIRST] == pytest.approx(before[FIRST], rel=0.1)
    assert after[PICTURE] == pytest.approx(before[PICTURE], rel=0.1)


def test_a_machine_that_became_slower_is_believed():
    known, request = fresh(), job()
    for factor in (1, 1, 3, 3, 3, 3, 3):
        learn(known, request, [(name, factor * seconds) for name, seconds in CARD.run(request)])
    slow = dict(CARD.run(request))[FIRST] * 3
    assert known.seconds(request, warm=True)[FIRST] == pytest.approx(slow, rel=0.1)


def test_the_first_run_tells_only_how_fast_its_steps_are():
    known, request = fresh(), job()

    known.learn(request, [(FIRST, 60.0), (PICTURE, 99.0)], [(FIRST, 9.0)])
    found = known.seconds(request, warm=True)
    assert found[FIRST] == pytest.approx(9.0 + known.costs.fixed[FIRST])
    assert found[PICTURE] < 10.0
    known.learn(request, [(PICTURE, 99.0)], [(FIRST, 9.0)])
    assert known.seconds(request, warm=True)[PICTURE] == pytest.approx(99.0)


@pytest.mark.parametrize(("factor", "rest"), [(3.0, 3.0), (0.5, 1.0)])
def test_what_was_not_measured_takes_longer_where_sampling_does(factor, rest):
    known, request = fresh(), job()
    assumed = known.seconds(request, warm=True)
    fixed = known.costs.fixed[FIRST]
    known.learn(request, [], [(FIRST, factor * assumed[FIRST] - fixed)])
    found = known.seconds(request, warm=True)
    assert found[FIRST] == pytest.approx(factor * assumed[FIRST])
    assert found[PICTURE] == pytest.approx(rest * assumed[PICTURE])


def test_a_samplers_steps_are_timed_without_what_comes_before_the_first():
    clock = estimate.Clock({}, known=False)
    clock.enter(FIRST, 100.0)
    for step, when in ((1, 140.0), (2, 142.0), (3, 144.0), (4, 146.0)):
        clock.step(step, 4, when)
    clock.enter(PICTURE, 147.0)
    clock.finish(150.0)
    assert clock.stages() == ((FIRST, 47.0), (PICTURE, 3.0))
    assert clock.sampling() == ((FIRST, 8.0),)


def test_one_run_counts_more_for_its_own_size_than_for_another():
    known = fresh()
    small, large = job(width=256, height=192, seconds=1.0), job()
    for request, factor in ((small, 1.0), (large, 3.0)) * 2:
        one = known.costs.seconds(request)[PICTURE]
        known.learn(request, [(PICTURE, factor * one)], [(FIRST, 1.0)])
    assert known.seconds(small, warm=True)[PICTURE] == pytest.approx(
        known.costs.seconds(small)[PICTURE], rel=0.2
    )
    assert known.seconds(large, warm=True)[PICTURE] == pytest.approx(
        3 * known.costs.seconds(large)[PICTURE], rel=0.2
    )


def test_a_new_workers_loading_is_measured_and_not_taken_for_its_stages_own_time():
    known, request = fresh(), job()
    usual = [("Reading the prompt", 1.0), (FIRST, 6.0), (PICTURE, 3.0)]
    for _ in range(3):
        learn(known, request, usual)
    before = known.seconds(request, warm=True)
    assert known.loading(13.0) == 13.0  # nothing was loaded yet
    loaded = [("Reading the prompt", 5.0), (FIRST, 26.0), (PICTURE, 3.0)]
    for _ in range(3):
        known.learn(request, loaded, [(FIRST, 6.0 - known.costs.fixed[FIRST])], fresh=True)
    assert known.seconds(request, warm=True) == pytest.approx(before)
    assert known.loading(13.0) == pytest.approx(24.0)
    needed = duration.expected(request, "fp8", known, warm=True)
    stages = sum(before.values())
    assert needed == pytest.approx(duration.STARTING["fp8"] + 24.0 + stages)
    never_read = duration.expected(request, "fp8", known, warm=False)
    assert never_read == pytest.approx(needed - 24.0 + duration.LOADING["fp8"][1])


def test_edges_of_a_source_video_are_counted_at_their_own_size():
    fast, quality = (job("style", video="a.mp4", preset=key) for key in ("fast", "quality"))
    costs = duration.costs("demo", "large")
    one, four = (costs.seconds(request)["Preparing the inputs"] for request in (fast, quality))
    assert four > 3 * one
    assert costs.seconds(fast)[PICTURE] == costs.seconds(quality)[PICTURE]


def test_a_given_sound_is_not_decoded():
    made, given = job(), job("a2v", audio="a.wav")
    costs = duration.costs("fp8", "large")
    assert costs.seconds(made)[SOUND] > 0
    assert costs.seconds(given)[SOUND] == 0


def test_a_mode_is_estimated_from_its_own_runs():
    known = fresh()
    picture, film = job("t2v"), job("i2v", image="cat.png")
    for number in range(2):
        learn(known, picture, [(FIRST, 2.0), (WRITE, 1.0)])
        assert known.knows("t2v") == bool(number)  # of the first run only the steps count
        learn(known, film, [(FIRST, 5.0), (WRITE, 1.0)])
    assert known.seconds(picture, warm=True)[FIRST] == 2.0
    assert known.seconds(film, warm=True)[FIRST] == 5.0
    assert known.knows("i2v")
    assert not known.knows("a2v")


def test_many_runs_of_one_size_do_not_drive_out_another():
    known, small = fresh(), job(width=256, height=192, seconds=1.0)
    for _ in range(2):
        learn(known, small, [(WRITE, 0.5), (FIRST, 1.0)])
    for _ in range(100):
        learn(known, job(), [(WRITE, 9.0), (FIRST, 20.0)])
    assert known.seconds(small, warm=True)[WRITE] == 0.5
    assert all(len(seen) <= 4 * estimate.RECENT for seen in known._seen.values())


def test_a_larger_job_never_needs_less():
    known = fresh()
    learn(known, job(), CARD.run(job()))
    needs = [
        duration.expected(job(seconds=seconds), "fp8", known, True) for seconds in (1, 2, 4, 6, 9)
    ]
    assert needs == sorted(needs)


# ---------------------------------------------------------------------------- the reservation


def test_large_declares_two_thirds_of_what_it_is_granted():
    reserved = Reservation(60, "large", 1.5)
    assert (reserved.declared, reserved.granted, reserved.quota) == (40, 60, 60)
    assert "Reserves about 60 s of GPU quota" in reserved.sentence
    assert "40 s declared, times 1.5" in reserved.sentence


def test_xlarge_is_declared_as_it_is_and_counts_twice():
    reserved = Reservation(60, "xlarge", 1.0)
    assert (reserved.declared, reserved.granted, reserved.quota) == (60, 60, 120)
    assert "120 s of GPU quota" in reserved.sentence
    assert "counts twice" in reserved.sentence


def test_what_is_declared_is_never_granted_less():
    for seconds in range(1, 400):
        assert Reservation(seconds, "large", 1.5).granted >= seconds - 0.5  # ZeroGPU rounds, too


def test_a_tiny_run_reserves_the_least_and_a_long_one_the_most():
    tiny = job(width=256, height=192, seconds=1.0)
    assert duration.reserve(tiny, "demo", fresh("demo"), True).seconds == duration.MINIMUM
    wanted = duration.expected(job(), "fp8", fresh(), True)
    most = int(wanted * 1.2)  # it fits, its margin does not
    assert duration.reserve(job(), "fp8", fresh(), True, most=most).seconds == most


def test_cold_weights_and_slower_presets_reserve_more():
    def needed(warm: bool, preset: str, size: str = "large", weights: str = "fp8") -> float:
        request = job(preset=preset)
        return duration.reserve(
            request, weights, fresh(weights, size), warm, size=size, most=9999
        ).needed

    assert needed(False, "fast") > needed(True, "fast")
    assert needed(True, "fast") < needed(True, "balanced") < needed(True, "quality")
    assert needed(True, "quality", "xlarge", "bf16") < needed(True, "quality")


def test_a_run_that_cannot_fit_names_settings_that_do():
    request = job(preset="quality", width=1280, height=704, seconds=10.0)
    with pytest.raises(BadInput) as caught:
        duration.reserve(request, "fp8", fresh(), True, most=60)
    assert "a run may take 60 s here" in caught.value.what
    assert caught.value.advice.startswith("Nearest that fits: ")
    size = next(
        w for w in caught.value.advice.replace(",", " ").split() if "x" in w and w[0].isdigit()
    )
    width, height = (int(part.rstrip(".")) for part in size.split("x"))
    fits = [
        request.replace(width=width, height=height, preset=preset, seconds=seconds)
        for preset, seconds in itertools.product(("fast", "quality"), (1.0, 2.0, 10.0))
    ]
    assert any(duration.expected(one, "fp8", fresh(), True) <= 60 for one in fits)


def test_nothing_that_fits_points_to_the_owners_setting():
    with pytest.raises(BadInput) as caught:
        duration.reserve(job(), "fp8", fresh(), True, most=15)
    assert duration.SETTING in caught.value.advice


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 300), (" 120 ", 120), ("15", 15), ("3600", 3600)]
)
def test_the_owners_maximum_is_honoured(text, seconds):
    assert duration.maximum({duration.SETTING: text}) == seconds


@pytest.mark.parametrize("text", ["14", "3601", "-60", "1e2", "60.0", "two", "\u0662\u0660"])
def test_a_maximum_that_is_none_says_so(text):
    with pytest.raises(SetupError) as caught:
        duration.maximum({duration.SETTING: text})
    assert duration.SETTING in str(caught.value)


def test_a_second_attempt_has_twice_the_time_or_does_not_happen():
    assert Reservation(40, "large", 1.5).doubled(300).seconds == 80
    assert Reservation(40, "large", 1.5).doubled(60).seconds == 60
    assert Reservation(60, "large", 1.5).doubled(60) is None
    assert Reservation(59, "large", 1.5).doubled(60) is None  # 60 are granted already


def test_every_stage_of_a_card_has_a_speed():
    tables = (duration.LARGE, estimate.CUDA, estimate.DEMO)
    assert all(set(costs.unit) == set(STAGE_NAMES) for costs in tables)
    assert all(set(costs.fixed) <= set(STAGE_NAMES) for costs in tables)
    xlarge = duration.costs("bf16", "xlarge").unit
    assert all(xlarge[name] <= one for name, one in duration.LARGE.unit.items())
