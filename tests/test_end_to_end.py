"""The real ComfyUI, the real packs, demo weights: videos come out, opened and measured.

One engine serves the whole session, as one studio does.
"""

from __future__ import annotations

import json
import pickle
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import samples

import backend
import engine as engines
import export
import media
import schema
import tags
import workflow
from events import Failed, Finished, Note, Preview, Stage, Step, Tick
from modes import MODES
from request import Request

pytestmark = pytest.mark.comfy


def run(engine, request, out_dir, **options) -> tuple[list, Finished | Failed]:
    events = list(engine.run(request, out_dir, **options))
    finals = [e for e in events if isinstance(e, (Finished, Failed))]
    assert len(finals) == 1
    assert events[-1] is finals[0]
    return events, finals[0]


def made(engine, request, out_dir) -> Finished:
    final = run(engine, request, out_dir)[1]
    assert isinstance(final, Finished), final
    return final


def measure(path: str) -> dict:
    with av.open(path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        frames = sum(1 for _ in container.decode(video))
        container.seek(0)
        sound = np.concatenate([f.to_ndarray() for f in container.decode(audio)], axis=1)
        return {
            "frames": frames,
            "size": (video.width, video.height),
            "fps": float(video.average_rate),
            "codecs": (video.codec.name, video.pix_fmt, audio.codec.name),
            "audio_seconds": float(audio.duration * audio.time_base),
            "sound": sound,
            "rate": audio.rate,
        }


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_makes_the_video_that_was_asked_for(engine, tmp_path, mode):
    request = samples.request_for(mode, tmp_path)
    events, final = run(engine, request, tmp_path / "out")
    assert isinstance(final, Finished), final
    got = measure(final.path)
    assert got["frames"] == request.frames == 25
    assert got["size"] == (request.width, request.height)
    assert got["fps"] == request.fps
    assert got["codecs"] == ("h264", "yuv420p", "aac")
    assert got["audio_seconds"] == pytest.approx(request.duration, abs=1024 / got["rate"] + 0.001)
    assert 0.001 < np.sqrt(np.mean(got["sound"] ** 2)) < 0.9
    data = Path(final.path).read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    names = [e.name for e in events if isinstance(e, Stage)]
    assert {"Stage 1: composing at half size", "Stage 2: refining at full size"} <= set(names)
    assert any(isinstance(e, Step) for e in events)


@pytest.mark.parametrize("preset", ["balanced", "quality"])
def test_other_presets_run(engine, tmp_path, preset):
    made(engine, samples.request_for("t2v", tmp_path, preset=preset), tmp_path)


@pytest.mark.parametrize(("fps", "seconds", "size"), [(25, 2.0, (320, 192)), (50, 0.5, (192, 320))])
def test_other_sizes_lengths_and_rates_come_out_as_asked(engine, tmp_path, fps, seconds, size):
    request = samples.request_for(
        "t2v", tmp_path, fps=fps, seconds=seconds, width=size[0], height=size[1]
    )
    got = measure(made(engine, request, tmp_path).path)
    assert (got["frames"], got["fps"]) == (request.frames, fps)
    assert got["size"] == (request.width, request.height)
    assert got["audio_seconds"] == pytest.approx(request.duration, abs=1024 / got["rate"])


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_given_sound_is_what_the_file_plays_to_the_sample(engine, tmp_path, start):
    request = samples.request_for("a2v", tmp_path, audio_start=start)
    got = measure(made(engine, request, tmp_path).path)
    original = samples.noise(2.0)[int(start * 48000) :, 0]
    played, n = got["sound"][0], 30000
    scores = {
        k: float(np.dot(played[4000 + k : 4000 + k + n], original[4000 : 4000 + n]))
        for k in range(-1200, 1201)
    }
    assert max(scores, key=scores.get) == 0
    pair = played[4000 : 4000 + n], original[4000 : 4000 + n]
    assert np.corrcoef(*pair)[0, 1] > 0.9


def test_same_seed_gives_the_same_bytes_and_another_does_not(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, seed=11)
    first = Path(made(engine, request, tmp_path / "1").path).read_bytes()
    engine.free()
    second = Path(made(engine, request, tmp_path / "2").path).read_bytes()
    assert first == second
    other = Path(made(engine, request.replace(seed=12), tmp_path / "3").path).read_bytes()
    assert other != first


def downstream(graph: workflow.Graph, titles: tuple[str, ...]) -> set[str]:
    reached = {workflow.find(graph, t) for t in titles}
    while True:
        more = {
            n for n in graph if any(s in reached for s, _ in workflow.links(graph[n]).values())
        } - reached
        if not more:
            return reached
        reached |= more


def test_a_changed_seed_runs_only_what_depends_on_it(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, seed=21)
    made(engine, request, tmp_path)
    second = made(engine, request.replace(seed=22), tmp_path)
    graph = engines.graph_for(request, "demo")
    allowed = downstream(graph, ("Stage 1 noise", "Stage 2 noise"))
    assert 0 < second.executed <= len(allowed)
    assert second.cached >= len(graph) - len(allowed)


def test_a_changed_word_reads_the_prompt_again_and_loads_nothing(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, prompt="a fox")
    made(engine, request, tmp_path)
    second = made(engine, request.replace(prompt="a wolf"), tmp_path)
    allowed = downstream(engines.graph_for(request, "demo"), ("Prompt",))
    assert 0 < second.executed <= len(allowed)


def test_a_mode_switch_and_back_reloads_no_model(engine, tmp_path):
    first = samples.request_for("t2v", tmp_path, seed=31)
    made(engine, first, tmp_path)
    made(engine, samples.request_for("keyframe", tmp_path), tmp_path)
    back = made(engine, first.replace(seed=32), tmp_path)
    graph = engines.graph_for(first, "demo")
    assert back.executed <= len(downstream(graph, ("Stage 1 noise", "Stage 2 noise")))


def test_an_identical_request_is_answered_from_the_cache(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, seed=41)
    first = made(engine, request, tmp_path / "1")
    again = made(engine, request, tmp_path / "2")
    assert again.executed == 0
    assert Path(again.path).read_bytes() == Path(first.path).read_bytes()


def test_an_identical_request_runs_again_when_its_file_is_gone(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, seed=42)
    made(engine, request, tmp_path / "1")
    for file in (backend.HOST.output_dir / "studio").glob("*.mp4"):
        file.unlink()
    again = made(engine, request, tmp_path / "2")
    assert again.executed >= 1
    assert measure(again.path)["frames"] == 25


def test_the_file_carries_graph_and_request_apart(engine, tmp_path):
    request = samples.request_for("i2v", tmp_path, seed=51)
    read = tags.read_tags(made(engine, request, tmp_path / "out").path)
    graph = json.loads(read["prompt"])
    assert graph == engines.graph_for(request, "demo")
    assert backend.HOST.problems(graph) == []
    saved = json.loads(read["request"])
    assert saved["seed"] == 51
    assert saved["image"] == "image.png"
    assert str(tmp_path) not in json.dumps(read)
    assert export.from_editor(json.loads(read["workflow"]), schema.load()) == graph


def test_no_metadata_leaves_the_tags_out(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, metadata=False)
    read = tags.read_tags(made(engine, request, tmp_path).path)
    assert not {"prompt", "request", "workflow", "inputs"} & set(read)


def test_a_replay_from_the_file_gives_the_same_picture(engine, tmp_path):
    request = samples.request_for("lipsync", tmp_path, seed=52, audio_start=0.25)
    first = made(engine, request, tmp_path / "out")
    for name in ("image.png", "audio.wav"):
        (tmp_path / name).unlink()
    saved = tags.with_found_files(tags.read_request(first.path), first.path)
    again = made(engine, saved, tmp_path / "again")
    one, two = (measure(p)["sound"] for p in (first.path, again.path))
    assert np.array_equal(one, two)
    assert again.executed == 0


def test_events_pickle_small_and_previews_are_pictures(engine, tmp_path):
    sizes, pictures = [], 0
    for event in engine.run(
        samples.request_for("t2v", tmp_path, seed=61, preset="balanced"), tmp_path
    ):
        sizes.append(len(pickle.dumps(event)))
        if isinstance(event, Preview):
            pictures += Path(event.path).read_bytes()[:3] == b"\xff\xd8\xff"
    assert max(sizes) < 4096
    assert pictures >= 1


@pytest.mark.parametrize("at", [Note, Stage, Step])
def test_cancel_stops_a_run_and_the_next_one_works(engine, tmp_path, at):
    cancel, stopped = threading.Event(), None
    request = samples.request_for("t2v", tmp_path, preset="quality", seconds=6.0, seed=71)
    for event in engine.run(request, tmp_path, cancel):
        if isinstance(event, at) and not cancel.is_set():
            cancel.set()
            stopped = time.monotonic()
        final = event
    assert isinstance(final, Failed)
    assert final.category == "interrupted"
    assert time.monotonic() - stopped < 5  # generous: this machine may be busy; the target is 1 s
    assert not list(tmp_path.glob("*.mp4"))
    made(engine, samples.request_for("t2v", tmp_path, seed=72), tmp_path)


def test_closing_the_stream_stops_the_run(engine, tmp_path):
    stream = engine.run(samples.request_for("t2v", tmp_path, preset="quality", seed=81), tmp_path)
    for event in stream:
        if isinstance(event, Step):
            break
    stream.close()
    assert not engine.state.busy
    over = threading.Event()
    backend.HOST.runner.start(over.set)
    assert over.wait(1)  # the executor's thread is free again
    made(engine, samples.request_for("t2v", tmp_path, seed=82), tmp_path)


def test_everything_that_computes_happens_on_the_same_thread(engine, tmp_path, monkeypatch):
    import comfy.model_management as mm

    seen = []

    def noted(function):
        def call(*args):
            seen.append(threading.get_ident())
            return function(*args)

        return call

    monkeypatch.setattr(backend.HOST.executor, "execute", noted(backend.HOST.executor.execute))
    monkeypatch.setattr(mm, "unload_all_models", noted(mm.unload_all_models))
    for seed in (83, 84):
        made(engine, samples.request_for("t2v", tmp_path, seed=seed), tmp_path)
    engine.free()
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()


def test_a_second_caller_waits_its_turn(engine, tmp_path):
    results: list = []

    def call(seed: int) -> None:
        results.append(run(engine, samples.request_for("t2v", tmp_path, seed=seed), tmp_path)[1])

    samples.request_for("t2v", tmp_path)
    threads = [threading.Thread(target=call, args=(s,)) for s in (91, 92)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(isinstance(r, Finished) for r in results)
    assert len({r.path for r in results}) == 2


def raising_node(error: Exception):
    """A real ComfyUI node that passes a latent on, or raises."""

    class Raises:
        """Raises when it runs."""

        RETURN_TYPES = ("LATENT",)
        FUNCTION = "run"
        CATEGORY = "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"samples": ("LATENT",)}}

        def run(self, samples):
            raise error

    return Raises


def with_raising_node(graph: workflow.Graph) -> workflow.Graph:
    node = graph[workflow.find(graph, "Upscale latent")]
    graph["test"] = {
        "class_type": "StudioTestRaises",
        "inputs": {"samples": node["inputs"]["samples"]},
        "_meta": {"title": "Trouble"},
    }
    node["inputs"]["samples"] = ["test", 0]
    return graph


@pytest.mark.parametrize("kind", ["memory", "value"])
def test_a_node_that_raises_becomes_a_failure_with_its_title(engine, tmp_path, kind):
    import nodes
    import torch

    error = (
        torch.OutOfMemoryError("CUDA out of memory.")
        if kind == "memory"
        else ValueError("bad tensor")
    )
    nodes.NODE_CLASS_MAPPINGS["StudioTestRaises"] = raising_node(error)
    try:
        request = samples.request_for("t2v", tmp_path, seed=101)
        graph = with_raising_node(engines.graph_for(request, "demo"))
        job = backend.Job(graph, engines.stage_map("t2v", graph), {}, False, str(tmp_path))
        final = list(backend.run_graph(job))[-1]
    finally:
        del nodes.NODE_CLASS_MAPPINGS["StudioTestRaises"]
    assert isinstance(final, Failed)
    assert final.category == ("out_of_memory" if kind == "memory" else "node")
    assert final.where == "Trouble"
    assert final.advice
    assert "raise error" in final.detail
    made(engine, samples.request_for("t2v", tmp_path, seed=102), tmp_path)


def test_an_unknown_node_is_refused_before_and_survived_inside(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, seed=111)
    graph = engines.graph_for(request, "demo")
    graph[workflow.find(graph, "Upscale latent")]["class_type"] = "NoSuchNode"
    problems = backend.HOST.problems(graph)
    assert problems
    assert "NoSuchNode" in problems[0][1]
    job = backend.Job(graph, engines.stage_map("t2v", graph), {}, False, str(tmp_path))
    final = list(backend.run_graph(job))[-1]
    assert isinstance(final, Failed)
    made(engine, request, tmp_path)


@pytest.mark.parametrize(
    ("title", "name", "value"),
    [
        ("Transformer", "unet_name", "not-there.safetensors"),
        ("Empty video", "width", 7),
        ("Stage 1 sampler", "sampler_name", "nothing"),
    ],
)
def test_validation_sees_every_node_not_only_the_outputs(engine, tmp_path, title, name, value):
    graph = engines.graph_for(samples.request_for("t2v", tmp_path), "demo")
    graph = workflow.apply(graph, [(title, name, value)])
    problems = backend.HOST.problems(graph)
    assert [workflow.title(graph, n) for n, _ in problems] == [title]


def test_demo_weights_refuse_controls_without_stand_in(engine, tmp_path):
    final = run(engine, samples.request_for("style", tmp_path, control="pose"), tmp_path)[1]
    assert isinstance(final, Failed)
    assert final.category == "bad_input"
    assert "pose" in final.what


def test_bad_files_end_the_stream_with_a_sentence(engine, tmp_path):
    request = samples.request_for("i2v", tmp_path)
    Path(request.image).write_bytes(b"no image")
    final = run(engine, request, tmp_path)[1]
    assert isinstance(final, Failed)
    assert (final.category, final.where) == ("bad_input", "image")


def test_the_stream_ticks_while_it_waits(engine, tmp_path):
    with engine._run_lock:
        stream = engine.run(samples.request_for("t2v", tmp_path), tmp_path)
        assert any(isinstance(next(stream), Tick) for _ in range(6))
        stream.close()
    assert media.STAGED_NAME  # the lock is free again for the next test


def test_time_left_is_known_after_a_run_and_comes_down(engine, tmp_path):
    made(engine, samples.request_for("t2v", tmp_path, seed=121), tmp_path)
    events, _ = run(
        engine, samples.request_for("t2v", tmp_path, seed=122, preset="quality"), tmp_path
    )
    left = [e.seconds_left for e in events if isinstance(e, (Stage, Step))]
    assert all(value is not None for value in left)
    assert left[-1] < max(left)


def test_requests_survive_the_trip_through_json(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, seed=131)
    assert engines.graph_for(Request.from_json(request.to_json()), "demo") == engines.graph_for(
        request, "demo"
    )
