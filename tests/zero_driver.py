"""A process that believes it is a ZeroGPU Space: the real ``spaces`` package, really forking.

Started by ``zero_app.py``, never by hand. Replaced is only what needs a device: moving tensors to
it, the version of a CUDA that is not there, and the driver's file that names the card. Its page has
the endpoints below; the first line on stdout is its port.

    fake      zerogpu.run over a generator of this file, in place of ComfyUI's
    make      Engine.run, with demo weights (only with --comfy)
    cancel    press cancel for a job by name
    threads   names of the living threads and processes
    forget    leave the threads that live now out of that
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CARD = "Model: \t\t NVIDIA RTX PRO 6000 Blackwell Server Edition\n"


def without_a_device() -> None:
    """The replacements named above, and no others."""
    import spaces.zero.config
    import spaces.zero.torch
    import torch

    spaces.zero.torch.init = lambda *_, **__: None
    spaces.zero.torch.move = lambda *_, **__: None
    spaces.zero.config._read_gpu_information = lambda: CARD
    spaces.zero.config.get_config.cache_clear()  # read once while torch was replaced
    torch.version.cuda = torch.version.cuda or "12.8"


os.environ["SPACES_ZERO_GPU"] = "true"
import spaces  # noqa: E402, F401 - before torch, as on a Space

without_a_device()

import gradio as gr  # noqa: E402

import backend  # noqa: E402
import forkgate  # noqa: E402
import zerogpu  # noqa: E402
from duration import Reservation  # noqa: E402
from errors import StudioError  # noqa: E402
from events import Event, Failed, Finished, Note, Preview, Step, Tick  # noqa: E402

CANCELS: dict[str, threading.Event] = {}
FORGOTTEN: list[threading.Thread] = []
COUNT = 0  # of jobs in this process: the parent's never changes, a warm worker's does
HELD = threading.Lock()  # what the scenario "lock" takes


def told(event: Event) -> str:
    """An event as JSON, with its kind."""
    return json.dumps({"kind": type(event).__name__, "at": time.monotonic(), **vars(event)})


# ---------------------------------------------------------------------------- in the worker


def scenario(job: backend.Job, cancel: threading.Event | None = None) -> Iterator[Event]:
    """Stands for ``backend.run_graph``: what the job's one node says."""
    global COUNT
    COUNT += 1
    told_to = job.graph["1"]["inputs"]
    yield Note(f"pid {os.getpid()} job {COUNT}")
    yield from SCENARIOS[told_to["name"]](job, told_to)


def _steps(job: backend.Job, told_to: dict) -> Iterator[Event]:
    for number in range(told_to.get("steps", 3)):
        if backend.marked(job):
            yield Failed.of(backend.interrupted())
            return
        yield Step(number + 1, told_to.get("steps", 3))
        time.sleep(told_to.get("gap", 0.02))
    yield Finished("video.mp4", 0.1)


def _slow(job: backend.Job, told_to: dict) -> Iterator[Event]:
    yield from _steps(job, {"steps": 400, "gap": 0.1})


def _die(how: str):
    def die(job: backend.Job, told_to: dict) -> Iterator[Event]:
        yield Step(1, 3)
        time.sleep(0.3)
        if how == "exit":
            os._exit(3)
        elif how == "segfault":
            ctypes.string_at(0)
        elif how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "raise":
            raise ValueError("something of ours")
        elif how == "base":
            raise SystemExit(3)
        elif how == "pickle":
            yield Preview(threading.Lock())

    return die


