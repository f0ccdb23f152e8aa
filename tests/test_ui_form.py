"""The form without a browser: what is in it becomes a request, and what is wrong is said per field."""

from __future__ import annotations

import subprocess
import sys
import wave
from pathlib import Path

import av
import gradio as gr
import numpy as np
import pytest
import samples

import cards
import forms
import input_preview
import looking
from examples import EXAMPLES
from handlers import Handlers
from jobs import Studio
from modes import MODES
from request import Request


@pytest.fixture(scope="module")
def form():
    with gr.Blocks():
        return forms.build()


@pytest.fixture(scope="module")
def do(form, tmp_path_factory):
    return Handlers(Studio("demo", tmp_path_factory.mktemp("outputs")), form)


def raw(form, mode: str, values: dict) -> list:
    """Values as the browser sends them: one per control, in order."""
    spec = MODES[mode]
    shown = {forms.part_of(spec, f): values.get(f.name) for f in spec.fields}
    return [shown.get(key, part.default) for key, part in forms.PARTS.items()]


def checked(do, form, mode: str, values: dict) -> dict:
    """What the page shows after a look at the form, by name."""
    made = do.check(mode, *raw(form, mode, values))
    errors = dict(zip(form.errors, made, strict=False))
    rest = made[len(form.errors) + len(form.crops) :]
    crops = dict(zip(form.crops, made[len(form.errors) :], strict=False))
    return {
        "errors": {name: text for name, text in errors.items() if text},
        "crops": {name: value for name, value in crops.items() if value},
        "heard": rest[0],
        "preset": rest[2],
        "summary": rest[3],
        "able": rest[4]["interactive"],
    }


def visible(form, mode: str) -> set[str]:
    updates = dict(zip(form.order, form.updates(mode), strict=False))
    return {forms.PARTS[key].name for key, update in updates.items() if update["visible"]}


@pytest.mark.parametrize("mode", MODES)
def test_form_shows_exactly_what_the_mode_consumes(form, mode):
    assert visible(form, mode) == {f.name for f in MODES[mode].fields}


@pytest.mark.parametrize("mode", MODES)
def test_form_defaults_only_lack_the_required_files(form, do, mode):
    found = checked(do, form, mode, forms.defaults(mode))
    needed = [f for f in MODES[mode].fields if f.required]
    assert found["errors"] == {}
    assert found["able"] is (not needed)
    if needed:
        assert "Needs" in found["summary"]["missing"]


@pytest.mark.parametrize("mode", MODES)
def test_form_filled_from_an_example_gives_the_same_request_back(form, do, mode):
    for example in EXAMPLES[mode]:
        request = example.request()
        values = forms.values_of(request)
        updates = dict(zip(form.order, form.updates(mode, values), strict=False))
        sent = [updates[key].get("value", part.default) for key, part in forms.PARTS.items()]
        again, errors, missing = forms.collect(mode, form.values(mode, tuple(sent)))
        assert (again, errors, missing) == (request, {}, [])
        assert checked(do, form, mode, values)["able"] is True


def test_form_keeps_what_was_written_when_the_mode_changes(form, do):
    values = {**forms.defaults("t2v"), "prompt": "Keep me", "seconds": 3.0}
    switched = do.switch("i2v", *raw(form, "t2v", values))
    updates = dict(zip(form.order, switched[1:], strict=False))
    assert "value" not in updates["prompt"]
    assert "value" not in updates["seconds"]
    assert updates["image_strength"]["value"] == 0.7


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("width", None, "empty"),
        ("width", 9000, "2560"),
        ("fps", 0, "8"),
        ("seconds", 40.0, None),
        ("seed", -1, "0"),
        ("prompt", "x" * 9000, "8,000"),
    ],
)
def test_form_says_what_is_wrong_beside_the_field_and_blocks_generate(form, do, name, value, part):
    values = {**forms.defaults("t2v"), name: value}
    if name == "seconds":  # within the field's limits, but too many frames
        values["fps"], part = 60, "frames"
    found = checked(do, form, "t2v", values)
    assert found["able"] is False
    assert part in found["errors"][name]
    assert list(found["errors"]) == [name]


def test_form_reports_several_errors_at_once(form, do):
    values = {**forms.defaults("t2v"), "fps": None, "width": 1}
    assert set(checked(do, form, "t2v", values)["errors"]) == {"fps", "width"}


@pytest.mark.parametrize(("mode", "name"), [("i2v", "image"), ("a2v", "audio"), ("style", "video")])
def test_form_refuses_a_file_that_is_not_what_it_claims(form, do, mode, name, tmp_path):
    fake = tmp_path / {"image": "a.png", "audio": "a.wav", "video": "a.mp4"}[name]
    fake.write_bytes(b"not media at all" * 100)
    found = checked(do, form, mode, {**forms.defaults(mode), name: str(fake)})
    assert name in found["errors"]
    assert found["able"] is False


