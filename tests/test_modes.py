"""Modes: every control alters the graph, presets mean what they say, titles exist."""

from __future__ import annotations

import pytest

import schema
import workflow
from media import Staged
from modes import MODES, audio_latents
from request import Request

STAGED = Staged(
    {
        "image": "studio_i.png",
        "audio": "studio_a.wav",
        "first_frame": "studio_f.png",
        "last_frame": "studio_l.png",
        "video": "studio_v.mp4",
    }
)
# A control that needs company: its strength matters once it is on, the image's once there is one.
COMPANY = {
    "camera_strength": {"camera": "static"},
    "detailer_strength": {"detailer": True},
    "pose_strength": {"pose": True},
    "ic_strength": {"ic_lora": "union-control"},
}
NOT_IN_THE_GRAPH = {"metadata"}  # decides about the file's tags
IN_THE_FILE = {"audio_start"}  # decides what the staged file holds, hence its name


def build(mode: str, staged: Staged = STAGED, **values) -> workflow.Graph:
    spec = MODES[mode]
    media = {f.name: "file" for f in spec.fields if f.is_media}
    request = Request(mode=mode, **{**media, **values})
    return workflow.build(mode, spec.patches(request, staged))


def other_values(spec) -> list:
    if spec.kind == "choice":
        return [c for c in spec.choices if c != spec.default]
    if spec.kind == "toggle":
        return [not spec.default]
    if spec.kind == "text":
        return ["something else entirely"]
    if spec.name in ("width", "height"):
        return [1024, 1280]
    if spec.kind == "integer":
        return [spec.minimum, min(spec.maximum, spec.default + 1), spec.maximum][
            : 2 if spec.name == "fps" else 3
        ]
    if spec.name == "seconds":
        return [1.0, 10.0]
    return [v for v in (spec.minimum, spec.maximum, 0.35) if v != spec.default]


CONTROLS = [
    (mode, spec.name)
    for mode in MODES
    for spec in MODES[mode].fields
    if not spec.is_media and spec.name not in NOT_IN_THE_GRAPH | IN_THE_FILE
]


@pytest.mark.parametrize(("mode", "name"), CONTROLS)
def test_every_control_alters_the_graph(mode, name):
    spec = MODES[mode].field(name)
    company = COMPANY.get(name, {})
    graphs = [build(mode, **company)]
    graphs += [build(mode, **{**company, name: value}) for value in other_values(spec)]
    texts = [workflow.json.dumps(g, sort_keys=True) for g in graphs]
    assert len(set(texts)) == len(texts), f"{name} has values that change nothing"


@pytest.mark.parametrize("mode", MODES)
def test_every_file_a_person_gives_is_in_the_graph(mode):
    for spec in MODES[mode].fields:
        if spec.is_media:
            other = Staged({**STAGED.names, spec.name: "studio_other"})
            assert build(mode, other) != build(mode), spec.name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("preset", ["fast", "balanced", "quality"])
