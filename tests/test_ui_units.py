"""The page's parts without a browser: sizes, line and visits, cards, reopening, endpoints."""

from __future__ import annotations

import inspect
import json
import re
import threading
import time
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import samples

import cards
import endpoints
import forms
import handlers
import jobs
import reopening
import sizes
import tags
import ui
import visits
from errors import BadInput, SetupError
from events import Download, Failed, Finished, Note, Stage, Step
from examples import EXAMPLES
from modes import MODES
from request import Request

# ---------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("step", [64, 128])
def test_sizes_every_shape_and_resolution_is_makeable_and_keeps_its_shape(step):
    for aspect, ratio in sizes.ASPECTS.items():
        for resolution in ("HD", "Full HD"):
            width, height = sizes.size_for(aspect, resolution, step)
            assert width % step == 0
            assert height % step == 0
            assert width / height == pytest.approx(ratio, rel=0.2), (aspect, resolution)


def test_sizes_name_the_models_usual_sizes():
    assert sizes.size_for("3:2", "Standard", 64) == (768, 512)
    assert sizes.size_for("16:9", "HD", 64) == (1280, 704)
    assert sizes.size_for("16:9", "Full HD", 64) == (1920, 1088)
    assert sizes.names_for(768, 512, 64) == ("3:2", "Standard")


def test_sizes_of_every_mode_default_have_a_name_or_are_custom():
    for mode in MODES.values():
        values = forms.defaults(mode.key)
        names = sizes.names_for(values["width"], values["height"], mode.size_step)
        assert sizes.CUSTOM not in names, (mode.key, values["width"], values["height"])
    assert sizes.names_for(320, 1024, 64) == (sizes.CUSTOM, sizes.CUSTOM)


# ---------------------------------------------------------------------------------- line, visits


def test_line_serves_in_order_and_says_how_many_are_ahead():
    line = visits.Line()
    first, second, third = line.join(), line.join(), line.join()
    assert [line.ahead(t) for t in (first, second, third)] == [0, 1, 2]
    line.leave(second)
    line.leave(second)
    assert [line.ahead(t) for t in (first, third)] == [0, 1]
    line.leave(first)
    assert line.ahead(third) == 0


def test_line_with_slots_lets_as_many_in():
    line = visits.Line(2)
    assert [line.ahead(t) for t in [line.join(), line.join(), line.join()]] == [0, 0, 1]


def test_visits_are_apart_and_cannot_be_guessed(tmp_path):
    all_visits = visits.Visits(tmp_path, keep=True)
    one, two = all_visits.of("a"), all_visits.of("b")
    assert all_visits.of("a") is one
    assert one.folder != two.folder
    assert len(one.folder.name) >= len("20260101-000000-") + 24  # 18 random bytes in base64
    assert all_visits.of(None) is not all_visits.of(None)


def test_visit_end_stops_its_job_and_only_its_job(tmp_path):
    all_visits = visits.Visits(tmp_path, keep=True)
    mine, other = all_visits.of("a").start(), all_visits.of("b").start()
    all_visits.end("a")
    assert mine.is_set()
    assert not other.is_set()


def test_visit_cancel_pressed_before_the_run_starts_is_not_lost(tmp_path):
    visit = visits.Visits(tmp_path, keep=True).of("a")
    visit.arm()
    visit.stop()
    assert visit.start().is_set()
    assert not visit.start().is_set()  # the next job is a new one


def test_visit_keeps_one_preview_and_none_after_its_end(tmp_path):
    all_visits = visits.Visits(tmp_path, keep=True)
    visit = all_visits.of("a")
    visit.folder.mkdir()
    first = visit.new_preview()
    first.write_bytes(b"1")
    second = visit.new_preview()
    second.write_bytes(b"2")
    assert list(visit.folder.iterdir()) == [second] != [first]
    all_visits.end("a")
    assert not visit.folder.exists()
    other = all_visits.of("b")
    other.folder.mkdir()
    other.new_preview().write_bytes(b"3")
    (other.folder / "t2v-1-abc.mp4").write_bytes(b"video")
    all_visits.end("b")
    assert [path.name for path in other.folder.iterdir()] == ["t2v-1-abc.mp4"]


def test_visits_sweep_deletes_old_folders_only_where_they_are_not_the_owners(tmp_path):
    for keep in (True, False):
        all_visits = visits.Visits(tmp_path / str(keep), keep=keep)
        live = all_visits.of("a").folder
        old = tmp_path / str(keep) / "old"
        for folder in (live, old):
            folder.mkdir(parents=True)
        all_visits.sweep(now=time.time() + visits.KEEP + 60)
        assert live.is_dir()
        assert old.is_dir() is keep


# ---------------------------------------------------------------------------------- jobs


