"""How checkouts get to their pins, with real git repositories on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from git_repos import Origin, git, make_origin, path_with_git

import bootstrap
import checkouts
from bootstrap import Pin
from errors import SetupError

NOWHERE = "https://127.0.0.1:9/owner/nowhere.git"  # nothing listens on the discard port
posix = pytest.mark.skipif(os.name != "posix", reason="a shell script stands in front of git")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home of the test's own, so that a ComfyUI of the machine's is neither found nor touched."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    for name in ("SPACE_ID", "LTX23_AIO_COMFY_DIR"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def core(tmp_path) -> Origin:
    files = ("nodes.py", "execution.py", "server.py", "models/put_here", "comfy/deep/sd.py")
    return make_origin(tmp_path / "origins" / "ComfyUI", (*files, ".gitignore"))


@pytest.fixture
def pack(tmp_path) -> Origin:
    return make_origin(tmp_path / "origins" / "Pack", ("__init__.py", "nodes.py"))


@pytest.fixture
def pins(core, pack) -> tuple[Pin, ...]:
    """A ComfyUI and one pack, each pinned to a commit that is no branch's tip."""
    return (
        Pin("ComfyUI", core.url, core.first, (), core=True),
        Pin("Pack", pack.url, pack.first, ()),
    )


@pytest.fixture
def comfy(tmp_path) -> Path:
    return tmp_path / "studio" / "comfyui"


def unreachable(pins: tuple[Pin, ...]) -> tuple[Pin, ...]:
    return tuple(replace(pin, url=NOWHERE) for pin in pins)


def quiet(sentence: str) -> None:
    """A report that nobody reads."""