def test_form_shows_the_snapped_size_and_the_real_length(form, do):
    values = {**forms.defaults("t2v"), "width": 1000, "height": 700, "seconds": 2.0}
    summary = checked(do, form, "t2v", values)["summary"]
    assert summary["size"] == "1024 × 704 px · 49 frames · 2.04 s at 24 fps"
    assert any("1000x700 becomes 1024x704" in note for note in summary["notes"])


def test_form_says_what_a_preset_costs(form, do):
    values = forms.defaults("t2v")
    assert checked(do, form, "t2v", values)["preset"]["cost"] == ""
    costs = []
    for preset in ("balanced", "quality"):
        text = checked(do, form, "t2v", {**values, "preset": preset})["preset"]["cost"]
        costs.append(float(text.split("×")[0]))
    assert 1 < costs[0] < costs[1]


def test_form_style_preset_brings_its_own_size(do):
    assert do.preset("style", "quality") == [1280, 768, "16:9", "HD"]


def test_form_takes_the_clips_length_from_the_recording(do, tmp_path):
    path = str(samples.audio(tmp_path / "a.wav", seconds=3.26))
    assert do.fit(path, 0.0) == 3.3
    assert do.fit(path, 1.0) == 2.3


# ---------------------------------------------------------------------------------- looking


def test_crop_shows_the_part_that_is_used(tmp_path):
    wide = str(samples.image(tmp_path / "wide.png", 400, 200))
    shown = looking.crop(wide, 512, 512, "Image")
    assert (shown["x"], shown["y"], shown["w"], shown["h"]) == (25, 0, 50, 100)
    assert "50 % is cut off left and right" in shown["text"]
    assert looking.crop(wide, 512, 256, "Image")["text"].startswith("400 × 200: used whole.")
    assert looking.crop(None, 512, 256, "Image") == {}


def test_sound_is_told_apart():
    seeds = Path(looking.__file__).parent / "assets" / "seed_inputs"
    assert "probably speech" in looking.sound_words(str(seeds / "speech.m4a"), 0)
    assert "speech" not in looking.sound_words(str(seeds / "melody.m4a"), 0)


def test_silence_is_called_silence(tmp_path):
    path = tmp_path / "quiet.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(np.zeros(32000, np.int16).tobytes())
    assert looking.sound_words(str(path), 0) == "2.0 s, mono, 16 kHz: silence."


# ---------------------------------------------------------------------------------- input preview


@pytest.mark.parametrize("mode", MODES)
def test_input_preview_has_the_clips_length_and_shape_and_its_mark(mode, tmp_path):
    request = EXAMPLES[mode][0].request().replace(seconds=2.0)
    path = input_preview.compose(request, tmp_path / "preview.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(2.04, abs=0.15)
        assert stream.width / stream.height == pytest.approx(request.width / request.height, 0.02)
        assert bool(container.streams.audio) is bool({"audio", "video"} & set(request.media))
        frame = next(container.decode(stream)).to_ndarray(format="rgb24").astype(int)
    bar = frame[-frame.shape[0] // 9 :, : frame.shape[1] // 3]
    amber = np.abs(bar - (224, 164, 88)).sum(axis=-1) < 110
    assert amber.sum() > 60, "the mark cannot be read"


def test_input_preview_keyframes_dissolve(tmp_path):
    paths = {}
    for name, level in (("first_frame", 30), ("last_frame", 220)):
        from PIL import Image

        paths[name] = str(tmp_path / f"{name}.png")
        Image.new("L", (256, 256), level).save(paths[name])
    request = Request(mode="keyframe", width=256, height=256, seconds=1.0, **paths)
    path = input_preview.compose(request, tmp_path / "preview.mp4")
    with av.open(str(path)) as container:
        middles = [f.to_ndarray(format="gray")[100, 100] for f in container.decode(video=0)]
    assert middles[0] < 50 < middles[len(middles) // 2] < 200 < middles[-1]


def test_input_preview_needs_neither_torch_nor_comfyui(tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'comfy', 'execution', 'kornia'): sys.modules[name] = None\n"
        "import input_preview, examples, pathlib\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "for mode, found in examples.EXAMPLES.items():\n"
        "    request = found[0].request().replace(seconds=1.0)\n"
        "    input_preview.compose(request, out / f'{mode}.mp4')\n"
    )
    root = Path(input_preview.__file__).parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)
    assert len(list(tmp_path.glob("*.mp4"))) == len(MODES)


def test_input_preview_through_the_page_works_while_there_is_no_engine(do, form):
    request = EXAMPLES["i2v"][0].request().replace(seconds=1.0)

    class Session:
        session_hash = "a"

    values = raw(form, "i2v", forms.values_of(request))
    player, error = do.preview(Session(), "i2v", *values)
    assert Path(player["value"]).is_file()
    assert error == {}
    player, error = do.preview(Session(), "i2v", *raw(form, "i2v", forms.defaults("i2v")))
    assert error["title"] == cards.TITLES["bad_input"]