def test_progress_counts_its_own_seconds_down():
    progress = jobs.Progress(Request(mode="t2v"))
    assert progress.seconds_left is None
    progress.hear(Stage(4, 9, "Stage 1", 10.0))
    time.sleep(0.2)
    assert 9.5 < progress.seconds_left < 9.85
    progress.hear(Step(2, 8, 5.0))
    assert progress.seconds_left == pytest.approx(5.0, abs=0.1)
    assert (progress.index, progress.count, progress.step, progress.steps) == (4, 9, 2, 8)


def test_progress_fraction_follows_stages_where_no_time_is_known():
    progress = jobs.Progress(Request(mode="t2v"))
    progress.hear(Stage(5, 10, "Upscaling"))
    assert progress.fraction == pytest.approx(0.4)
    progress.hear(Download("a", 25, 100, 5.0, 15.0, 1, 4))
    assert (progress.phase, progress.fraction) == ("download", 0.25)


def test_studio_run_waits_for_the_engine_and_stops_when_told(tmp_path):
    studio = jobs.Studio("demo", tmp_path)
    visit = studio.visits.of("a")
    run = studio.run(Request(mode="t2v"), visit)
    seen = [next(run).phase, next(run).phase]
    assert seen[-1] == "starting"
    visit.stop()
    began = time.monotonic()
    last = list(run)[-1]
    assert time.monotonic() - began < 1
    assert last.final == Failed("interrupted", "Cancelled")
    assert len(studio.line) == 0


def test_studio_run_says_how_many_are_ahead(tmp_path):
    studio = jobs.Studio("demo", tmp_path)
    first = studio.run(Request(mode="t2v"), studio.visits.of("a"))
    second = studio.run(Request(mode="t2v"), studio.visits.of("b"))
    next(first), next(second)
    progress = next(second)
    assert (progress.phase, progress.ahead) == ("waiting", 1)
    first.close()
    progress = next(second)
    assert (progress.phase, progress.ahead) == ("starting", 0)
    second.close()
    assert len(studio.line) == 0


def test_studio_that_cannot_start_says_so_in_the_job_and_starts_again_when_asked(tmp_path):
    attempts = []

    def prepare(report):
        attempts.append(1)
        raise SetupError("ComfyUI is not installed", "comfyui", "Run it.")

    studio = jobs.Studio("demo", tmp_path, prepare=prepare)
    studio.start().join()
    assert studio.state.status == "failed"
    last = list(studio.run(Request(mode="t2v"), studio.visits.of("a")))[-1]
    assert (last.final.category, last.final.where) == ("setup", "comfyui")
    assert "not installed" in last.final.what
    studio.start().join()
    assert len(attempts) == 2


def test_studio_boots_once_somebody_is_there_or_after_its_head_start(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "DRAWN", 0.0)
    begun = threading.Event()

    def prepare(report):
        begun.set()
        raise SetupError("No engine here", "comfyui", "")

    studio = jobs.Studio("demo", tmp_path, prepare=prepare)
    studio.start(head_start=60)
    assert not begun.wait(0.2)
    studio.opened.set()
    assert begun.wait(10)
    begun.clear()
    jobs.Studio("demo", tmp_path, prepare=prepare).start(head_start=0.1)
    assert begun.wait(10)


def test_model_files_are_looked_at_again_when_the_engine_is_ready(tmp_path):
    config = ui.build(jobs.Studio("demo", tmp_path)).get_config_file()
    ids = {
        name: part["id"]
        for part in config["components"]
        for name in part["props"].get("elem_classes") or ()
    }
    follows = [
        listener
        for listener in config["dependencies"]
        if [ids["studio-engine"], "change"] in [list(t) for t in listener["targets"]]
    ]
    assert any(ids["studio-models"] in listener["outputs"] for listener in follows)


# ---------------------------------------------------------------------------------- cards


def test_cards_templates_escape_everything():
    for name, template in vars(cards).items():
        if name.isupper() and isinstance(template, str):
            assert "${" not in template, f"{name}: a raw insertion"
            assert "{{{" not in template, f"{name}: a raw insertion"


def test_cards_setup_failure_names_part_and_command():
    error = SetupError("A pack is missing", "ComfyUI-KJNodes", "")
    value = cards.engine(jobs.EngineState("failed", "x", error=error), "demo")
    assert value["where"] == "ComfyUI-KJNodes"
    assert value["command"] == "python3 tools/run.py"


def test_cards_portable_request_names_files_without_their_folder(tmp_path):
    request = samples.request_for("i2v", tmp_path)
    text = cards.portable(request)
    assert str(tmp_path) not in text
    assert Path(request.image).name in text


