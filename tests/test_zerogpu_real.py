"""ZeroGPU with the real ComfyUI and demo weights in the Space's process; see ``test_zerogpu.py``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest
import samples
from zero_app import LINUX, VISITOR, App, Fake, settled
from zero_scheduler import Scheduler

import mediafile
from estimate import FIRST, SECOND
from request import Request

pytestmark = [
    pytest.mark.comfy,
    pytest.mark.skipif(sys.platform != "linux", reason=LINUX),
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory, comfy_path):
    """A Space with the real ComfyUI and demo weights."""
    folder = tmp_path_factory.mktemp("studio")
    place = {"LTX23_AIO_COMFY_DIR": str(comfy_path), "SPACE_ID": "somebody/studio"}
    with (
        Scheduler() as scheduler,
        App(scheduler.url, folder / "space.log", "--comfy", **place) as app,
    ):
        app.scheduler, app.folder = scheduler, folder
        yield app


def made(app: App, request: Request, job: str = "job", local: bool = False) -> Fake:
    """One run of :meth:`Engine.run` in the Space, read to its end on a thread."""
    out = str(app.folder / "out")
    return Fake(app.stream("make", request.to_json(), out, job, local, visitor=VISITOR))


def fox(seed: int, **more) -> Request:
    """A small video."""
    size = {"width": 256, "height": 192, "seconds": 1.0}
    return Request(mode="t2v", prompt="a fox", seed=seed, **{**size, **more})


def test_a_real_run_streams_through_a_worker(studio):
    run = made(studio, fox(1))
    final = run.end(120)
    assert final["kind"] == "Finished", final
    assert {"Stage", "Step", "Preview", "Note", "Finished"} <= set(run.kinds())
    assert run.notes().count("Reading the models into memory, once; this costs no GPU time.") == 1
    assert any("of GPU quota" in note for note in run.notes())
    info = mediafile.probe(final["path"], "video")
    assert (info.width, info.height, round(info.seconds * info.fps)) == (256, 192, 25)
    assert info.has_audio
    assert final["cached"] >= 5  # the five loaders, in the fork's cache
    again = made(studio, fox(1))
    second = again.end(60)
    assert second["kind"] == "Finished"
    assert second["cached"] > final["cached"]  # the same worker, still warm
    assert second["executed"] <= 2  # it only writes the file, under a name of its own
    assert (final["fresh"], second["fresh"]) == (True, False)
    assert [name for name, _ in final["sampling"]] == [FIRST, SECOND]


def test_a_killed_worker_is_told_within_five_seconds_and_the_next_run_works(studio):
    run = made(studio, fox(2, seconds=2.0))
    run.until("Step", 60)
    (worker,) = {g.pid for g in studio.scheduler._grants.values()}
    killed = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    final = run.end(10)
    took = time.monotonic() - killed
    assert final["category"] == "gpu_lost"
    assert took < 5, took
    after = made(studio, fox(3))
    final = after.end(60)
    assert final["kind"] == "Finished"
    assert final["cached"] >= 5  # the new worker starts warm: five loaders
    assert final["fresh"]
    print(f"killed: told after {took:.2f} s")


def test_cancel_in_mid_run_stops_within_a_second_and_keeps_the_worker(studio):
    run = made(studio, fox(4, seconds=2.0), "cancelled")
    run.until("Step", 60)
    pids = {g.pid for g in studio.scheduler._grants.values()}
    pressed = time.monotonic()
    studio.ask("cancel", "cancelled")
    assert run.end(10)["category"] == "interrupted"
    assert time.monotonic() - pressed < 1.5  # 1 s, and the page's own way
    settled(studio)
    assert set(studio.scheduler._workers.values()) == pids


def test_the_form_says_what_a_run_reserves_and_no_run_takes_longer(studio):
    for mode, seed in (("t2v", 11), ("i2v", 13)):
        request = samples.request_for(mode, studio.folder).replace(seed=seed)
        said = json.loads(studio.ask("reserved", request.to_json()))
        assert "s of GPU quota" in said["sentence"]
        before = len(studio.scheduler.spans)
        assert made(studio, request).end(90)["kind"] == "Finished"
        (took,) = studio.scheduler.spans[before:]
        assert took <= said["seconds"]
        print(f"{mode}: needed {said['needed']:.1f} s, took {took:.1f} s")


def test_a_run_that_cannot_fit_is_refused_before_anything_is_asked(studio):
    long = fox(14, seconds=20.0, width=1920, height=1088, preset="quality")
    before = len(studio.scheduler.calls)
    said = json.loads(studio.ask("reserved", long.to_json()))
    assert "Nearest that fits" in said["refused"]
    final = made(studio, long).end(30)
    assert final["category"] == "bad_input"
    assert "a run may take 300 s here" in final["what"]
    assert len(studio.scheduler.calls) == before


def test_the_workers_first_event_comes_hardly_later_than_locally(studio):
    def first(local: bool, seed: int) -> float:
        run = made(studio, fox(seed), f"first{seed}", local)
        said = run.until("Stage", 60)["at"]
        studio.ask("cancel", f"first{seed}")
        run.end(60)
        settled(studio)
        return said - next(e["at"] for e in run.events if e["kind"] == "Begun")

    def usual(local: bool, seeds: range) -> float:
        first(local, seeds[0])
        return sorted(first(local, seed) for seed in seeds[1:])[1]

    local, warm = usual(True, range(20, 24)), usual(False, range(30, 34))
    studio.scheduler.keep_warm = False
    fresh = usual(False, range(40, 44))
    studio.scheduler.keep_warm = True
    print(f"first event: local {local:.3f} s, warm worker {warm:.3f} s, new worker {fresh:.3f} s")
    assert fresh - local < 1.0  # 0.3 s on a machine with nothing else to do
