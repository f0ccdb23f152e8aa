"""ZeroGPU, proven against the real ``spaces`` package: really forking, streaming, dying.

A stand-in for the scheduler (``zero_scheduler.py``) and one process that believes it is a Space
(``zero_driver.py``) serve all tests here; ``test_zerogpu_real.py`` has ComfyUI in it.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import pytest
import samples
from zero_app import LINUX, VISITOR, App, settled, token
from zero_scheduler import Answer, Scheduler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason=LINUX)
MOST = 20  # the Space's own limit in these tests, seconds


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A Space without ComfyUI, and its scheduler."""
    log = tmp_path_factory.mktemp("zero") / "space.log"
    with (
        Scheduler() as scheduler,
        App(scheduler.url, log, LTX23_AIO_MAX_GPU_SECONDS=str(MOST)) as app,
    ):
        app.fake("steps", visitor=VISITOR).end(60)  # Gradio's own first time
        yield app, scheduler


@pytest.fixture
def app(space):
    """The Space, its scheduler set back and every GPU given back."""
    app, scheduler = space
    scheduler.slots, scheduler.keep_warm, scheduler.answers = 1, True, []
    scheduler.allows, scheduler.releases = [], []
    scheduler.calls.clear()
    app.scheduler = scheduler
    yield app
    settled(app)


def who(run) -> tuple[int, int]:
    """(process, its how manieth job) of a finished run."""
    words = next(n for n in run.notes() if n.startswith("pid ")).split()
    return int(words[1]), int(words[3])


# ---------------------------------------------------------------------------- a run


def test_run_streams_the_workers_events_and_one_final_one(app):
    run = app.fake("steps", 30, VISITOR, steps=8, gap=0.1)
    assert run.end()["kind"] == "Finished"
    assert run.kinds() == ["Note", *["Step"] * 8, "Finished"]
    came = [t for t, e in zip(run.times, run.events, strict=True) if e["kind"] == "Step"]
    assert came[-1] - came[0] > 0.6  # one by one, not all at the end
    (asked,) = app.scheduler.asked("/schedule")
    assert asked["durationSeconds"] == "30"  # 20 declared, times 1.5
    assert asked["gpuSize"] == "large"
    assert asked["token"] == VISITOR  # it crossed a thread


def test_run_uses_a_warm_worker_again_and_leaves_the_parent_as_it_was(app):
    first, second = app.fake("steps", visitor=VISITOR), None
    first.end()
    second = app.fake("steps", visitor=VISITOR)
    second.end()
    assert who(second) == (who(first)[0], who(first)[1] + 1)
    app.scheduler.keep_warm = False
    third = app.fake("steps", visitor=VISITOR)
    third.end()
    assert who(third)[0] != who(first)[0]
    assert who(third)[1] == 1  # a fork of the parent, which never ran a job
    assert settled(app)["count"] == 0


def test_run_takes_a_large_job_and_cuts_large_events(app):
    run = app.fake("large", visitor=VISITOR, payload=2_000_000)
    final = run.end()
    assert "2000000 characters" in run.notes()
    assert final["category"] == "node"
    assert len(json.dumps(final)) < 4096


def test_two_visitors_at_once_have_a_worker_and_a_token_each(app):
    app.scheduler.slots = 2
    others = token(user="bob", exp=2_000_000_000)
    runs = [app.fake("steps", 30, visitor, steps=10, gap=0.1) for visitor in (VISITOR, others)]
    assert [run.end()["kind"] for run in runs] == ["Finished", "Finished"]
    assert who(runs[0])[0] != who(runs[1])[0]
    assert runs[0].times[0] < runs[1].times[-1]
    assert runs[1].times[0] < runs[0].times[-1]
    assert {c["token"] for c in app.scheduler.asked("/schedule")} == {VISITOR, others}