def test_cards_status_says_stage_step_time_and_place_in_line():
    progress = jobs.Progress(Request(mode="t2v"))
    progress.ahead = 3
    value = cards.status(progress, jobs.EngineState("ready"), "")
    assert "3 ahead" in value["title"]
    progress.hear(Stage(4, 9, "Composing", 30.0))
    progress.hear(Step(3, 8, 30.0))
    progress.hear(Note("A note."))
    value = cards.status(progress, jobs.EngineState("ready", "", "cpu", 1, 2 * 10**9), "")
    assert value["title"] == "Composing"
    assert value["detail"] == "Stage 4 of 9, step 3 of 8"
    assert value["left"] == "30 s left"
    assert value["notes"] == ["A note."]
    assert value["memory"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "under 1 s"), (59.6, "60 s"), (150, "2 min 30 s")]
)
def test_cards_about_reads_like_a_sentence(seconds, text):
    assert cards.about(seconds) == text


# ---------------------------------------------------------------------------------- history


def test_history_keeps_at_most_two_chosen_for_comparison():
    final = Finished("x.mp4", 1.0)
    takes = tuple(handlers.Take(Request(mode="t2v", seed=i), final, "", "") for i in range(3))
    for index in (0, 1, 2):
        takes = handlers.toggled(takes, index)
    assert [take.chosen for take in takes] == [False, True, True]
    assert not handlers.toggled(takes, 2)[2].chosen


# ---------------------------------------------------------------------------------- reopening


def test_reopening_never_follows_a_path_somebody_else_wrote(tmp_path):
    secret = samples.image(tmp_path / "secret.png")
    text = json.dumps({"mode": "i2v", "image": str(secret), "prompt": "x"})
    saved = tmp_path / "elsewhere" / "request.json"
    saved.parent.mkdir()
    saved.write_text(text)
    for request, note in (reopening.from_text(text), reopening.from_file(saved)):
        assert not Path(request.image).is_file()
        assert forms.values_of(request)["image"] is None
        assert "secret.png" in note


def test_reopening_a_video_made_here_brings_every_value_back(tmp_path):
    request = Request(mode="t2v", prompt="a 'quoted' <b>prompt</b>\nnext", seed=7, preset="quality")
    source = samples.video(tmp_path / "raw.mp4", seconds=0.5)
    made = tmp_path / "made.mp4"
    tags.finish(source, made, {"request": request.to_json()})
    found, note = reopening.from_file(made)
    assert found == request
    assert "filled" in note


def test_reopening_refuses_what_is_no_request(tmp_path):
    with pytest.raises(BadInput):
        reopening.from_text("{]")
    with pytest.raises(BadInput):
        reopening.from_file(samples.video(tmp_path / "foreign.mp4", seconds=0.5))


# ---------------------------------------------------------------------------------- endpoints


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return ui.build(jobs.Studio("demo", tmp_path_factory.mktemp("outputs")))


def test_page_exposes_one_endpoint_per_mode_and_nothing_else(page):
    info = page.get_api_info()
    assert set(info["named_endpoints"]) == {f"/{key}" for key in MODES}
    assert info["unnamed_endpoints"] == {}


@pytest.mark.parametrize("mode", MODES)
def test_endpoint_has_every_field_of_its_mode_typed_and_described(mode, tmp_path):
    spec = MODES[mode]
    call = endpoints.endpoint(jobs.Studio("demo", tmp_path), spec)
    parameters = inspect.signature(call).parameters
    assert set(parameters) == {f.name for f in spec.fields}
    for field in spec.fields:
        parameter = parameters[field.name]
        assert (parameter.default is inspect.Parameter.empty) is field.required
        if field.kind == "choice":
            assert get_origin(parameter.annotation) is Literal
            assert get_args(parameter.annotation) == field.choices
        assert re.search(rf"^    {field.name}: \S", call.__doc__, re.M)


@pytest.mark.parametrize("value", ["/etc/hostname", {"path": "/etc/hostname"}, {"path": None}, 3])
def test_endpoint_takes_files_from_the_upload_folder_only(value: Any):
    with pytest.raises(BadInput, match="not an uploaded file"):
        endpoints.located(MODES["i2v"], {"image": value})


# ---------------------------------------------------------------------------------- page


def test_page_listeners_that_change_the_form_stay_private(page):
    public = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"]
    assert set(public) == set(MODES)


def test_page_holds_no_state_of_a_visitor_outside_their_session(page):
    desks = [block for block in page.blocks.values() if type(block).__name__ == "State"]
    assert len(desks) == 1
    assert isinstance(desks[0].value, handlers.Desk)


def test_examples_exist_for_every_mode_and_their_files_are_ours():
    assert set(EXAMPLES) == set(MODES)
    for mode, examples in EXAMPLES.items():
        for example in examples:
            request = example.request()
            assert request.mode == mode
            assert all(Path(path).is_file() for path in request.media.values())


def test_visits_are_thread_safe(tmp_path):
    all_visits, seen = visits.Visits(tmp_path, keep=True), []
    threads = [
        threading.Thread(target=lambda: seen.append(all_visits.of("same"))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(visit) for visit in seen}) == 1
