"""The command line, from outside: exit status, sentences, dry runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import samples

import tags
from modes import MODES

TOOL = Path(__file__).resolve().parents[1] / "tools" / "generate.py"
SMALL = ("--width", "256", "--height", "192", "--seconds", "1")


def call(*args: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def dry(*args: str) -> dict:
    result = call(*args, "--dry-run")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "Choose one of: t2v"),
        (("t3v",), "no mode"),
        (("i2v",), "needs an image"),
        (("t2v", "--width", "17"), "128"),
        (("t2v", "--seconds", "10000"), "40"),
        (("t2v", "--preset", "turbo"), "fast, balanced, quality"),
        (("t2v", "--seed", "abc"), "number"),
        (("t2v", "--nonsense", "1"), "nonsense"),
        (("t2v", "--image", "x.png"), "not used by t2v"),
        (("i2v", "--image", "nowhere.png"), "no file"),
        (("t2v", "-o", "video.avi"), ".mp4"),
        (("--request", "nowhere.json"), "no file"),
    ],
)
def test_bad_input_exits_2_with_one_sentence(args, says):
    result = call(*args)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_text_file_as_audio_exits_2(tmp_path):
    (tmp_path / "a.wav").write_text("this is text")
    result = call("a2v", "--audio", tmp_path / "a.wav")
    assert result.returncode == 2
    assert "not an audio file" in result.stderr


def test_errors_with_json_are_one_object():
    result = call("i2v", "--json")
    data = json.loads(result.stdout)
    assert (result.returncode, data["ok"], data["where"]) == (2, False, "image")


def test_dry_run_needs_neither_comfyui_nor_torch(tmp_path):
    code = (
        "import sys, runpy\n"
        "sys.modules['torch'] = sys.modules['comfy'] = None\n"
        f"sys.argv = ['generate.py', 't2v', '--dry-run']\n"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
    )
    env = {**os.environ, "LTX23_AIO_COMFY_DIR": str(tmp_path / "nothing")}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert result.returncode == 0, result.stderr
    assert "Transformer" in result.stdout


def test_dry_run_is_repeatable():
    assert dry("t2v") == dry("t2v")


DIFFERENT = [
    (),
    ("--preset", "balanced"),
    ("--preset", "quality"),
    *[("--camera", c) for c in MODES["t2v"].field("camera").choices if c != "none"],
    ("--camera", "static", "--camera-strength", "0.5"),
    ("--detailer",),
    ("--detailer", "0.5"),
    ("--pose",),
    ("--ic-lora", "union-control"),
    ("--ic-lora", "union-control", "--ic-strength", "0.5"),
    ("--seed", "1"),
    ("--width", "1024"),
    ("--height", "1024"),
    ("--seconds", "2"),
    ("--fps", "25"),
    ("--prompt", "a fox"),
    ("--negative-prompt", "rain"),
]


def test_dry_run_differs_for_every_control():
    graphs = [json.dumps(dry("t2v", *args), sort_keys=True) for args in DIFFERENT]
    assert len(set(graphs)) == len(graphs)


def test_dry_run_of_a_saved_request(tmp_path):
    from request import Request

    request = Request(mode="t2v", prompt="a fox", seed=9)
    (tmp_path / "r.json").write_text(request.to_json())
    assert dry("--request", tmp_path / "r.json") == dry("t2v", "--prompt", "a fox", "--seed", "9")
    assert dry("--request", tmp_path / "r.json", "--seed", "8") == dry(
        "t2v", "--prompt", "a fox", "--seed", "8"
    )


def test_help_names_every_flag():
    text = call("--help").stdout
    for mode in MODES.values():
        for spec in mode.fields:
            assert (spec.flag if spec.name != "metadata" else "--no-metadata") in text


@pytest.mark.comfy
def test_the_last_line_is_the_videos_path(comfy_path, tmp_path):
    out = tmp_path / "video.mp4"
    result = call("t2v", "--weights", "demo", *SMALL, "--prompt", "fox", "-o", out)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip().splitlines()[-1]) == out
    assert tags.read_request(out).prompt == "fox"
    assert "noise" in result.stderr  # says what demo weights are
    assert "[1/" in result.stderr


@pytest.mark.comfy
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_cleanly(comfy_path, tmp_path):
    command = [sys.executable, str(TOOL), "t2v", "--weights", "demo", "--seconds", "10"]
    command += ["--preset", "quality", "-o", str(tmp_path / "v.mp4")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in run.stderr:
        if "Stage 1" in line:
            break
    run.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, rest = run.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert run.returncode == 1
    assert "Cancelled" in rest
    assert "Traceback" not in rest
    assert not list(tmp_path.glob("*"))


@pytest.mark.comfy
def test_json_and_style_from_a_video(comfy_path, tmp_path):
    clip = samples.video(tmp_path / "clip.mp4")
    size = ("--width", "256", "--height", "256", "--seconds", "1")
    result = call(
        "style", "--weights", "demo", *size, "--video", clip, "--json", "-o", tmp_path / "s.mp4"
    )
    data = json.loads(result.stdout.strip().splitlines()[-1])
    assert data["ok"]
    assert data["request"]["mode"] == "style"
    assert Path(data["path"]).is_file()