def test_run_waits_for_a_gpu_with_signs_of_life(app):
    app.scheduler.answers = [Answer(queue=2.0)]
    run = app.fake("steps", visitor=VISITOR)
    assert run.end()["kind"] == "Finished"
    assert any("Waiting for a GPU" in note for note in run.notes())
    gaps = [b - a for a, b in itertools.pairwise(run.times)]
    assert max(gaps) < 0.6
    ticks = [e["at"] for e in run.events if e["kind"] == "Tick"]
    assert len(ticks) >= 7  # of 2 s, at 0.2 s
    assert max(b - a for a, b in itertools.pairwise(ticks)) <= 0.25


def test_fork_meets_no_lock_that_another_thread_holds(app):
    app.scheduler.keep_warm = False
    for _ in range(3):
        assert app.fake("lock", visitor=VISITOR, contend=True).end()["path"] == "free"


# ---------------------------------------------------------------------------- a worker that dies


@pytest.mark.parametrize(
    ("how", "category", "words"),
    [
        ("exit", "gpu_lost", "stopped"),
        ("segfault", "gpu_lost", "stopped"),
        ("kill", "gpu_lost", "stopped"),
        ("writing", "gpu_lost", "stopped"),
        ("base", "gpu_lost", "without saying"),
        ("no final", "gpu_lost", "without saying"),
        ("pickle", "gpu_lost", "failed"),
        ("raise", "internal", "something of ours"),
        ("memory", "out_of_memory", "Memory ran out"),
    ],
)
def test_a_worker_that_dies_is_told_in_words_and_the_next_run_works(app, how, category, words):
    run = app.fake(how, visitor=VISITOR)
    final = run.end()
    assert time.monotonic() - run.begun < 5
    assert (final["kind"], final["category"]) == ("Failed", category)
    assert words in final["what"]
    assert final["advice"] or category == "internal"
    assert len(app.scheduler.asked("/schedule")) == 1  # no crash is tried again
    assert app.fake("steps", visitor=VISITOR).end()["kind"] == "Finished"


def test_a_worker_that_says_nothing_is_ended(app):
    run = app.fake("hang", visitor=VISITOR, patience=1.0)
    assert run.end()["category"] == "gpu_lost"
    assert time.monotonic() - run.begun < 5
    assert app.fake("steps", visitor=VISITOR).end()["kind"] == "Finished"


def test_a_worker_that_dies_is_told_even_when_the_scheduler_cannot_be_told(app):
    app.scheduler.releases = [500]
    run = app.fake("kill", visitor=VISITOR)
    assert run.end()["category"] == "gpu_lost"
    assert time.monotonic() - run.begun < 5
    assert app.fake("steps", visitor=VISITOR).end()["kind"] == "Finished"
    app.ask("forget")  # the package waits 20 minutes for that call's end


@pytest.mark.parametrize("status", [404, 500])
def test_a_worker_that_may_not_start_says_so(app, status):
    app.fake("kill", visitor=VISITOR).end()  # the next one has to be allowed
    app.scheduler.allows = [status]
    final = app.fake("steps", visitor=VISITOR).end()
    assert final["category"] == "gpu_lost"
    assert final["advice"]
    assert app.fake("steps", visitor=VISITOR).end()["kind"] == "Finished"


@pytest.mark.parametrize("torn", [False, True])
def test_a_lost_final_event_finds_this_runs_own_video_and_no_other(app, tmp_path, torn):
    video = samples.video(tmp_path / "made.mp4", 0.5)
    given = {"video": str(video), "output": str(tmp_path / "output"), "torn": torn}
    final = app.fake("video", visitor=VISITOR, prefix="studio/abc1", **given).end()
    assert final["kind"] == "Finished"
    assert Path(final["path"]).name == "abc1_00001_.mp4"
    assert Path(final["path"]).read_bytes() == video.read_bytes()


# ---------------------------------------------------------------------------- time-outs


