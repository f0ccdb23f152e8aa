"""What the page has to be for ZeroGPU: its queue, its handlers, and what stands in the form."""

from __future__ import annotations

import contextvars
import inspect
import threading
from pathlib import Path

import pytest

import duration
import estimate
import forkgate
import zerogpu
from engine import Engine
from errors import BadInput
from modes import MODES
from request import Request


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page over a studio that was never started."""
    import ui
    from jobs import Studio

    return ui.build(Studio("demo", tmp_path_factory.mktemp("outputs")))


def test_the_queue_is_as_long_as_promised_and_not_zerogpus_one(page):
    assert page._queue.max_size == zerogpu.QUEUE > 1


def test_runs_wait_in_our_own_line_and_not_unseen_in_gradios(page):
    makers = {"generate", *MODES}
    runs = [fn for fn in page.fns.values() if getattr(fn.fn, "__name__", "") in makers]
    assert len(runs) >= 1 + len(MODES)
    assert all(inspect.isgeneratorfunction(fn.fn) for fn in runs)
    assert all(fn.concurrency_limit in (None, zerogpu.QUEUE) for fn in runs)


def test_handlers_are_sync(page):
    for fn in page.fns.values():
        if fn.fn is not None:
            assert not inspect.isasyncgenfunction(fn.fn), fn.fn  # fails on close
            assert not inspect.iscoroutinefunction(fn.fn), fn.fn


def test_one_function_is_decorated_at_module_level():
    root = Path(zerogpu.__file__).parent
    uses = {path.name: path.read_text(encoding="utf-8") for path in root.glob("*.py")}
    assert {name for name, text in uses.items() if "@spaces.GPU" in text} == {"zerogpu.py"}
    assert uses["zerogpu.py"].count("@spaces.GPU(") == 1
    assert "\n@spaces.GPU(" in uses["zerogpu.py"]
    assert inspect.isgeneratorfunction(zerogpu.gpu_run)
    assert set(inspect.signature(zerogpu.gpu_run).parameters) == {"job_file", "seconds"}


def test_off_zerogpu_nothing_is_reserved_and_spaces_is_not_imported():
    assert not zerogpu.ACTIVE
    request = Request(mode="t2v", prompt="a fox")
    assert zerogpu.reservation(request, "fp8", estimate.Speeds(estimate.CUDA), True) is None


def test_context_variables_are_carried_to_another_thread():
    visitor = contextvars.ContextVar("visitor", default="nobody")
    visitor.set("ada")
    seen = []
    for work in (lambda: seen.append(visitor.get()), None):
        work = work or forkgate.carried(lambda: seen.append(visitor.get()))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == ["nobody", "ada"]  # plainly started, and carried


@pytest.fixture
def on_zerogpu(monkeypatch):
    """An engine that believes it is on a Space, which was never booted."""
    monkeypatch.setattr(zerogpu, "ACTIVE", True)
    monkeypatch.setattr(zerogpu, "factor", lambda: 1.5)
    return Engine("fp8", Path("/nonexistent"))


def on_page(engine):
    """The page's handlers over an engine."""
    from handlers import Handlers
    from jobs import Studio

    studio = Studio("demo", Path("/nonexistent"))
    studio.engine = engine
    return Handlers(studio, None)


def test_the_form_shows_the_figure_that_is_reserved(on_zerogpu):
    request = Request(mode="t2v", prompt="a fox", width=768, height=512, seconds=5.0)
    reserved = on_zerogpu.reservation(request)
    words = on_page(on_zerogpu)._time(request)
    assert f"Reserves about {reserved.quota} s of GPU quota" in words


def test_the_owners_maximum_decides_what_is_refused(on_zerogpu, monkeypatch):
    request = Request(
        mode="t2v", prompt="a fox", width=1280, height=704, seconds=10.0, preset="quality"
    )
    monkeypatch.setenv(duration.SETTING, "60")
    with pytest.raises(BadInput, match="Nearest that fits"):
        on_zerogpu.reservation(request)
    assert "Nearest that fits" in on_page(on_zerogpu)._summary(request, [], False)["missing"]
    events = list(on_zerogpu.run(request, Path("/nonexistent")))
    assert [type(event).__name__ for event in events] == ["Failed"]  # before anything is done
    assert "Nearest that fits" in events[0].advice
    monkeypatch.setenv(duration.SETTING, "3600")
    assert on_zerogpu.reservation(request).quota > 60
    assert "missing" not in on_page(on_zerogpu)._summary(request, [], False)


def test_the_setting_of_the_card_decides_weights_and_price(monkeypatch):
    import registry

    for size, weights, price in (("large", "fp8", 1), ("xlarge", "bf16", 2)):
        card = registry.zero_gpu({"LTX23_AIO_GPU_SIZE": size})
        chosen, why = registry.choose("auto", card)
        assert (chosen, duration.PRICE[size]) == (weights, price)
        assert "ZeroGPU" in why