def bystander(pins: tuple[Pin, ...], comfy: Path, **environment: str) -> subprocess.Popen:
    """Another process that sets the same ComfyUI up."""
    code = (
        "import sys; from pathlib import Path; import bootstrap\n"
        f"pins = tuple(bootstrap.Pin(*p) for p in {[tuple(vars(p).values()) for p in pins]!r})\n"
        f"bootstrap.ensure(comfy=Path({str(comfy)!r}), pins=pins)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=bootstrap.REPO,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path, seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < ends, f"{path.name} did not appear"
        time.sleep(0.02)


def leftovers(comfy: Path) -> list[str]:
    return [path.name for path in comfy.parent.glob(".*.part-*")]


# ------------------------------------------------------------------ making


def test_ensure_fetches_commits_that_are_no_tip(pins, comfy, pack):
    said = []
    assert bootstrap.ensure(said.append, comfy, pins) == comfy
    assert (comfy / "comfy/deep/sd.py").read_text(encoding="utf-8") == "comfy/deep/sd.py first\n"
    inside = comfy / "custom_nodes" / "Pack"
    assert git(inside, "rev-parse", "HEAD") == pack.first
    assert git(inside, "status", "--porcelain") == ""
    assert not leftovers(comfy)
    assert any("Fetching" in sentence for sentence in said)
    assert bootstrap.check(comfy, pins) == []


def test_ensure_fills_the_empty_folder_of_a_plain_clone(pins, comfy):
    comfy.mkdir(parents=True)
    bootstrap.ensure(quiet, comfy, pins)
    assert bootstrap.check(comfy, pins) == []


def test_ensure_follows_a_link(pins, comfy, tmp_path):
    (tmp_path / "disk").mkdir()
    comfy.parent.mkdir()
    comfy.symlink_to(tmp_path / "disk" / "comfyui")
    bootstrap.ensure(quiet, comfy, pins)
    assert comfy.is_symlink()
    assert (tmp_path / "disk" / "comfyui" / "nodes.py").is_file()


def test_ensure_at_the_pin_needs_neither_git_nor_network(pins, comfy, tmp_path, monkeypatch):
    bootstrap.ensure(quiet, comfy, pins)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (comfy.parent / ".comfyui.lock").unlink()
    said, begun = [], time.monotonic()
    assert bootstrap.ensure(said.append, comfy, unreachable(pins)) == comfy
    assert [path.name for path in comfy.parent.iterdir()] == ["comfyui"]  # nothing was written
    assert time.monotonic() - begun < 0.2
    assert said == []


def test_ensure_at_the_pin_asks_git_for_nothing_remote(pins, comfy, tmp_path, monkeypatch):
    bootstrap.ensure(quiet, comfy, pins)
    log = tmp_path / "log"
    script = f'echo "$@" >> {log}\nexec $REAL "$@"'
    monkeypatch.setenv("PATH", path_with_git(tmp_path / "bin", script))
    bootstrap.ensure(quiet, comfy, pins)
    asked = log.read_text(encoding="utf-8")
    assert "status" in asked
    assert "fetch" not in asked


@posix
def test_ensure_heals_a_set_up_that_was_killed(pins, comfy, tmp_path):
    mark, pid = tmp_path / "fetching", tmp_path / "pid"
    hang = f'for a in "$@"; do [ $a = fetch ] && echo $$ > {pid} && touch {mark} && exec sleep 60; done'
    path = path_with_git(tmp_path / "bin", f'{hang}\nexec $REAL "$@"')
    process = bystander(pins, comfy, PATH=path)
    wait_for(mark)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert checkouts.is_empty(comfy)
    assert leftovers(comfy)
    try:
        bootstrap.ensure(quiet, comfy, pins)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    assert bootstrap.check(comfy, pins) == []
    assert not leftovers(comfy)


@posix
def test_ensure_twice_at_once_makes_one_whole_checkout(pins, comfy, tmp_path):
    log = tmp_path / "log"
    slow = f'for a in "$@"; do [ $a = fetch ] && echo fetch >> {log} && sleep 0.5; done'
    path = path_with_git(tmp_path / "bin", f'{slow}\nexec $REAL "$@"')
    both = [bystander(pins, comfy, PATH=path) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert bootstrap.check(comfy, pins) == []
    assert log.read_text(encoding="utf-8").count("fetch") == len(pins)
    assert sum("Waiting for another set-up" in output for output in outputs) == 1


def test_lock_waits_for_a_living_holder_and_not_for_a_dead_one(tmp_path):
    path, mark = tmp_path / "lock", tmp_path / "held"
    code = (
        "import time, checkouts; from pathlib import Path\n"
        f"with checkouts.lock(Path({str(path)!r}), print):\n"
        f"    Path({str(mark)!r}).touch(); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=bootstrap.REPO)
    try:
        wait_for(mark)
        waited = []
        with (
            pytest.raises(TimeoutError),
            checkouts.lock(path, lambda: waited.append(1), limit=0.3),
        ):
            pass
        assert waited == [1]
    finally:
        holder.kill()
        holder.wait()
    with checkouts.lock(path, lambda: waited.append(2), limit=0.3):
        pass
    assert waited == [1]


# ------------------------------------------------------------------ what a person brought


def bring(origin: Origin, folder: Path, commit: str) -> None:
    git(origin.folder.parent, "clone", "-q", str(origin.folder), str(folder))
    git(folder, "checkout", "-q", "--detach", commit)
    git(folder, "remote", "remove", "origin")


def test_ensure_copies_what_stands_in_the_home(pins, comfy, home, core, pack):
    bring(core, home / "comfyui", core.first)
    bring(pack, home / "comfyui" / "custom_nodes" / "Pack", pack.first)
    (home / "comfyui" / "models" / "big.safetensors").write_text("weights", encoding="utf-8")
    (home / "comfyui" / "output").mkdir()
    bootstrap.ensure(quiet, comfy, unreachable(pins))
    assert bootstrap.check(comfy, pins) == []
    assert not (comfy / "models" / "big.safetensors").exists()
    assert not (comfy / "output").exists()
    assert (comfy / "models" / "put_here").is_file()
    assert (home / "comfyui" / "models" / "big.safetensors").is_file()


def test_ensure_copies_a_snapshot_that_lacks_a_file_and_its_content(pins, comfy, home, core):
    snapshot = home / "comfyui"
    bring(core, snapshot, core.first)
    blob = git(snapshot, "rev-parse", "HEAD:comfy/deep/sd.py")
    git(snapshot, "update-index", "--skip-worktree", "comfy/deep/sd.py")
    (snapshot / "comfy/deep/sd.py").unlink()
    (snapshot / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    bootstrap.ensure(quiet, comfy, (unreachable(pins)[0],))
    assert bootstrap.check(comfy, pins[:1]) == []
    assert (comfy / "nodes.py").is_file()


def test_ensure_copies_a_submodule(pins, comfy, home, core):
    outer = home / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    allow = ("-c", "protocol.file.allow=always")
    git(outer, *allow, "submodule", "add", "-q", core.url, "comfyui")
    git(outer / "comfyui", "checkout", "-q", "--detach", core.first)
    (home / "comfyui").symlink_to(outer / "comfyui")
    assert checkouts.head(outer / "comfyui") == core.first
    bootstrap.ensure(quiet, comfy, (unreachable(pins)[0],))
    assert git(comfy, "status", "--porcelain") == ""
    assert (comfy / ".git").is_dir()


def test_ensure_does_not_copy_another_commit(pins, comfy, home, core):
    bring(core, home / "comfyui", core.second)
    with pytest.raises(SetupError):
        bootstrap.ensure(quiet, comfy, unreachable(pins))
    assert checkouts.is_empty(comfy)


# ------------------------------------------------------------------ what is there already


def test_ensure_moves_an_unchanged_checkout_and_keeps_everything(pins, comfy, core):
    newer = (replace(pins[0], commit=core.second), pins[1])
    bootstrap.ensure(quiet, comfy, newer)
    (comfy / "models" / "big.safetensors").write_text("weights", encoding="utf-8")
    bootstrap.ensure(quiet, comfy, pins)
    assert bootstrap.check(comfy, pins) == []
    assert (comfy / "nodes.py").read_text(encoding="utf-8") == "nodes.py first\n"
    assert (comfy / "models" / "big.safetensors").is_file()
    assert git(comfy, "rev-parse", f"refs/ltx23/{core.second}") == core.second


def test_ensure_moves_back_without_a_network(pins, comfy, core):
    for commit in (core.second, core.first):
        bootstrap.ensure(quiet, comfy, (replace(pins[0], commit=commit),))
    away = replace(pins[0], commit=core.second, url=NOWHERE)
    bootstrap.ensure(quiet, comfy, (away,))
    assert checkouts.head(comfy) == core.second


def test_ensure_moving_a_full_clone_keeps_its_history(pins, comfy, core):
    git(core.folder, "clone", "-q", core.url, str(comfy))
    git(comfy, "checkout", "-q", "--detach")
    git(core.folder, "commit", "-q", "--allow-empty", "-m", "third")
    third = git(core.folder, "rev-parse", "HEAD")
    bootstrap.ensure(quiet, comfy, (replace(pins[0], commit=third),))
    assert git(comfy, "rev-list", "--count", "HEAD") == "3"


def test_ensure_leaves_a_persons_changes_alone(pins, comfy, core):
    bootstrap.ensure(quiet, comfy, (replace(pins[0], commit=core.second),))
    (comfy / "nodes.py").write_text("mine\n", encoding="utf-8")
    with pytest.raises(SetupError, match=r"nodes\.py") as caught:
        bootstrap.ensure(quiet, comfy, pins[:1])
    assert (comfy / "nodes.py").read_text(encoding="utf-8") == "mine\n"
    assert checkouts.head(comfy) == core.second
    assert str(comfy) in str(caught.value)


def test_ensure_leaves_another_repository_alone(pins, comfy, pack):
    bring(pack, comfy, pack.first)
    with pytest.raises(SetupError, match="another repository"):
        bootstrap.ensure(quiet, comfy, pins[:1])
    assert checkouts.head(comfy) == pack.first


def test_ensure_leaves_a_persons_branch_alone_and_says_the_command(pins, comfy, core):
    git(core.folder, "clone", "-q", core.url, str(comfy))
    with pytest.raises(SetupError, match=f"git checkout --detach {core.first}"):
        bootstrap.ensure(quiet, comfy, pins[:1])
    assert checkouts.branch(comfy) == "refs/heads/main"


@posix
def test_ensure_completes_a_move_that_was_killed(pins, comfy, core, tmp_path):
    bootstrap.ensure(quiet, comfy, (replace(pins[0], commit=core.second),))
    mark, pid = tmp_path / "moving", tmp_path / "pid"
    half = (
        f"echo half > nodes.py; touch .git/index.lock; echo $$ > {pid}; touch {mark}; exec sleep 60"
    )
    path = path_with_git(
        tmp_path / "bin",
        f'for a in "$@"; do if [ $a = checkout ]; then {half}; fi; done\nexec $REAL "$@"',
    )
    process = bystander(pins[:1], comfy, PATH=path)
    wait_for(mark)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    os.kill(int(pid.read_text()), signal.SIGKILL)
    bootstrap.ensure(quiet, comfy, pins[:1])
    assert git(comfy, "status", "--porcelain") == ""
    assert (comfy / "nodes.py").read_text(encoding="utf-8") == "nodes.py first\n"


def test_ensure_brings_back_missing_files_without_a_network(pins, comfy):
    bootstrap.ensure(quiet, comfy, pins)
    (comfy / "comfy/deep/sd.py").unlink()
    (comfy / "custom_nodes/Pack/__init__.py").unlink()
    assert [problem.kind for problem in bootstrap.check(comfy, pins)] == ["damaged", "damaged"]
    bootstrap.ensure(quiet, comfy, unreachable(pins))
    assert bootstrap.check(comfy, pins) == []


def test_ensure_keeps_changed_files_at_the_pin(pins, comfy):
    bootstrap.ensure(quiet, comfy, pins)
    (comfy / "nodes.py").write_text("mine\n", encoding="utf-8")
    bootstrap.ensure(quiet, comfy, unreachable(pins))
    assert (comfy / "nodes.py").read_text(encoding="utf-8") == "mine\n"


def test_ensure_moves_in_beside_what_is_there(pins, comfy):
    for name in ("models/checkpoints/big.safetensors", "output/film.mp4"):
        (comfy / name).parent.mkdir(parents=True)
        (comfy / name).write_text(name, encoding="utf-8")
    bootstrap.ensure(quiet, comfy, pins)
    assert bootstrap.check(comfy, pins) == []
    assert (comfy / "output/film.mp4").read_text(encoding="utf-8") == "output/film.mp4"
    assert (comfy / "models/checkpoints/big.safetensors").is_file()


def test_ensure_overwrites_no_file(pins, comfy):
    comfy.mkdir(parents=True)
    (comfy / "nodes.py").write_text("mine\n", encoding="utf-8")
    with pytest.raises(SetupError, match=r"nodes\.py"):
        bootstrap.ensure(quiet, comfy, pins[:1])
    assert [path.name for path in comfy.iterdir()] == ["nodes.py"]
    assert (comfy / "nodes.py").read_text(encoding="utf-8") == "mine\n"


def test_ensure_never_takes_the_repository_around_for_a_broken_one(pins, comfy, core):
    outer = make_origin(comfy.parent, ("studio.py",))
    bootstrap.ensure(quiet, comfy, pins[:1])
    (comfy / ".git" / "HEAD").unlink()
    with pytest.raises(SetupError):
        bootstrap.ensure(quiet, comfy, pins[:1])
    assert git(outer.folder, "rev-parse", "HEAD") == outer.second
    assert git(outer.folder, "status", "--porcelain", "--untracked-files=no") == ""


def test_head_reads_branches_loose_and_packed(core):
    assert checkouts.head(core.folder) == core.second
    git(core.folder, "pack-refs", "--all")
    assert not (core.folder / ".git/refs/heads/main").exists()
    assert checkouts.head(core.folder) == core.second
    assert checkouts.head(core.folder / "models") is None


# ------------------------------------------------------------------ what cannot be had


def test_ensure_says_everything_that_cannot_be_had_at_once(pins, comfy, pack):
    wrong = (
        replace(pins[0], url=NOWHERE),
        replace(pins[1], commit="0" * 40),
        Pin("Other", (pack.folder.parent / "Gone").as_uri(), pack.first, ()),
        Pin("More", NOWHERE.replace("nowhere", "more"), pack.first, ()),
    )
    begun = time.monotonic()
    with pytest.raises(SetupError) as caught:
        bootstrap.ensure(quiet, comfy, wrong)
    assert time.monotonic() - begun < 20
    message = str(caught.value)
    assert "127.0.0.1 cannot be reached: owner/nowhere at " + pins[0].commit[:12] in message
    assert "owner/more" in message
    assert "does not have this commit: origins/Pack at 000000000000" in message
    assert "there is no repository there" in message
    assert "LTX23_AIO_COMFY_DIR" in message
    assert str(bootstrap.brought_dir()) in message
    assert all(pin.commit in caught.value.detail for pin in wrong)
    assert not leftovers(comfy)


def test_ensure_keeps_what_could_be_had(pins, comfy):
    with pytest.raises(SetupError, match="1 of 2"):
        bootstrap.ensure(quiet, comfy, (unreachable(pins)[0], pins[1]))
    assert (comfy / "custom_nodes/Pack/__init__.py").is_file()
    bootstrap.ensure(quiet, comfy, (pins[0], unreachable(pins)[1]))
    assert bootstrap.check(comfy, pins) == []


def test_ensure_without_git_says_so(pins, comfy, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "home"))
    with pytest.raises(SetupError, match="git is not installed"):
        bootstrap.ensure(quiet, comfy, pins)


def test_ensure_where_a_file_stands_says_so(pins, comfy):
    comfy.parent.parent.mkdir(exist_ok=True)
    comfy.parent.write_text("a file", encoding="utf-8")
    with pytest.raises(SetupError):
        bootstrap.ensure(quiet, comfy, pins)
