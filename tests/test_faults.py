"""Things that go wrong from outside: after each, the next request works and nothing is left over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import pytest
import samples
from test_end_to_end import with_raising_node

import backend
import engine as engines
import housekeeping
import media
import tags
from errors import StudioError
from events import Failed, Finished, Stage, Step
from mediafile import PART

REPO = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.alone


def made(engine, folder: Path, seed: int, mode: str = "t2v") -> Finished:
    """The next request, which has to work, with nothing left over by the one before."""
    *_, final = engine.run(samples.request_for(mode, folder, seed=seed), folder / "next")
    assert isinstance(final, Finished), final
    assert plays(Path(final.path)) == 25
    assert leftovers() == []
    assert not engine.state.busy
    assert engine.keeper.held == frozenset()
    return final


def plays(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(container.streams.video[0]))


def leftovers(*folders: Path) -> list[str]:
    """Temporary folders and half-written files of this process."""
    mine = f"{housekeeping.RUN_DIR}{os.getpid()}-*"
    found = list(Path(tempfile.gettempdir()).glob(mine))
    for folder in folders:
        found += folder.rglob(f"{PART}*")
    return [path.name for path in found]


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


# ------------------------------------------------------------------ killed


def test_a_kill_in_mid_write_leaves_a_whole_video_or_none(tmp_path):
    source = samples.video(tmp_path / "v.mp4", 4.0)
    target = tmp_path / "out" / "t2v-1-0123456789ab.mp4"
    code = (
        "import sys, tags\nfrom pathlib import Path\n"
        "import itertools\n"
        "for n in itertools.count():\n"
        f"    tags.finish(Path({str(source)!r}), Path({str(target)!r}), dict(request='x' * 3000000))\n"
        "    n or print('on', flush=True)\n"
    )
    rng = random.Random(8)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.15))
        child.kill()
        child.wait()
        child.stdout.close()
        assert plays(target) == 120
    written = {path.name for path in target.parent.iterdir()}
    housekeeping.prune_leftovers([target.parent])
    assert {path.name for path in target.parent.iterdir()} == {target.name}
    tags.finish(source, target, {})
    assert plays(target) == 120
    assert all(name == target.name or name.startswith(PART) for name in written)


@pytest.mark.comfy
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_kill_in_mid_run_costs_that_run_only(engine, comfy_path, tmp_path):
    out = tmp_path / "out" / "video.mp4"
    picture = samples.image(tmp_path / "mine.png")
    command = [sys.executable, "tools/generate.py", "i2v", "--weights", "demo", "--seconds", "8"]
    command += ["--image", str(picture), "--preset", "quality", "-o", str(out)]
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "LTX23_AIO_COMFY_DIR": str(comfy_path)}
    (tmp_path / "tmp").mkdir()
    child = subprocess.Popen(command, cwd=REPO, env=env, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if "Stage 1" in line:
            break
    child.kill()
    child.communicate()
    assert list((tmp_path / "tmp").glob(housekeeping.RUN_DIR + "*"))  # nobody was there to clear up
    assert not list(tmp_path.rglob("*.mp4"))
    assert picture.is_file()
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path / "tmp")
    try:
        engine.keeper.tidy(force=True)
    finally:
        tempfile.tempdir = before
    assert not list((tmp_path / "tmp").glob(housekeeping.RUN_DIR + "*"))
    made(engine, tmp_path, 901)


def test_half_written_files_of_the_dead_go_and_of_the_living_stay(tmp_path):
    dead, live = tmp_path / f"{PART}{dead_process()}-a.mp4", tmp_path / f"{PART}{os.getpid()}-b.mp4"
    other = tmp_path / ".part-of-somebody-else.txt"
    for path in (dead, live, other):
        path.write_bytes(b"x")
    assert housekeeping.prune_leftovers([tmp_path]) == [dead]
    assert live.exists()
    assert other.exists()


# ------------------------------------------------------------------ the disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    sudo = [] if hasattr(os, "getuid") and os.getuid() == 0 else ["sudo", "-n"]
    options = f"size=400k,mode=777,uid={os.getuid() if hasattr(os, 'getuid') else 0}"
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("NOT TESTED: a full disk; a tmpfs cannot be mounted here")
    yield folder
    subprocess.run([*sudo, "umount", str(folder)], check=True)


def fill(folder: Path, room: int) -> Path:
    """Leave so many bytes free."""
    ballast = folder / "ballast"
    state = os.statvfs(folder)
    ballast.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - room)))
    return ballast


@pytest.mark.parametrize(("mode", "seconds"), [("i2v", 1), ("a2v", 8), ("style", 8)])
def test_a_full_disk_while_staging_is_no_fault_of_the_file(small_disk, tmp_path, mode, seconds):
    request = samples.request_for(mode, tmp_path, seconds=seconds)
    room = small_disk / "input"
    room.mkdir()
    ballast = fill(small_disk, 8192)
    with pytest.raises(StudioError) as full:
        media.stage(request, room)
    assert full.value.category == "setup"
    assert "No space left" in full.value.what
    assert "room" in full.value.advice
    assert leftovers(room) == []
    if mode == "i2v":
        ballast.unlink()
        names = media.stage(request, room).names
        assert all((room / name).stat().st_size for name in names.values())


@pytest.mark.comfy
def test_a_full_disk_for_the_video_offers_no_part_of_it(engine, small_disk, tmp_path):
    ballast = fill(small_disk, 8192)
    request = samples.request_for("t2v", tmp_path, seed=911)
    *_, final = engine.run(request, small_disk / "out")
    assert isinstance(final, Failed)
    assert (final.category, "No space left" in final.what) == ("setup", True)
    assert not list(small_disk.rglob("*.mp4"))
    assert leftovers(small_disk) == []
    ballast.unlink()
    *_, final = engine.run(request, small_disk / "out")
    assert isinstance(final, Finished)
    assert final.executed == 0  # what was computed is not lost


@pytest.mark.comfy
def test_folders_that_vanish_come_back(engine, tmp_path):
    import shutil

    shutil.rmtree(backend.HOST.output_dir / "studio", ignore_errors=True)
    request = samples.request_for("i2v", tmp_path, seed=921)
    staged = media.stage(request, backend.HOST.input_dir)
    for name in staged.names.values():
        (backend.HOST.input_dir / name).unlink()
    stream = engine.run(request, tmp_path / "next")
    next(stream)
    shutil.rmtree(tmp_path / "next", ignore_errors=True)
    *_, final = stream
    assert isinstance(final, Finished)
    made(engine, tmp_path, 922)


@pytest.mark.comfy
def test_a_file_where_the_folder_should_be_is_said(engine, tmp_path):
    (tmp_path / "out").write_bytes(b"")
    *_, final = engine.run(samples.request_for("t2v", tmp_path, seed=923), tmp_path / "out")
    assert isinstance(final, Failed)
    assert final.category == "setup"
    made(engine, tmp_path, 924)


# ------------------------------------------------------------------ nodes


def run_with(error, tmp_path: Path, seed: int, cancel=None) -> list:
    """A run whose extra node does what ``error`` says: raise it, or call it."""
    import nodes

    class Trouble:
        """A real ComfyUI node."""

        RETURN_TYPES = ("LATENT",)
        FUNCTION = "run"
        CATEGORY = "test"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"samples": ("LATENT",)}}

        def run(self, samples):
            if isinstance(error, BaseException):
                raise error
            return error()

    nodes.NODE_CLASS_MAPPINGS["StudioTestRaises"] = Trouble
    try:
        request = samples.request_for("t2v", tmp_path, seed=seed)
        graph = with_raising_node(engines.graph_for(request, "demo"))
        job = backend.Job(graph, engines.stage_map("t2v", graph), {}, False, str(tmp_path))
        return list(backend.run_graph(job, cancel))
    finally:
        del nodes.NODE_CLASS_MAPPINGS["StudioTestRaises"]


@pytest.mark.comfy
@pytest.mark.parametrize(
    ("seed", "trouble", "category"),
    [
        (9301, lambda: None, "node"),
        (9302, lambda: (None,), "node"),
        (9303, lambda: ({"samples": "nonsense"},), "node"),
        (9304, MemoryError(), "out_of_memory"),
        (9305, RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (9306, OSError(28, "No space left on device"), "setup"),
        (9307, SystemExit(3), "internal"),
    ],
    ids=["nothing", "a None", "nonsense", "memory", "allocator", "full disk", "exit"],
)
def test_what_a_node_can_do_ends_in_a_sentence(engine, tmp_path, seed, trouble, category):
    final = run_with(trouble, tmp_path, seed)[-1]
    assert isinstance(final, Failed)
    assert final.category == category
    assert "Traceback" not in final.what
    made(engine, tmp_path, 932)


@pytest.mark.comfy
@pytest.mark.parametrize("kind", ["in Python", "in native code"])
def test_a_node_that_hangs_is_stopped_and_the_next_run_works(engine, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(backend, "HANG", 0.5)
    monkeypatch.setattr(backend, "GIVE_UP", 10.0 if kind == "in Python" else 1.0)
    entered, cancel, woken = threading.Event(), threading.Event(), threading.Event()

    def hang():
        entered.set()
        try:
            if kind == "in native code":
                time.sleep(6.0)
            while True:
                pass
        finally:
            woken.set()

    threading.Thread(target=lambda: entered.wait(60) and cancel.set(), daemon=True).start()
    events = run_with(hang, tmp_path, 941, cancel)
    assert isinstance(events[-1], Failed)
    assert events[-1].category == ("interrupted" if kind == "in Python" else "node")
    assert woken.is_set() == (kind == "in Python")
    made(engine, tmp_path, 942)
    assert woken.wait(20)  # the exception ends native code when it comes back
    wait_for_threads()
    made(engine, tmp_path, 943)


def wait_for_threads() -> None:
    deadline = time.monotonic() + 10
    while sum(t.name.startswith("executor") for t in threading.enumerate()) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.comfy
def test_nodes_that_no_mode_has_may_not_run(engine, tmp_path, monkeypatch):
    build = engines.workflow.build

    def tampered(*args):
        graph = build(*args)
        graph["x"] = {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "Foreign"}}
        return graph

    monkeypatch.setattr(engines.workflow, "build", tampered)
    *_, final = engine.run(samples.request_for("t2v", tmp_path, seed=951), tmp_path)
    assert (final.category, final.where) == ("node", "Foreign")
    assert "SaveImage" in final.what
    monkeypatch.undo()
    made(engine, tmp_path, 952)


# ------------------------------------------------------------------ people


@pytest.mark.comfy
@pytest.mark.parametrize("how", ["switch", "closed"])
def test_cancel_while_the_file_is_written_leaves_nothing_of_it(engine, tmp_path, how):
    clips = backend.HOST.output_dir / "studio"
    request = samples.request_for(
        "t2v", tmp_path, seed=981 + len(how), width=512, height=384, seconds=6.0
    )
    cancel, before, final = threading.Event(), set(clips.glob("*")), None
    stream = engine.run(request, tmp_path / "out", cancel)
    for event in stream:
        if isinstance(event, Stage) and event.name == "Writing the file":
            time.sleep(0.2)  # into the middle of it
            if how == "closed":
                break
            cancel.set()
        final = event
    stream.close()
    if how == "switch":
        assert isinstance(final, Failed)
        assert final.category == "interrupted"
    assert set(clips.glob("*")) == before
    made(engine, tmp_path, 983)


@pytest.mark.comfy
def test_a_step_longer_than_patience_is_stopped_between_two_layers(engine, tmp_path, monkeypatch):
    """Nothing but the layers themselves can notice: one step is all there is."""
    monkeypatch.setattr(backend, "HANG", 1e9)
    import comfy.model_management as mm
    from torch.nn.modules.module import _global_forward_pre_hooks

    calls, cancel = [], threading.Event()

    def layers():
        import torch

        layer = torch.nn.Identity()
        while True:
            layer(torch.zeros(1))
            calls.append(1)
            if len(calls) == 1000:
                cancel.set()
            assert len(calls) < 50_000, "no layer looked"
            time.sleep(1e-4)

    events = run_with(layers, tmp_path, 985, cancel)
    assert events[-1].category == "interrupted"
    assert len(calls) > 1000
    assert not mm.processing_interrupted()
    assert not _global_forward_pre_hooks
    made(engine, tmp_path, 986)


@pytest.mark.comfy
def test_cancel_at_every_stage_twice_and_after_the_end(engine, tmp_path):
    request = samples.request_for("i2v", tmp_path, seed=961)
    names = [e.name for e in engine.run(request, tmp_path / "all") if isinstance(e, Stage)]
    assert len(names) >= 5
    outcomes = []
    for number in range(len(names)):
        cancel, stages = threading.Event(), 0
        out = tmp_path / str(number)
        for event in engine.run(request.replace(seed=970 + number), out, cancel):
            stages += isinstance(event, Stage)
            if stages > number:
                cancel.set()
                engine.interrupt()  # pressed twice
            final = event
        outcomes.append(final)
        cancel.set()  # and once more when all is over
        engine.interrupt()
        if isinstance(final, Failed):
            assert final.category == "interrupted"
            assert not list(out.glob("*"))
        else:
            assert plays(Path(final.path)) == 25
    assert sum(isinstance(f, Failed) for f in outcomes) >= 3
    made(engine, tmp_path, 981)


def crowd(engine, tmp_path: Path, count: int, vanish: int = 0) -> None:
    """So many clients at once, all with an ``image.png``; some go while they wait or run."""
    finals: dict[int, Finished | Failed | None] = {}

    def client(number: int) -> None:
        folder = tmp_path / f"client{number}"
        folder.mkdir()
        picture = samples.image(folder / "image.png", seed=number)
        request = samples.request_for("i2v", folder, image=str(picture), seed=7)
        stream = engine.run(request, folder / "out")
        finals[number] = None
        for seen, event in enumerate(stream):
            if number < vanish and (seen > 6 or isinstance(event, Step)):
                stream.close()
                return
            finals[number] = event

    threads = [threading.Thread(target=client, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paths = set()
    for number in range(vanish, count):
        final = finals[number]
        assert isinstance(final, Finished), final
        assert plays(Path(final.path)) == 25
        own = tmp_path / f"client{number}"
        assert own in Path(final.path).parents
        request = samples.request_for("i2v", own, seed=7)
        staged = media.plan(request).names["image"]
        assert staged in tags.read_tags(final.path)["inputs"]  # made from one's own picture
        paths.add(staged)
    assert len(paths) == count - vanish


@pytest.mark.comfy
@pytest.mark.parametrize(("count", "vanish"), [(2, 0), (10, 3)])
def test_clients_at_once_with_the_same_file_names(engine, tmp_path, count, vanish):
    crowd(engine, tmp_path, count, vanish)
    made(engine, tmp_path, 991)


@pytest.mark.comfy
@pytest.mark.slow
def test_fifty_clients_at_once(engine, tmp_path):
    crowd(engine, tmp_path, 50, 10)
    made(engine, tmp_path, 992)
