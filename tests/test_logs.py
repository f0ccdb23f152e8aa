"""The log: one line per run, nothing private in it, and its file never too large."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import bootstrap
import logs
from engine import Engine
from errors import StudioError, scrub
from events import Failed, Finished
from request import Request

STAGES = (("Loading the models", 1.5), ("Stage 1: composing at half size", 2.25))


@pytest.fixture
def log_file(tmp_path, monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    log = logging.getLogger("studio")
    before = log.handlers[:], log.level, log.propagate
    yield logs.setup(tmp_path / "logs")
    for handler in log.handlers[:]:
        if handler not in before[0]:
            log.removeHandler(handler)
            handler.close()
    log.level, log.propagate = before[1:]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_run_is_one_line_with_all_that_matters(log_file):
    request = Request(mode="t2v", prompt="a very private prompt", width=256, height=192, seconds=1)
    logs.ended("0badcafe", request, "demo", Finished("/x.mp4", 4.0, STAGES, 30, 2), 4.125)
    (line,) = lines(log_file)
    for part in (
        "run 0badcafe",
        "mode=t2v",
        "size=256x192x25",
        "preset=fast",
        "outcome=finished",
        "seconds=4.12",
        "executed=30",
        "Loading the models 1.50, Stage 1: composing at half size 2.25",
    ):
        assert part in line
    assert "private" not in line


@pytest.mark.parametrize(
    ("final", "outcome"), [(Failed("interrupted", "Cancelled"), "interrupted"), (None, "closed")]
)
def test_runs_that_were_broken_off_are_one_line_too(log_file, final, outcome):
    logs.ended("1", Request(mode="t2v"), "demo", final, 1)
    assert f"outcome={outcome}" in lines(log_file)[0]
    assert len(lines(log_file)) == 1


def test_what_somebody_wrote_begins_no_line_of_its_own(log_file):
    logs.ended("1", Request(mode="t2v"), "demo", Failed("bad_input", "a\nERROR forged"), 1)
    assert len(lines(log_file)) == 1


def test_a_defects_traceback_follows_its_line(log_file):
    logs.ended("1", Request(mode="t2v"), "demo", Failed("node", "x", detail="line 1\nline 2"), 1)
    assert "line 2" in lines(log_file)


def test_the_engine_writes_the_line_of_every_run(log_file, tmp_path):
    request = Request(mode="i2v", image=str(tmp_path / "secret-name.png"))
    list(Engine("demo", tmp_path).run(request, tmp_path / "out"))
    (line,) = lines(log_file)
    assert "mode=i2v" in line
    assert "outcome=bad_input" in line
    assert str(tmp_path) not in line


def test_the_file_turns_over_at_10_mb(log_file, monkeypatch):
    (handler,) = [h for h in logging.getLogger("studio").handlers if hasattr(h, "maxBytes")]
    assert (handler.maxBytes, handler.backupCount) == (10_000_000, 3)
    handler.maxBytes = 2000
    for number in range(200):
        logging.getLogger("studio").info("line %d of a long story", number)
    found = sorted(log_file.parent.glob("aio.log*"))
    assert len(found) == 4
    assert all(path.stat().st_size <= 2000 for path in found)


def test_setting_up_twice_writes_once(log_file):
    assert logs.setup() == log_file
    logging.getLogger("studio").info("once")
    assert len(lines(log_file)) == 1


def test_a_space_logs_to_stderr(tmp_path, monkeypatch, capsys, log_file):
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert logs.setup(tmp_path / "other") is None
    logging.getLogger("studio").info("hello from the Space")
    assert "hello from the Space" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


# ------------------------------------------------------------------ scrubbing


@pytest.mark.parametrize(
    ("text", "hidden", "kept"),
    [
        (f'File "{bootstrap.REPO}/engine.py", line 5', str(bootstrap.REPO), "studio/engine.py"),
        ("cannot open /home/anna.b/films/x.mp4", "anna", "films/x.mp4"),
        ("in /Users/anna/ComfyUI", "anna", "ComfyUI"),
        (r"in C:\Users\anna\ComfyUI", "anna", "ComfyUI"),
        ("/root/comfyui/nodes.py", "/root", "~/comfyui/nodes.py"),
        ("token hf_abcdefGHIJKL0123456789 refused", "GHIJKL", "refused"),
        ("Authorization: Bearer abc.def-123456789", "abc.def", "Authorization"),
        ("https://me:pass@host/x", "pass", "host/x"),
        ("GET https://cdn/x?X-Amz-Signature=deadbeef&a=1", "deadbeef", "a=1"),
        ("/comfy/root/x and /rooted and ~/x", "nothing", "/comfy/root/x and /rooted and ~/x"),
    ],
)
def test_messages_lose_secrets_and_homes(text, hidden, kept):
    clean = scrub(text)
    assert hidden not in clean
    assert kept in clean


def test_values_of_secret_variables_are_hidden(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_API_KEY", "swordfish-123")
    assert scrub("refused: swordfish-123") == "refused: ***"


def test_failures_are_scrubbed_as_they_become_events(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "swordfish-123")
    home = str(Path.home() / "films")
    error = StudioError(f"swordfish-123 in {home}", home, "", detail=f"swordfish-123 {home}")
    event = Failed.of(error)
    assert "swordfish" not in repr(event)
    assert str(Path.home()) + "/" not in repr(event)
