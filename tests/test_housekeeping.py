"""What is cleared away, and what never is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import housekeeping
from housekeeping import DAY, GB, HOUR, Keeper, Rule, prune

NOW = time.time()


def put(folder: Path, name: str, age: float, size: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with open(path, "wb") as file:
        file.truncate(size)
    os.utime(path, (NOW - age, NOW - age))
    return path


def staged(number: int) -> str:
    return f"studio_{number:032x}.png"


def rule(folder: Path, size: int = GB) -> Rule:
    return Rule(folder, housekeeping.STAGED, DAY, size)


def test_old_files_go_and_new_ones_stay(tmp_path):
    old, new = put(tmp_path, staged(1), DAY + 60), put(tmp_path, staged(2), DAY - 60)
    assert prune(rule(tmp_path), now=NOW) == [old]
    assert new.exists()


def test_the_oldest_go_first_when_there_is_too_much(tmp_path):
    files = [put(tmp_path, staged(n), (6 - n) * 2 * HOUR, 400) for n in range(5)]
    assert prune(rule(tmp_path, 1000), now=NOW) == files[:3]


def test_what_was_used_within_the_hour_stays_whatever_the_size(tmp_path):
    put(tmp_path, staged(1), HOUR - 60, 10_000)
    assert prune(rule(tmp_path, 100), now=NOW) == []


def test_what_a_run_holds_stays_whatever_its_age(tmp_path):
    held = put(tmp_path, staged(1), 400 * DAY)
    assert prune(rule(tmp_path, 0), held={held.name}, now=NOW) == []


@pytest.mark.parametrize(
    "name",
    [
        "holiday.png",
        "studio_short.png",
        staged(1) + ".txt",
        "example.png",
        "studio_" + "G" * 32 + ".png",
    ],
)
def test_files_of_a_persons_own_are_never_touched(tmp_path, name):
    put(tmp_path, name, 4000 * DAY)
    assert prune(rule(tmp_path, 0), now=NOW) == []


def test_links_are_left_alone(tmp_path):
    own = put(tmp_path / "own", "photo.png", 0)
    (tmp_path / staged(1)).symlink_to(own)
    assert prune(rule(tmp_path), now=NOW + 9 * DAY) == []
    assert own.exists()


def test_a_clock_set_back_removes_nothing_and_one_that_leapt_keeps_what_runs(tmp_path):
    first, second = put(tmp_path, staged(1), 60), put(tmp_path, staged(2), 60)
    assert prune(rule(tmp_path, 1), now=NOW - 300 * DAY) == []
    assert prune(rule(tmp_path), held={first.name}, now=NOW + 300 * DAY) == [second]


def test_a_person_keeps_their_videos_and_a_space_forgets_them(tmp_path, monkeypatch):
    outputs, comfy = tmp_path / "outputs", tmp_path / "comfy"
    video = put(outputs / "visit", "t2v-42-0123456789ab.mp4", 9 * DAY)
    clip = put(comfy / "output" / "studio", "0" * 24 + "_00001_.mp4", 9 * DAY)
    copy = put(comfy / "input", staged(1), 9 * DAY)
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert Keeper(comfy, outputs).tidy() == [clip]
    assert video.exists()
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert set(Keeper(comfy, outputs).tidy()) == {copy, video}


def test_the_keeper_looks_rarely_and_knows_what_runs_hold(tmp_path):
    keeper = Keeper(tmp_path, tmp_path / "outputs")
    path = put(tmp_path / "input", staged(1), 99 * DAY)
    keeper.hold("a", [path.name])
    keeper.hold("b", [path.name])
    keeper.release("a")
    assert keeper.tidy() == []
    keeper.release("b")
    assert keeper.tidy() == []  # not again within ten minutes
    assert keeper.tidy(force=True) == [path]


def test_names_the_engine_gives_are_the_names_the_rules_know():
    import engine
    from request import Request

    graph = engine.graph_for(Request(mode="t2v"), "demo")
    prefix = next(
        n["inputs"]["filename_prefix"] for n in graph.values() if n["class_type"] == "SaveVideo"
    )
    assert prefix.startswith("studio/")
    assert housekeeping.CLIP.fullmatch(Path(prefix).name + "_00001_.mp4")
    assert housekeeping.VIDEO.fullmatch(f"t2v-42-{engine.digest(graph)[:12]}.mp4")