def test_a_time_out_is_tried_once_more_with_twice_the_time(app, tmp_path):
    run = app.fake("second time", 2, VISITOR, mark=str(tmp_path / "mark"))
    assert run.end()["kind"] == "Finished"
    note = next(n for n in run.notes() if "tried once more" in n)
    assert "after 3 s" in note
    assert "up to 7 s of GPU quota" in note  # 2 declared are 3, 3 declared are 4.5
    asked = [c["durationSeconds"] for c in app.scheduler.asked("/schedule")]
    assert asked == ["3", "4"]


def test_a_second_time_out_is_the_end(app):
    final = app.fake("slow", 2, VISITOR).end()
    assert final["category"] == "gpu_timeout"
    assert "within the 4 s" in final["what"]
    assert "Fast preset" in final["advice"]
    assert len(app.scheduler.asked("/schedule")) == 2


def test_a_time_out_is_not_tried_again_when_the_visit_has_expired(app):
    final = app.fake("slow", 2, token(user="ada", exp=time.time() + 5)).end()
    assert final["category"] == "gpu_timeout"
    assert "reload the page" in final["advice"]
    assert len(app.scheduler.asked("/schedule")) == 1


# ---------------------------------------------------------------------------- cancel


def test_cancel_while_running_keeps_the_worker_warm(app):
    run = app.fake("slow", visitor=VISITOR, job="mine")
    run.until("Step")
    pressed = time.monotonic()
    app.ask("cancel", "mine")
    assert run.end()["category"] == "interrupted"
    assert time.monotonic() - pressed < 1.0
    after = app.fake("steps", visitor=VISITOR)
    assert after.end()["kind"] == "Finished"
    assert who(after)[0] == who(run)[0]


def test_cancel_while_waiting_for_a_gpu_never_starts_the_job(app):
    app.fake("steps", visitor=VISITOR).end()
    before = app.fake("steps", visitor=VISITOR)
    before.end()
    app.scheduler.answers = [Answer(queue=2.0)]
    run = app.fake("slow", visitor=VISITOR, job="waiting")
    run.until("Tick")
    pressed = time.monotonic()
    app.ask("cancel", "waiting")
    assert run.end()["category"] == "interrupted"
    assert time.monotonic() - pressed < 1.0
    settled(app)
    assert len(app.scheduler.asked("/release")) >= 3  # the GPU came later, and was given back
    after = app.fake("steps", visitor=VISITOR)
    after.end()
    assert who(after) == (who(before)[0], who(before)[1] + 1)  # no job in between


@pytest.mark.parametrize("waiting", [False, True])
def test_a_closed_tab_gives_the_gpu_back(app, waiting):
    app.scheduler.answers = [Answer(queue=1.0)] if waiting else []
    run = app.fake("slow", visitor=VISITOR)
    run.until("Tick" if waiting else "Step")
    run.close_tab()
    settled(app, 5.0)
    assert app.fake("steps", visitor=VISITOR).end()["kind"] == "Finished"


@pytest.mark.parametrize("mute", [False, True])
def test_a_cancelled_node_that_does_not_stop_frees_its_gpu(app, mute):
    run = app.fake("stuck", visitor=VISITOR, job="stuck", grace=0.5, mute=mute)
    run.until("Step")
    app.ask("cancel", "stuck")
    assert run.end()["category"] == "interrupted"
    settled(app, 5.0)  # the worker is gone, long before the 30 s it had
    after = app.fake("steps", visitor=VISITOR)
    assert after.end()["kind"] == "Finished"
    assert who(after)[1] == 1  # a new one, in which nothing old still works


# ---------------------------------------------------------------------------- refusals

PRO = {"X-Authenticated": "pro"}
FREE = {"X-Authenticated": "regular"}


