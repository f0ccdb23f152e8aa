"""The bad-input corpus: every file handled as measured, or refused with a sentence."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import bad_input
import psutil
import pytest
import samples

import media
import tags
from engine import Engine, plain_name
from errors import BadInput
from events import Failed
from fields import PROMPT_MAX
from modes import MODES
from request import Request, clean_text

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
REPO = Path(__file__).resolve().parents[1]
HANDLED = [c for c in bad_input.CASES if c.check]
REFUSED = [c for c in bad_input.CASES if not c.check]


def values_for(case: bad_input.Case, folder: Path) -> dict:
    values = {
        f"{side}": 256 if case.mode == "style" else (256, 192)[n]
        for n, side in enumerate(("width", "height"))
    }
    return {"seconds": 1.0, case.field: str(case.make(folder)), **values, **case.values}


def tree(folder: Path) -> set[bytes]:
    return {
        os.path.join(base, name)
        for base, _, names in os.walk(os.fsencode(folder))
        for name in names
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def test_the_corpus_is_large_enough():
    assert len(bad_input.CASES) >= 60
    assert len({c.name for c in bad_input.CASES}) == len(bad_input.CASES)


@pytest.mark.parametrize("case", HANDLED, ids=lambda c: c.name)
def test_handled_as_its_row_says(case, folder, tmp_path):
    request = Request(mode=case.mode, **values_for(case, folder))
    before = tree(tmp_path)
    result = media.stage(request, tmp_path / "input")
    files = {name: tmp_path / "input" / file for name, file in result.names.items()}
    case.check(files, result)
    new = {Path(os.fsdecode(path)) for path in tree(tmp_path) - before}
    assert new == set(files.values())  # nothing else, and nowhere else
    for path in new:
        assert re.fullmatch(r"studio_[0-9a-f]{32}\.(png|wav|mp4)", path.name)


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_refused_with_a_sentence_before_anything_starts(case, folder, tmp_path):
    request = Request(mode=case.mode, **values_for(case, folder))
    before = tree(tmp_path)
    engine = Engine(
        "demo", tmp_path / "no-comfyui-here"
    )  # refused before ComfyUI is even looked for
    events = list(engine.run(request, tmp_path / "out"))
    assert [type(e) for e in events] == [Failed]
    failed = events[0]
    assert (failed.category, failed.where) == ("bad_input", case.field)
    assert re.search(case.says, failed.what)
    assert case.field in failed.what
    assert failed.advice
    assert "\n" not in failed.what
    assert "Traceback" not in str(failed)
    assert str(tmp_path) not in str(failed)
    assert engine.state.status == "off"
    assert tree(tmp_path) == before


def test_a_ten_minute_video_costs_what_its_beginning_costs(folder, tmp_path):
    path = bad_input.long_clip(folder)
    request = Request(mode="style", video=str(path), width=256, height=256, seconds=1.0)
    process, begun = psutil.Process(), time.monotonic()
    memory = process.memory_info().rss
    names = media.stage(request, tmp_path / "input").names
    assert bad_input.staged_frames({"video": tmp_path / "input" / names["video"]})
    assert time.monotonic() - begun < 60  # 1 s where the machine is quiet
    assert process.memory_info().rss - memory < 500e6


def test_too_many_bytes_are_refused_by_the_server(folder):
    for kind, name in (("image", "image"), ("audio", "audio"), ("video", "video")):
        path = folder / kind
        with open(path, "wb") as file:
            file.truncate(5 * 10**9)  # a hole: takes no room
        with pytest.raises(BadInput, match=r"more than .* GB") as refused:
            media.probe(path, kind, name)
        assert refused.value.where == name


# ------------------------------------------------------------------ values


def required(mode: str) -> dict:
    return {f.name: "file" for f in MODES[mode].fields if f.is_media and f.required}


NUMBERS = [
    (mode, spec)
    for mode in MODES
    for spec in MODES[mode].fields
    if spec.kind in ("integer", "number")
]
NO_NUMBER = (
    math.nan,
    math.inf,
    -math.inf,
    True,
    "7",
    "",
    [],
    {},
    10**5000,
    -(10**400),
    1e308,
    b"1",
)


@pytest.mark.parametrize(("mode", "spec"), NUMBERS, ids=lambda v: getattr(v, "name", v))
def test_numbers_at_below_and_above_each_limit(mode, spec):
    room = {"seconds": 1.0, "fps": 24, "width": 256, "height": 256}
    for good in (spec.minimum, spec.maximum):
        values = {**required(mode), **room, spec.name: good}
        assert getattr(Request(mode=mode, **values), spec.name) is not None
    step = 1 if spec.kind == "integer" else 1e-6
    for bad in (spec.minimum - step, spec.maximum + step, *NO_NUMBER):
        with pytest.raises(BadInput) as refused:
            Request(mode=mode, **{**required(mode), **room, spec.name: bad})
        assert refused.value.where == spec.name
        assert spec.name in refused.value.what
        assert refused.value.advice
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("mode", MODES)
def test_other_values_of_the_wrong_kind_name_field_and_fix(mode):
    for spec in MODES[mode].fields:
        if spec.kind in ("integer", "number"):
            continue
        for bad in (5, 1.5, [], {"a": 1}, b"x", "\0" if spec.is_media else 7):
            if spec.is_media and not bad:
                continue
            with pytest.raises(BadInput) as refused:
                Request(mode=mode, **{**required(mode), spec.name: bad})
            assert refused.value.where == spec.name
            assert refused.value.advice


PROMPTS = {
    "empty": "",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)> **b** {{x}} ${7*7} %s",
    "weights": "(((fox:1.9))) [wolf:0.1] embedding:../../../etc/passwd <lora:x:1>",
    "shell": "'; rm -rf / #\" `id` $(id) && exit",
    "control characters": "a\x00b\x07c\x1b[31md\x7fe\x85f",
    "right to left": "\u202eabc\u202c \u05d0\u05d1 \u0627",
    "lone surrogate": "fox \ud83e",
    "longest": "\u6f22" * PROMPT_MAX,
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_text_and_nothing_else(name):
    request = Request(mode="t2v", prompt=PROMPTS[name])
    assert request.prompt == clean_text(PROMPTS[name])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", request.prompt)
    assert Request.from_json(request.to_json()) == request


def test_a_prompt_of_100_kb_is_refused_with_its_limit():
    with pytest.raises(BadInput) as refused:
        Request(mode="t2v", prompt="x" * 100_000)
    assert refused.value.where == "prompt"
    assert "8,000" in refused.value.advice


# ------------------------------------------------------------------ what an mp4 says


def forged(folder: Path, **values: str) -> Path:
    path = folder / "forged.mp4"
    tags.finish(samples.video(folder / "v.mp4", 0.3), path, values)
    return path


@pytest.mark.parametrize(
    "text",
    [
        '{"mode": "t2v", "width": 1e999}',
        '{"mode": "t2v", "seed": ' + "9" * 6000 + "}",
        '{"mode": "i2v", "image": "\\u0000"}',
        '{"mode": "t2v", "prompt": 5}',
        '{"mode": "t2v", "__class__": "x"}',
        '{"mode": ["t2v"]}',
        "[" * 50_000,
        "not JSON",
    ],
)
def test_a_forged_request_is_refused(folder, text):
    with pytest.raises(BadInput) as refused:
        tags.read_request(forged(folder, request=text))
    assert refused.value.where
    assert len(str(refused.value)) < 600


def test_a_forged_video_opens_no_file_of_this_machine(folder, monkeypatch):
    private = folder / "private"
    private.mkdir()
    secret = samples.image(private / "secret.png")
    monkeypatch.chdir(folder)
    for path in (str(secret), "private/secret.png", "../files/private/secret.png"):
        request = Request(mode="i2v", image=path)
        video = forged(
            folder, request=request.to_json(), inputs='{"image": "../private/secret.png"}'
        )
        found = tags.with_found_files(tags.read_request(video), video)
        assert found.image == "secret.png"
        with pytest.raises(BadInput, match="no file"):
            media.plan(found)


def test_a_forged_graph_is_never_run(folder):
    evil = '{"1": {"class_type": "EvilNode", "inputs": {}}}'
    video = forged(folder, prompt=evil, workflow=evil, request=Request(mode="t2v").to_json())
    assert tags.read_request(video) == Request(mode="t2v")  # the graph is not part of what is read


# ------------------------------------------------------------------ the command line

ON_THE_COMMAND_LINE = (
    "image: truncated PNG",
    "image: 300 characters",
    "audio: text",
    "audio: start 1.5 s of 1.5 s",
    "video: without its index",
)


@pytest.mark.parametrize("name", ON_THE_COMMAND_LINE)
def test_the_command_line_exits_2_with_one_sentence(folder, name):
    case = next(c for c in REFUSED if c.name == name)
    flags = [
        f"--{key.replace('_', '-')}={value}" for key, value in values_for(case, folder).items()
    ]
    command = [sys.executable, "tools/generate.py", case.mode, "--weights", "demo", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 2
    assert case.field in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_name_that_is_no_text_gets_into_the_graph_and_the_file(folder):
    path = bad_input.named(b"\xff\xfe.png")(folder)
    command = [sys.executable, "tools/generate.py", "i2v", "--dry-run", "--image", path]
    done = subprocess.run(command, capture_output=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    plain = plain_name(path)
    tags.finish(samples.video(folder / "v.mp4", 0.2), folder / "o.mp4", {"inputs": plain})
    assert tags.read_tags(folder / "o.mp4")["inputs"] == plain == "??.png"
