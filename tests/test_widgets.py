"""The editor's lists of widget values, read and written."""

from __future__ import annotations

import pytest

import schema
import widgets

KNOWN = schema.load()
POWER_LORA = widgets.POWER_LORA


def test_read_skips_the_control_behind_a_seed():
    values = widgets.read("KSampler", KNOWN["KSampler"], [7, "randomize", 9, 1.5, "lcm"])
    assert (values["seed"], values["steps"], values["sampler_name"]) == (7, 9, "lcm")


def test_read_fills_a_short_list_with_defaults():
    values = widgets.read("KSampler", KNOWN["KSampler"], [7])
    assert (values["steps"], values["cfg"], values["denoise"]) == (20, 8.0, 1.0)


def test_read_follows_the_choice_of_a_dynamic_combo():
    definition = KNOWN["ResizeImageMaskNode"]
    longer = widgets.read("ResizeImageMaskNode", definition, ["scale longer dimension", 9, "area"])
    both = widgets.read("ResizeImageMaskNode", definition, ["scale dimensions", 1, 2, "center"])
    assert longer["resize_type.longer_size"] == 9
    assert longer["scale_method"] == "area"
    assert (both["resize_type.width"], both["resize_type.height"]) == (1, 2)
    assert "resize_type.longer_size" not in both


def test_read_takes_a_dictionary_by_name_and_the_inputs_of_its_format():
    stored = {"format": "video/h264-mp4", "crf": 3, "frame_rate": 24, "videopreview": {}}
    values = widgets.read("VHS_VideoCombine", KNOWN["VHS_VideoCombine"], stored)
    assert (values["crf"], values["frame_rate"], values["pix_fmt"]) == (3, 24.0, "yuv420p")
    assert "videopreview" not in values


def test_read_numbers_lora_rows_and_drops_an_unused_second_strength():
    row = {"on": True, "lora": "a", "strength": 1, "strengthTwo": None}
    stored = [{}, {"type": "PowerLoraLoaderHeaderWidget"}, row, {**row, "strengthTwo": 0.5}, {}, ""]
    values = widgets.read(POWER_LORA, KNOWN[POWER_LORA], stored)
    assert values == {
        "lora_1": {"on": True, "lora": "a", "strength": 1.0},
        "lora_2": {"on": True, "lora": "a", "strength": 1.0, "strengthTwo": 0.5},
    }
    assert isinstance(values["lora_1"]["strength"], float)


@pytest.mark.parametrize(
    ("stored", "kind"), [([24], float), ([24.0], float)], ids=["saved by JavaScript", "by Python"]
)
def test_read_gives_numbers_their_inputs_type(stored, kind):
    definition = KNOWN["LTXVConditioning"]
    assert type(widgets.read("LTXVConditioning", definition, stored)["frame_rate"]) is kind


def test_read_gives_whole_numbers_their_inputs_type():
    values = widgets.read("EmptyLTXVLatentVideo", KNOWN["EmptyLTXVLatentVideo"], [64.0, 32.0])
    assert type(values["width"]) is int


@pytest.mark.parametrize(
    ("class_type", "values"),
    [
        ("KSampler", {"seed": 1, "steps": 2, "cfg": 3.0, "denoise": 0.5}),
        ("ResizeImageMaskNode", {"resize_type": "scale width", "resize_type.width": 77}),
        ("VHS_VideoCombine", {"format": "video/h264-mp4", "crf": 9}),
        ("PrimitiveInt", {"value": 12}),
        ("Load3D", {"model_file": "a.glb", "width": 12, "height": 13}),
        ("CustomCombo", {"choice": "b", "index": 1, "option1": "a", "option2": "b"}),
        (POWER_LORA, {"lora_1": {"on": False, "lora": "x", "strength": 0.25}}),
        ("CLIPTextEncode", {"text": "{a} and \\| b"}),
    ],
)
def test_write_is_read_back(class_type, values):
    definition = KNOWN[class_type]
    stored = widgets.write(class_type, definition, values)
    found = widgets.sent(class_type, definition, widgets.read(class_type, definition, stored))
    assert {name: found[name] for name in values} == values


def test_write_fixes_seeds():
    stored = widgets.write("KSampler", KNOWN["KSampler"], {"seed": 5})
    assert stored[:2] == [5, "fixed"]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("plain", "plain"),
        ("{a|b} c", "a c"),
        ("{a|{b|c}} d", "a d"),
        ("{{b|c}|a}", "b"),
        (r"\{a\}", "{a}"),
        (r"{a\|b|c}", "a|b"),
        ("un {closed", "un closed"),
        ("x } y", "x } y"),
        ("a /* b\nc */ d", "a  d"),
        ("a // b\nc", "a \nc"),
        ("{}", ""),
        ("C:\\dir", "C:\\dir"),
    ],
)
def test_spell_out_reads_the_language_of_prompts(text, sent):
    assert widgets.spell_out(text) == sent


@pytest.mark.parametrize("text", ["plain", "{a|b}", '{"a": {"b": 1}}', "x | y", "C:\\dir", "}{"])
def test_escape_makes_a_text_arrive_as_it_is(text):
    assert widgets.spell_out(widgets.escape(text)) == text
    assert widgets.speakable(text)


@pytest.mark.parametrize("text", ["see http://x.y/z", "a /* b */ c"])
def test_speakable_knows_what_cannot_be_escaped(text):
    assert not widgets.speakable(text)