@pytest.mark.parametrize(
    ("answer", "visitor", "category", "words"),
    [
        (
            Answer(429, left=12, wait=5025.0, headers=FREE),
            VISITOR,
            "gpu_quota",
            ("12 s left", "reserves 30 s", "1 h 23 min"),
        ),
        (
            Answer(429, left=40, wait=90000.0, headers=PRO),
            VISITOR,
            "gpu_quota",
            ("40 s left", "25 h 0 min", "reserve less"),
        ),
        (
            Answer(429, wait=0.0, headers={**FREE, "X-Approve-Result": "runs-exceeded"}),
            VISITOR,
            "gpu_quota",
            ("number of ZeroGPU runs", "Try again"),
        ),
        (
            Answer(429, wait=-1.0, headers={"X-Approve-Result": "illegal-duration"}),
            VISITOR,
            "gpu_quota",
            ("does not grant you 30 s", "PRO"),
        ),
        (
            Answer(429, wait=60.0, headers={"X-Approve-Result": "pending-overquota-exceeded"}),
            VISITOR,
            "gpu_quota",
            ("other ZeroGPU runs", "Wait until one"),
        ),
        (Answer(429, wait=600.0), "", "gpu_session", ("not signed in", "sign in")),
        (Answer(503), VISITOR, "gpu_busy", ("No GPU is free", "few minutes")),
        (Answer(queue=0.3, then="failed"), VISITOR, "gpu_busy", ("No GPU became free", "minutes")),
        (Answer(queue=0.3, then="failed"), "", "gpu_busy", ("No GPU became free", "sign in")),
        (Answer(queue=0.3, then="end"), VISITOR, "gpu_busy", ("refused the call", "minutes")),
        (Answer(401), VISITOR, "gpu_session", ("open for too long", "Reload the page")),
        (Answer(500), VISITOR, "gpu_busy", ("refused the call", "500")),
        (Answer(403), "", "gpu_busy", ("refused the call", "403")),
        (
            Answer(500, body=b"<html>Bad gateway</html>", headers={"Content-Type": "text/html"}),
            VISITOR,
            "gpu_busy",
            ("refused the call", "minutes"),
        ),
        (Answer(429, body=b"<html>slow down</html>"), VISITOR, "gpu_busy", ("not understood",)),
        (Answer(429, body=b'{"detail": "no"}'), VISITOR, "gpu_busy", ("not understood",)),
        (Answer(429, body=b"[]"), "", "gpu_busy", ("not understood", "minutes")),
        (Answer(200, body=b'{"idle": true}'), VISITOR, "gpu_busy", ("not understood",)),
        (Answer(599), VISITOR, "gpu_busy", ("not understood",)),
        (
            Answer(503, headers={"X-Authenticated": "team"}),
            VISITOR,
            "gpu_busy",
            ("not understood",),
        ),
        (Answer(hang_up=True), VISITOR, "gpu_busy", ("does not answer", "minutes")),
        (
            Answer(429, left=1, wait=61.0, delay=1.5, headers=FREE),
            VISITOR,
            "gpu_quota",
            ("1 s left",),
        ),
        (
            Answer(429, left=-3, wait=61.0),
            token(error="no such user", exp=2_000_000_000),
            "gpu_quota",
            ("0 s left", "2 min"),
        ),
        (Answer(401), "no.jwt", "gpu_session", ("Reload the page",)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_refusal_says_what_and_what_to_do(app, answer, visitor, category, words):
    app.scheduler.answers = [answer]
    final = app.fake("steps", visitor=visitor).end()
    assert final["category"] == category, final
    said = f"{final['what']}. {final['advice']}"
    assert all(word in said for word in words), said
    assert "ZeroGPU worker error" not in said
    assert not app.scheduler.asked("/allow")  # nothing was started
    assert app.fake("steps", visitor=VISITOR).end()["kind"] == "Finished"


def test_nothing_is_left_running(app):
    app.fake("kill", visitor=VISITOR).end()
    app.fake("steps", visitor=VISITOR).end()
    left = settled(app)
    assert left["threads"] == []
    assert len(left["children"]) <= 2  # warm workers, one a GPU