def _die_writing(job: backend.Job, told_to: dict) -> Iterator[Event]:
    """Killed at any moment while the pipe is full of events as large as they may be."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    while True:
        yield Note("x" * 5000)


def _no_final(job: backend.Job, told_to: dict) -> Iterator[Event]:
    yield Step(3, 3)


def _video_then_die(job: backend.Job, told_to: dict) -> Iterator[Event]:
    """The video is there, its event is not; another run's video is newer."""
    yield Step(3, 3)
    prefix = Path(job.graph["2"]["inputs"]["filename_prefix"])
    folder = Path(told_to["output"]) / prefix.parent
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(told_to["video"]).read_bytes()
    (folder / f"{prefix.name}_00001_.mp4").write_bytes(data)
    if told_to.get("torn"):
        (folder / f"{prefix.name}_00002_.mp4").write_bytes(data[: len(data) // 2])
    (folder / "somebodyelse_00001_.mp4").write_bytes(data)
    os.kill(os.getpid(), signal.SIGKILL)


def _second_time(job: backend.Job, told_to: dict) -> Iterator[Event]:
    """Too slow at first, fast when tried again."""
    mark = Path(told_to["mark"])
    first = not mark.exists()
    mark.touch()
    yield from _slow(job, told_to) if first else _steps(job, told_to)


def _large(job: backend.Job, told_to: dict) -> Iterator[Event]:
    yield Note(f"{len(told_to['payload'])} characters")
    yield Failed("node", "w" * 50_000, "n" * 5000, "a" * 5000, "d" * 50_000)


def _memory(job: backend.Job, told_to: dict) -> Iterator[Event]:
    yield Failed("out_of_memory", "Memory ran out in 'Decode'", "Decode", "Choose a smaller size.")


def _lock(job: backend.Job, told_to: dict) -> Iterator[Event]:
    free = HELD.acquire(timeout=1.0)
    yield Finished("free" if free else "held for ever", 0.0)


def _hang(job: backend.Job, told_to: dict) -> Iterator[Event]:
    yield Step(1, 3)
    time.sleep(60)


def _stuck(job: backend.Job, told_to: dict) -> Iterator[Event]:
    """A node that neither ends nor looks for an interrupt; ``mute``: and keeps the GIL."""
    zerogpu.STUCK = told_to.get("stuck", 1.0)
    yield Step(1, 3)
    while True:
        time.sleep(60 if told_to.get("mute") else backend.TICK)
        yield Tick(0.0)


SCENARIOS = {
    "stuck": _stuck,
    "steps": _steps,
    "slow": _slow,
    "writing": _die_writing,
    "no final": _no_final,
    "video": _video_then_die,
    "second time": _second_time,
    "large": _large,
    "memory": _memory,
    "lock": _lock,
    "hang": _hang,
    **{how: _die(how) for how in ("exit", "segfault", "kill", "raise", "base", "pickle")},
}


# ---------------------------------------------------------------------------- the page


def fake(name: str, seconds: int, settings: str) -> Iterator[str]:
    """Run a scenario through zerogpu.run; every event as JSON."""
    told_to = {"name": name, **json.loads(settings or "{}")}
    if told_to.get("payload"):
        told_to["payload"] = "p" * told_to["payload"]
    node = {"class_type": "Test", "inputs": told_to}
    prefix = told_to.get("prefix", "studio/fake")
    saver = {"class_type": "SaveVideo", "inputs": {"filename_prefix": prefix}}
    cancel = CANCELS.setdefault(told_to.get("job", name), threading.Event())
    cancel.clear()
    zerogpu.SAID_NOTHING = told_to.get("patience", 60.0)
    zerogpu.CANCEL_GRACE = told_to.get("grace", 5.0)
    output = Path(told_to.get("output", "/nonexistent"))
    with tempfile.TemporaryDirectory(prefix="ltx23-run-") as folder, _busy(told_to):
        job = backend.Job({"1": node, "2": saver}, (), {}, False, folder)
        stream = zerogpu.run(job, Reservation(seconds, "large", zerogpu.factor()), output, cancel)
        try:
            for event in stream:
                yield told(event)
        finally:
            stream.close()


@contextlib.contextmanager
def _busy(told_to: dict) -> Iterator[None]:
    """While "contend" is asked for, another thread takes and leaves a lock all the time."""
    over = threading.Event()

    def contend() -> None:
        while not over.is_set():
            with forkgate.GATE, HELD:
                time.sleep(0.05)
            time.sleep(0.001)

    thread = threading.Thread(target=contend)
    if told_to.get("contend"):
        thread.start()
    try:
        yield
    finally:
        over.set()
        if told_to.get("contend"):
            thread.join()


def cancel(job: str) -> str:
    """Press cancel."""
    CANCELS[job].set()
    return "pressed"


def threads() -> str:
    """What is alive: threads of ours, and child processes."""
    import psutil

    ours = [t.name for t in _ours() if t not in FORGOTTEN]
    children = [p.pid for p in psutil.Process().children() if p.status() != "zombie"]
    return json.dumps({"threads": ours, "children": children, "count": COUNT})


def forget() -> str:
    """Do not speak of the threads that live now: the package will not let go of them."""
    FORGOTTEN.extend(_ours())
    return "forgotten"


def _ours() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name in ("zerogpu", "executor", "warm")]


def make(request: str, out: str, job: str, local: bool) -> Iterator[str]:
    """Engine.run; ``local`` leaves ZeroGPU out, for comparison."""
    from request import Request

    switch = CANCELS.setdefault(job, threading.Event())
    switch.clear()
    zerogpu.ACTIVE = not local
    yield json.dumps({"kind": "Begun", "at": time.monotonic()})
    stream = ENGINE.run(Request.from_json(request), Path(out), switch)
    try:
        for event in stream:
            if not isinstance(event, Tick):
                yield told(event)
    finally:
        stream.close()


def reserved(request: str) -> str:
    """What the form would say, and the seconds needed before any clamp."""
    from request import Request

    asked = Request.from_json(request)
    try:
        found = ENGINE.reservation(asked)
    except StudioError as error:
        return json.dumps({"refused": str(error)})
    stages = ENGINE.speeds.seconds(asked, warm=True)
    return json.dumps({"sentence": found.sentence, "stages": stages, **vars(found)})


ENGINE = None


def main() -> None:
    """Serve until killed."""
    global ENGINE
    if "--comfy" in sys.argv:
        import duration
        from engine import Engine

        duration.MINIMUM = 60  # a crowded machine is not what these tests are about
        sys.path.insert(0, os.environ["LTX23_AIO_COMFY_DIR"])
        from comfy.cli_args import args

        args.cpu = True  # the emulated card is for the parent; the workers here have none
        ENGINE = Engine("demo", Path(os.environ["LTX23_AIO_COMFY_DIR"]))
        ENGINE.boot(lambda text: None)
    else:
        backend.run_graph = scenario
    with gr.Blocks() as page:
        gr.api(fake, api_name="fake")
        gr.api(make, api_name="make")
        gr.api(reserved, api_name="reserved", queue=False)
        gr.api(cancel, api_name="cancel", queue=False)
        gr.api(threads, api_name="threads", queue=False)
        gr.api(forget, api_name="forget", queue=False)
    page.queue(max_size=zerogpu.QUEUE, default_concurrency_limit=8)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    print(f"PORT {page.server_port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
