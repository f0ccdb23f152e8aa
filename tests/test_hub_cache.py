"""The Hugging Face cache on disk, and its mirror over a read-only cache of another user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import other_user
import pytest
from fake_hub import COMMIT, FakeHub
from weights_lab import NEEDS_XET, SMALL, sha256

import hub_cache

FETCH = (
    "import huggingface_hub as h, sys\n"
    "for repo, path in zip(sys.argv[1::2], sys.argv[2::2]): print(h.hf_hub_download(repo, path))"
)
MIRROR = "import hub_cache, sys, pathlib as p; print(hub_cache.mirror(*map(p.Path, sys.argv[1:])))"


@pytest.fixture
def hub():
    with FakeHub() as server:
        server.add("org/repo", "a.bin", SMALL)
        server.add("org/repo", "deep/b.bin", SMALL[1:])
        server.add("org/other", "c.bin", SMALL[2:])
        yield server


@pytest.fixture
def open_folder():
    """A folder every user may look into; pytest's own temporary folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="mirror-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def fetch(hub: FakeHub, home: Path, *files: tuple[str, str], xet: str = "1") -> None:
    """Preload as Hugging Face does: with its own client."""
    env = {**os.environ, **hub.environ(home), "HF_HUB_DISABLE_XET": xet}
    names = [part for file in files for part in file]
    subprocess.run([sys.executable, "-c", FETCH, *names], env=env, check=True, capture_output=True)


def freeze(folder: Path) -> None:
    """Make a tree read-only for everybody."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)


def owned_by_other(folder: Path) -> Path:
    """A folder that the ordinary user may write to."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


