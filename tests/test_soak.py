"""Many runs on end, with cancels and failures among them: nothing grows, nothing stays behind."""

from __future__ import annotations

import gc
import os
import random
import tempfile
import threading
from pathlib import Path

import av
import psutil
import pytest
import samples

import backend
import engine as engines
import housekeeping
from events import Failed, Finished, Stage
from mediafile import PART
from modes import MODES

pytestmark = pytest.mark.comfy


def state(engine) -> dict[str, int]:
    """What must level off, measured with nothing cached: bytes of memory, and counts."""
    engine.free()
    gc.collect()
    trim()
    process = psutil.Process()
    return {
        "memory": process.memory_info().rss,
        "files": process.num_fds() if hasattr(process, "num_fds") else 0,
        "threads": threading.active_count(),
        "children": len(process.children(recursive=True)),
    }


def trim() -> None:
    """Ask glibc to hand freed memory back, so that what is measured is what is held."""
    import ctypes
    import ctypes.util

    name = ctypes.util.find_library("c")
    if name and hasattr(ctypes.CDLL(name), "malloc_trim"):
        ctypes.CDLL(name).malloc_trim(0)


def one(engine, folder: Path, mode: str, seed: int, kind: str) -> str:
    """One run of a kind: whole, cancelled at a stage, closed, or refused for a bad file."""
    out, cancel = folder / "out", threading.Event()
    request = samples.request_for(mode, folder, seed=seed)
    if kind == "refused":
        broken = folder / "broken.png"
        broken.write_bytes(b"no picture")
        request = samples.request_for("i2v", folder, seed=seed, image=str(broken))
    stream, final = engine.run(request, out, cancel), None
    for event in stream:
        if kind == "cancelled" and isinstance(event, Stage) and event.index >= 2:
            cancel.set()
        if kind == "closed" and isinstance(event, Stage) and event.index >= 2:
            stream.close()
            return "closed"
        final = event
    if isinstance(final, Finished):
        with av.open(final.path) as video:
            assert sum(1 for _ in video.decode(video.streams.video[0])) == 25
            assert video.streams.audio
        Path(final.path).unlink()
        prefix = next(
            node["inputs"]["filename_prefix"]
            for node in engines.graph_for(request, "demo").values()
            if node["class_type"] == "SaveVideo"
        )
        for clip in (backend.HOST.output_dir / "studio").glob(Path(prefix).name + "*"):
            clip.unlink()  # 300 runs would leave 300 clips for the day they are kept
        return "finished"
    assert isinstance(final, Failed)
    assert final.category == {"cancelled": "interrupted", "refused": "bad_input"}[kind], final
    return final.category


def soak(engine, tmp_path: Path, runs: int, modes: list[str]) -> tuple[dict, dict, dict]:
    """So many runs over the modes, every fifth of them broken off or refused.

    Returns:
        the state before and after the second half, and how the runs ended.
    """
    rng = random.Random(4)
    ended, middle = {}, None
    for number in range(runs):
        if number == runs // 2:
            middle = state(engine)
        kind = rng.choice(("cancelled", "closed", "refused")) if number % 5 == 4 else "whole"
        how = one(engine, tmp_path, modes[number % len(modes)], 5000 + number, kind)
        ended[how] = ended.get(how, 0) + 1
        if number % 50 == 49:
            print(f"\n{number + 1} runs: {ended}, {psutil.Process().memory_info().rss >> 20} MiB")
    return middle, state(engine), ended


def check(engine, tmp_path: Path, runs: int, modes: list[str], growth: float) -> None:
    before, after, ended = soak(engine, tmp_path, runs, modes)
    print(f"\n{runs} runs: {ended}; {before} -> {after}")
    assert sum(ended.values()) == runs
    assert ended["finished"] >= runs * 0.75
    assert after["memory"] - before["memory"] < growth
    assert after["files"] <= before["files"] + 2
    assert after["threads"] <= before["threads"]
    assert after["children"] <= before["children"]
    assert not list(Path(tempfile.gettempdir()).glob(f"{housekeeping.RUN_DIR}{os.getpid()}-*"))
    assert not list(tmp_path.rglob(PART + "*"))
    assert not list(backend.HOST.input_dir.glob(f"{PART}{os.getpid()}-*"))
    assert not list((tmp_path / "out").glob("*"))
    assert not engine.state.busy
    assert engine.keeper.held == frozenset()


def test_ten_runs_leave_nothing_behind(engine, tmp_path):
    check(engine, tmp_path, 10, ["t2v", "lipsync"], 250e6)


@pytest.mark.slow
def test_three_hundred_runs_level_off(engine, tmp_path):
    check(engine, tmp_path, 300, list(MODES), 100e6)