@pytest.mark.parametrize("control", ["canny", "depth", "pose"])
def test_built_graphs_fit_the_captured_schema(mode, preset, control):
    values = {"control": control} if MODES[mode].field("control") else {}
    assert (
        schema.validate(build(mode, preset=preset, camera="jib-up", detailer=True, **values)) == []
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_node_of_a_template_reaches_the_output(mode):
    graph = workflow.load(mode)
    assert workflow.upstream(graph, workflow.outputs(graph)) == set(graph)


def test_loaders_are_identical_in_all_modes():
    titles = ("Transformer", "Text encoder", "Video VAE", "Audio VAE", "Latent upscaler")
    for title in titles:
        nodes = [workflow.load(m)[workflow.find(workflow.load(m), title)] for m in MODES]
        assert all(node == nodes[0] for node in nodes), title


@pytest.mark.parametrize("mode", MODES)
def test_stage_titles_exist_and_cover_the_heavy_nodes(mode):
    graph = workflow.load(mode)
    titles = {workflow.title(graph, n) for n in graph}
    named = {t for _, nodes in MODES[mode].stages for t in nodes}
    heavy = (
        "SamplerCustomAdvanced",
        "VAEDecode",
        "VAEDecodeTiled",
        "CLIPTextEncode",
        "UNETLoader",
        "SaveVideo",
    )
    for node_id, node in graph.items():
        if node["class_type"] in heavy:
            assert workflow.title(graph, node_id) in named
    all_titles = {workflow.title(g, n) for g in map(workflow.load, MODES) for n in g}
    assert named <= all_titles
    assert titles & named


def nodes_by_title(mode: str, preset: str) -> dict:
    graph = build(mode, preset=preset)
    return {workflow.title(graph, n): graph[n] for n in graph}


def test_fast_is_distilled_without_guidance():
    nodes = nodes_by_title("t2v", "fast")
    assert nodes["Stage 1 guidance"]["inputs"]["cfg"] == 1.0
    assert len(nodes["Stage 1 distilled sigmas"]["inputs"]["sigmas"].split(",")) == 9
    assert nodes["Stage 1 LoRAs"]["inputs"]["lora_1"]["on"] is True
    assert "Stage 1 scheduler" not in nodes


def test_balanced_is_scheduled_guided_and_undistilled_in_stage_1():
    nodes = nodes_by_title("t2v", "balanced")
    assert nodes["Stage 1 scheduler"]["inputs"]["steps"] == 20
    assert nodes["Stage 1 guidance"]["inputs"]["cfg"] == 3.0
    assert nodes["Stage 1 LoRAs"]["inputs"]["lora_1"]["on"] is False
    assert nodes["Stage 2 LoRAs"]["inputs"]["lora_1"]["on"] is True
    assert "Stage 1 distilled sigmas" not in nodes


def test_quality_is_second_order():
    nodes = nodes_by_title("t2v", "quality")
    assert nodes["Stage 1 second-order sampler"]["inputs"]["solver_type"] == "phi_2"
    assert nodes["Stage 1 scheduler"]["inputs"]["steps"] == 15
    assert nodes["Stage 1 LoRAs"]["inputs"]["lora_1"]["strength"] == 0.25
    assert "Stage 1 sampler" not in nodes


@pytest.mark.parametrize(
    ("preset", "forwards"), [("fast", (8, 3)), ("balanced", (40, 3)), ("quality", (60, 6))]
)
def test_presets_count_their_model_forwards(preset, forwards):
    assert MODES["t2v"].presets[preset].forwards == forwards


@pytest.mark.parametrize("preset", ["fast", "balanced", "quality"])
def test_style_presets_vary_the_control_resolution_only(preset):
    nodes = nodes_by_title("style", preset)
    assert nodes["Stage 1 guidance"]["inputs"]["cfg"] == 1.0
    assert "Stage 1 scheduler" not in nodes


def test_style_keeps_only_the_detector_it_uses():
    kinds = {"canny": "Canny", "depth": "DepthAnythingV2Preprocessor", "pose": "DWPreprocessor"}
    for control in kinds:
        classes = {n["class_type"] for n in build("style", control=control).values()}
        assert {k for k in kinds.values() if k in classes} == {kinds[control]}


def test_style_without_sound_or_image_needs_neither():
    silent = Staged({"video": "studio_v.mp4"})
    request = Request(mode="style", video="v")
    graph = workflow.build("style", MODES["style"].patches(request, silent))
    classes = {n["class_type"] for n in graph.values()}
    assert "LoadAudio" not in classes
    assert "LoadImage" not in classes
    assert "LTXVAudioVAEDecode" in classes


@pytest.mark.parametrize("mode", ["a2v", "lipsync", "style"])
def test_given_sound_is_muxed_as_it_is_and_frozen_in_both_stages(mode):
    graph = build(mode)
    ids = {workflow.title(graph, n): n for n in graph}
    assert graph[ids["Video"]]["inputs"]["audio"] == [ids["Sound"], 0]
    assert "Decode sound" not in ids
    for stage in ("Stage 1 latent", "Stage 2 latent"):
        assert graph[ids[stage]]["inputs"]["audio_latent"][0] == ids["Freeze sound"]


@pytest.mark.parametrize("mode", ["keyframe", "style"])
def test_guides_are_cropped_before_the_upscaler(mode):
    graph = build(mode)
    ids = {workflow.title(graph, n): n for n in graph}
    assert graph[ids["Upscale latent"]]["inputs"]["samples"] == [ids["Stage 1 without guides"], 2]


def test_a_lora_that_is_off_or_at_zero_loads_nothing():
    for values in ({}, {"camera": "static", "camera_strength": 0.0}):
        graph = build("t2v", **values)
        row = graph[workflow.find(graph, "LoRAs")]["inputs"]["lora_1"]
        assert row["on"] is False


@pytest.mark.parametrize(
    ("frames", "fps", "count"), [(25, 24, 27), (121, 24, 127), (121, 25, 121), (9, 60, 4)]
)
def test_audio_latents_round_up_as_comfyui_does(frames, fps, count):
    assert audio_latents(frames, fps) == count