# ---------------------------------------------------------------------------------- where it is


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"HF_HOME": "/some/where"},
        {"HF_HOME": "~/elsewhere", "HF_HUB_CACHE": "$HOME/hub"},
        {"XDG_CACHE_HOME": "/x"},
        {"HUGGINGFACE_HUB_CACHE": "/old/name"},
    ],
)
def test_folders_are_those_the_library_uses(given):
    env = {"HOME": "/home/me", "PATH": os.environ["PATH"], **given}
    code = (
        "import json, os, hub_cache; from huggingface_hub import constants as c;"
        "print(json.dumps([c.HF_HOME, c.HF_HUB_CACHE, *map(str, (hub_cache.home(), hub_cache.cache_dir()))]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=other_user.PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    home, cache, ours_home, ours_cache = json.loads(run.stdout)
    assert (ours_home, ours_cache) == (home, cache)


def test_find_sees_what_the_library_cached_and_older_snapshots(hub, tmp_path):
    fetch(hub, tmp_path, ("org/repo", "deep/b.bin"))
    cache = tmp_path / "hub"
    found = hub_cache.find("org/repo", "deep/b.bin", cache)
    assert found == cache / f"models--org--repo/snapshots/{COMMIT}/deep/b.bin"
    assert hub_cache.find("org/repo", "a.bin", cache) is None
    assert hub_cache.find("no/such", "a.bin", cache) is None
    hub_cache.write_whole(cache / "models--org--repo/refs/main", "2" * 40)
    assert hub_cache.find("org/repo", "deep/b.bin", cache) == found
    newer = cache / f"models--org--repo/snapshots/{'2' * 40}/deep/b.bin"
    newer.parent.mkdir(parents=True)
    newer.write_bytes(b"newer")
    assert hub_cache.find("org/repo", "deep/b.bin", cache) == newer


# ---------------------------------------------------------------------------------- the mirror


def test_mirror_lets_an_ordinary_user_read_and_add(hub, open_folder):
    source, home = open_folder / "built", owned_by_other(open_folder / "user")
    fetch(hub, source, ("org/repo", "a.bin"), ("org/other", "c.bin"))
    freeze(source)
    env = {"HOME": str(home), **hub.environ(source), "HF_HUB_DISABLE_XET": "1"}

    # Why the mirror exists: a second file of a preloaded repository cannot be added.
    failed = other_user.run(["-c", FETCH, "org/repo", "deep/b.bin"], env)
    assert "Permission denied" in failed.stderr

    target = home / "hf-cache-rw"
    done = other_user.run(["-c", MIRROR, str(source / "hub"), str(target / "hub")], env)
    assert done.returncode == 0, done.stderr
    before, env = hub.sent(), {**env, **hub.environ(target)}
    offline = other_user.run(["-c", FETCH, "org/repo", "a.bin"], {**env, "HF_HUB_OFFLINE": "1"})
    assert sha256(Path(offline.stdout.strip())) == hub.files["org/repo", "a.bin"].sha256
    assert hub.sent() == before

    later = other_user.run(["-c", FETCH, "org/repo", "deep/b.bin"], env)
    assert later.returncode == 0, later.stderr
    assert sha256(Path(later.stdout.strip())) == hub.files["org/repo", "deep/b.bin"].sha256
    assert hub.sent() - before == len(SMALL) - 1

    again = other_user.run(["-c", MIRROR, str(source / "hub"), str(target / "hub")], env)
    assert ": 0 files hard-linked, 0 linked, 0 copied" in again.stdout
    still = other_user.run(["-c", FETCH, "org/repo", "deep/b.bin"], {**env, "HF_HUB_OFFLINE": "1"})
    assert still.stdout == later.stdout


def test_mirror_shares_the_bytes_by_hard_links_and_copies_refs(hub, tmp_path):
    fetch(hub, tmp_path / "a", ("org/repo", "a.bin"), ("org/repo", "deep/b.bin"))
    source, target = tmp_path / "a/hub", tmp_path / "b/hub"
    done = hub_cache.mirror(source, target)
    assert done.linked == 2
    repo = "models--org--repo"
    for blob in (source / repo / "blobs").iterdir():
        assert (target / repo / "blobs" / blob.name).stat().st_ino == blob.stat().st_ino
    link = f"{repo}/snapshots/{COMMIT}/deep/b.bin"
    assert os.readlink(target / link) == os.readlink(source / link)
    assert (target / link).resolve().is_relative_to(target)
    ref = f"{repo}/refs/main"
    assert (target / ref).read_bytes() == (source / ref).read_bytes() == COMMIT.encode()
    assert (target / ref).stat().st_ino != (source / ref).stat().st_ino


def test_mirror_across_file_systems_links_instead(hub, tmp_path):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as other:
        fetch(hub, Path(other), ("org/repo", "a.bin"))
        target = tmp_path / "hf"
        done = hub_cache.mirror(Path(other) / "hub", target / "hub")
        assert (done.linked, done.symlinked) == (0, 2)
        found = hub_cache.find("org/repo", "a.bin", target / "hub")
        assert sha256(found) == hub.files["org/repo", "a.bin"].sha256
        before = hub.sent()
        fetch(hub, target, ("org/repo", "a.bin"), ("org/repo", "deep/b.bin"))
        assert hub.sent() - before == len(SMALL) - 1


@NEEDS_XET
def test_mirror_of_the_librarys_shared_blobs_works(hub, open_folder):
    """huggingface_hub 2 keeps what came by xet in a store that repositories share."""
    source, home = open_folder / "built", owned_by_other(open_folder / "user")
    hub.add("org/xet", "x.bin", SMALL[3:], xet=True)
    fetch(hub, source, ("org/xet", "x.bin"), xet="")
    freeze(source)
    target = home / "hf-cache-rw"
    env = {"HOME": str(home), **hub.environ(target)}
    done = other_user.run(["-c", MIRROR, str(source / "hub"), str(target / "hub")], env)
    assert done.returncode == 0, done.stderr
    hub.add("org/xet", "y.bin", SMALL[4:], xet=True)
    got = other_user.run(["-c", FETCH, "org/xet", "x.bin", "org/xet", "y.bin"], env)
    assert got.returncode == 0, got.stderr
    for name, path in zip(("x.bin", "y.bin"), got.stdout.split(), strict=True):
        assert sha256(Path(path)) == hub.files["org/xet", name].sha256


def test_mirror_leaves_unfinished_files_and_locks_behind(tmp_path):
    blobs = tmp_path / "a/models--org--repo/blobs"
    blobs.mkdir(parents=True)
    (tmp_path / "a/.locks/models--org--repo").mkdir(parents=True)
    (tmp_path / "a/.locks/models--org--repo/x.lock").touch()
    (blobs / "x.1234.incomplete").write_bytes(b"half")
    (blobs / "y").write_bytes(b"whole")
    hub_cache.mirror(tmp_path / "a", tmp_path / "b")
    files = [path.name for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert files == ["y"]


def test_mirror_repairs_a_link_to_nothing_and_keeps_what_was_added(tmp_path):
    blobs = tmp_path / "a/models--org--repo/blobs"
    blobs.mkdir(parents=True)
    (blobs / "y").write_bytes(b"whole")
    refs = tmp_path / "a/models--org--repo/refs"
    refs.mkdir()
    (refs / "main").write_text("old")
    ours = tmp_path / "b/models--org--repo"
    (ours / "blobs").mkdir(parents=True)
    (ours / "blobs/y").symlink_to("/gone")
    (ours / "blobs/added").write_bytes(b"added")
    (ours / "refs").mkdir()
    (ours / "refs/main").write_text("newer, from a later download")
    hub_cache.mirror(tmp_path / "a", tmp_path / "b")
    assert (ours / "blobs/y").read_bytes() == b"whole"
    assert (ours / "blobs/added").read_bytes() == b"added"
    assert (ours / "refs/main").read_text() == "newer, from a later download"


def test_mirror_takes_seconds_for_hundreds_of_files(tmp_path):
    for n in range(300):
        repo = tmp_path / f"a/models--org--repo{n % 10}"
        for folder in ("blobs", f"snapshots/{COMMIT}", "refs"):
            (repo / folder).mkdir(parents=True, exist_ok=True)
        (repo / f"blobs/{n}").write_bytes(b"x")
        (repo / f"snapshots/{COMMIT}/{n}.bin").symlink_to(f"../../blobs/{n}")
    done = hub_cache.mirror(tmp_path / "a", tmp_path / "b")
    assert (done.linked, done.symlinked) == (300, 300)
    assert done.seconds < 3
    again = hub_cache.mirror(tmp_path / "a", tmp_path / "b")
    assert (again.linked, again.symlinked, again.copied, again.kept) == (0, 0, 0, 600)


# ---------------------------------------------------------------------------------- on a Space


def test_prepare_points_hugging_face_at_the_mirror_on_a_space(hub, tmp_path):
    source = tmp_path / ".cache/huggingface"
    fetch(hub, source, ("org/repo", "a.bin"))
    (source / "token").write_text("not a real one")
    env = {
        "HOME": str(tmp_path),
        "SPACE_ID": "me/studio",
        "XDG_CACHE_HOME": str(tmp_path / ".cache"),
    }
    done = hub_cache.prepare(env)
    assert done.linked == 1
    assert env["HF_HOME"] == str(tmp_path / "hf-cache-rw")
    assert env["HF_HUB_CACHE"] == str(tmp_path / "hf-cache-rw/hub")
    assert env["HF_TOKEN_PATH"] == str(source / "token")
    assert hub_cache.find("org/repo", "a.bin", hub_cache.cache_dir(env)) is not None
    assert hub_cache.prepare(env) is None


def test_prepare_without_a_preload_still_makes_a_writable_home(tmp_path):
    env = {"HOME": str(tmp_path), "SPACE_ID": "me/studio", "XDG_CACHE_HOME": str(tmp_path / "none")}
    assert hub_cache.prepare(env) is not None
    assert Path(env["HF_HUB_CACHE"]).is_dir()
    assert "HF_TOKEN_PATH" not in env


def test_prepare_does_nothing_elsewhere(tmp_path):
    env = {"HOME": str(tmp_path)}
    assert hub_cache.prepare(env) is None
    assert env == {"HOME": str(tmp_path)}
    assert list(tmp_path.iterdir()) == []
