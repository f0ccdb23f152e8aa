"""Downloads against a loopback Hub, with the real client in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import other_user
import pytest
from fake_hub import FakeHub
from weights_lab import BIG, MB, NEEDS_XET, SMALL, Run, Studio, kill_at, sha256


@pytest.fixture
def hub():
    with FakeHub() as server:
        yield server


@pytest.fixture
def studio(tmp_path, hub):
    return Studio(tmp_path, hub)


# ---------------------------------------------------------------------------------- arriving


def test_ensure_fetches_checks_links_and_enters_the_standard_cache(studio, hub):
    stored = hub.add("org/repo", "deep/er/big.safetensors", BIG)
    place = studio.wants("org/repo", "deep/er/big.safetensors", len(BIG))
    run = studio.ensure()
    assert run.error is None
    assert run.end["threads"] == []
    assert place.is_symlink()
    assert sha256(place) == stored.sha256
    assert stored.sent == len(BIG)
    last = run.downloads[-1]
    assert (last["done"], last["total"]) == (len(BIG), len(BIG))
    assert (last["files_done"], last["files_total"]) == (1, 1)
    assert "12.6 MB to fetch from one repository" in run.notes[0]
    # Any other tool of Hugging Face finds it, offline.
    code = "import huggingface_hub as h; print(h.hf_hub_download('org/repo', 'deep/er/big.safetensors'))"
    env = {**os.environ, **studio.environ(HF_HUB_OFFLINE="1")}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert sha256(Path(found.stdout.strip())) == stored.sha256, found.stderr


def test_the_token_never_reaches_the_cdn(studio, hub):
    hub.add("org/repo", "a.bin", SMALL, gated=True)
    studio.wants("org/repo", "a.bin")
    assert studio.ensure({"HF_TOKEN": hub.token}).error is None
    seen = {path.split("/")[1]: auth for path, auth in hub.authorizations}
    assert seen["org"] is True
    assert seen["cdn"] is False


def test_several_files_arrive_at_once_with_one_total(studio, hub):
    for n in range(3):
        hub.add("org/repo", f"{n}.bin", SMALL[n:], rate=2 * MB)
        studio.wants("org/repo", f"{n}.bin")
    run = studio.ensure()
    assert run.error is None
    done = [event["done"] for event in run.downloads]
    assert done == sorted(done)
    assert run.downloads[-1]["done"] == sum(s.sent for s in hub.files.values())
    assert hub.most_at_once == 3
    middle = [e for e in run.downloads if 0 < e["done"] < e["total"]]
    assert any(e["speed"] > MB and 0 < e["seconds_left"] < 3 for e in middle)


# ---------------------------------------------------------------------------------- resuming


def test_the_library_itself_starts_over_after_a_kill(studio, hub):
    import huggingface_hub

    if not huggingface_hub.__version__.startswith("2.4."):
        pytest.skip("measured with huggingface_hub 2.4; see the docstring of downloads.py")
    stored = hub.add("org/repo", "big.bin", BIG, rate=12 * MB)
    code = "import huggingface_hub as h; print(h.hf_hub_download('org/repo', 'big.bin'))"
    env = {**os.environ, **studio.environ()}
    first = subprocess.Popen([sys.executable, "-c", code], env=env)
    while stored.sent < 0.6 * len(BIG):
        time.sleep(0.01)
    first.kill()
    first.wait()
    time.sleep(0.1)
    stored.faults.rate, before = 0, stored.sent
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    assert stored.sent - before >= len(BIG)


@pytest.mark.parametrize(
    "xet", [pytest.param(False, id="http"), pytest.param(True, id="xet", marks=NEEDS_XET)]
)
def test_a_killed_download_resumes(studio, hub, xet):
    stored = hub.add("org/repo", "big.safetensors", BIG, rate=3 * MB, xet=xet)
    place = studio.wants("org/repo", "big.safetensors")
    # One block at a time: hf_xet fetches all of a file this small at once otherwise.
    env = {"HF_HUB_DISABLE_XET": "" if xet else "1", "HF_XET_FIXED_DOWNLOAD_CONCURRENCY": "1"}
    kill_at(studio.start(env), 0.6)
    time.sleep(0.2)
    assert studio.mistakable() == []
    assert studio.blobs() == []
    before, stored.faults.rate = hub.sent(), 0
    assert before < len(BIG)
    run = studio.ensure(env)
    assert run.error is None
    assert run.end["threads"] == []
    assert hub.sent() - before <= 0.45 * len(BIG)
    assert (stored.xet_sent > 0, stored.sent > 0) == (xet, not xet)
    assert run.downloads[0]["done"] >= 0.6 * len(BIG)
    assert sha256(place) == stored.sha256


def test_cancel_stops_at_once_and_the_next_run_goes_on(studio, hub):
    stored = hub.add("org/repo", "big.bin", BIG, rate=3 * MB)
    place = studio.wants("org/repo", "big.bin")
    run = studio.ensure(cancel_after=1.5)
    assert run.error["category"] == "interrupted"
    assert "goes on where it stopped" in run.error["advice"]
    assert run.end["seconds"] < 1.5 + 1
    assert run.end["threads"] == []
    assert studio.mistakable() == []
    time.sleep(0.3)
    before, stored.faults.rate = stored.sent, 0
    assert 0 < before < len(BIG)
    assert studio.ensure().error is None
    assert stored.sent - before < len(BIG) - before + MB
    assert sha256(place) == stored.sha256


@NEEDS_XET
def test_cancel_wakes_a_xet_stream_that_waits(studio, hub):
    hub.add("org/repo", "big.bin", BIG, rate=50_000, xet=True)
    studio.wants("org/repo", "big.bin")
    run = studio.ensure({"HF_HUB_DISABLE_XET": ""}, cancel_after=1.5)
    assert run.error["category"] == "interrupted"
    assert run.end["seconds"] < 1.5 + 1
    assert run.end["threads"] == []


def test_closing_the_generator_stops_every_thread(studio, hub):
    for n in range(2):
        hub.add("org/repo", f"{n}.bin", BIG[n:], rate=2 * MB)
        studio.wants("org/repo", f"{n}.bin")
    run = studio.ensure(close_at=MB)
    assert run.end["threads"] == []
    assert hub.sent() < len(BIG)
    assert studio.mistakable() == []


def test_a_connection_cut_in_the_middle_goes_on_from_there(studio, hub):
    stored = hub.add("org/repo", "big.bin", BIG, cut_after=5 * MB, cut_times=2)
    place = studio.wants("org/repo", "big.bin")
    assert studio.ensure().error is None
    assert sha256(place) == stored.sha256
    assert stored.sent <= len(BIG) + MB


def test_a_server_that_ignores_ranges_starts_again_and_the_hash_is_right(studio, hub):
    stored = hub.add("org/repo", "big.bin", BIG, cut_after=5 * MB, cut_times=1, no_ranges=True)
    place = studio.wants("org/repo", "big.bin")
    assert studio.ensure().error is None
    assert sha256(place) == stored.sha256


def test_a_damaged_part_is_found_and_started_again(studio, hub):
    stored = hub.add("org/repo", "big.bin", BIG)
    place = studio.wants("org/repo", "big.bin")
    part = studio.home / "hub/models--org--repo/blobs" / f"{stored.sha256}.studio.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(3 * MB))
    run = studio.ensure()
    assert run.error is None
    assert any("damaged" in note for note in run.notes)
    assert sha256(place) == stored.sha256
    assert not part.exists()


def test_two_processes_fetch_a_file_once(studio, hub):
    stored = hub.add("org/repo", "big.bin", BIG, rate=8 * MB)
    place = studio.wants("org/repo", "big.bin")
    first, second = studio.start(), studio.start()
    for process in (first, second):
        last = json.loads(process.communicate(timeout=60)[0].splitlines()[-1])
        assert last["error"] is None
    assert stored.sent == len(BIG)
    assert sha256(place) == stored.sha256


@NEEDS_XET
def test_xet_that_fails_is_replaced_by_http(studio, hub):
    stored = hub.add("org/repo", "big.bin", BIG, xet=True, xet_status=(500, -1))
    place = studio.wants("org/repo", "big.bin")
    quick = {
        "HF_HUB_DISABLE_XET": "",
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
    }
    run = studio.ensure(quick)
    assert run.error is None
    assert any("over HTTP" in note for note in run.notes)
    assert sha256(place) == stored.sha256


# ---------------------------------------------------------------------------------- failing


def refused(studio: Studio, hub: FakeHub, env: dict[str, str] | None = None, **options) -> dict:
    """Ensure, expect a failure, and check that nothing ComfyUI could load was left."""
    run = studio.ensure(env, **options)
    assert run.error is not None
    assert run.error["category"] == "weights"
    assert run.error["advice"]
    assert run.end["threads"] == []
    assert studio.mistakable() == []
    assert studio.blobs() == []
    return run.error


@pytest.mark.parametrize("token", ["", "hf_of_somebody_else"])
def test_gated_is_said_before_the_first_byte(studio, hub, token):
    hub.add("open/repo", "a.bin", SMALL)
    hub.add("gated/repo", "b.bin", SMALL, gated=True)
    studio.wants("open/repo", "a.bin")
    studio.wants("gated/repo", "b.bin")
    error = refused(studio, hub, {"HF_TOKEN": token})
    assert "gated/repo is gated" in error["what"]
    assert error["where"] == "gated/repo/b.bin"
    assert f"{hub.endpoint}/gated/repo" in error["advice"]
    assert "HF_TOKEN" in error["advice"]
    assert hub.sent() == 0


def test_every_refusal_is_reported_at_once(studio, hub):
    hub.add("gated/one", "a.bin", SMALL, gated=True)
    hub.add("gated/two", "b.bin", SMALL, gated=True)
    studio.wants("gated/one", "a.bin")
    studio.wants("gated/two", "b.bin")
    error = refused(studio, hub)
    assert "gated/one" in error["what"]
    assert "gated/two" in error["what"]


def test_a_missing_repository_and_a_missing_file_are_told_apart(studio, hub):
    hub.add("org/repo", "a.bin", SMALL)
    studio.wants("no/such", "a.bin")
    assert "no repository no/such" in refused(studio, hub)["what"]
    studio.files.clear()
    studio.wants("org/repo", "gone.bin")
    assert "has no file gone.bin" in refused(studio, hub)["what"]


def test_offline_says_what_to_copy_where(studio, hub):
    hub.add("org/repo", "a.bin", SMALL)
    studio.wants("org/repo", "a.bin", 25_200_000_000)
    error = refused(studio, hub, {"HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE" in error["what"]
    assert "25.2 GB" in error["advice"]
    assert "comfyui/models/vae/a.bin" in error["advice"]
    assert hub.requests == []


def test_no_connection_gives_up_after_bounded_retries(studio, hub):
    studio.wants("org/repo", "a.bin")
    error = refused(studio, hub, {"HF_ENDPOINT": "http://127.0.0.1:9"}, retries=2)
    assert "could not be reached, 3 times" in error["what"]
    assert error["where"] == "org/repo/a.bin"


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_recovers_is_waited_for(studio, hub, code):
    stored = hub.add("org/repo", "a.bin", SMALL, status=(code, 2), head_status=(code, 1))
    place = studio.wants("org/repo", "a.bin")
    assert studio.ensure().error is None
    assert sha256(place) == stored.sha256


def test_a_server_that_stays_broken_is_given_up(studio, hub):
    hub.add("org/repo", "a.bin", SMALL, status=(503, -1))
    studio.wants("org/repo", "a.bin")
    error = refused(studio, hub, retries=2)
    assert "HTTP 503, 3 times" in error["what"]
    assert sum("/cdn/" in path for _, path in hub.requests) == 3


@pytest.mark.parametrize("xet", [False, True], ids=["http", "xet"])
def test_wrong_bytes_never_reach_comfyui(studio, hub, xet):
    stored = hub.add("org/repo", "a.safetensors", SMALL, wrong=True, xet=xet)
    studio.wants("org/repo", "a.safetensors")
    error = refused(studio, hub, {"HF_HUB_DISABLE_XET": "" if xet else "1"})
    assert "hash differs" in error["what"]
    assert "2,097,152 of 2,097,152 bytes" in error["what"]
    stored.faults.wrong = False
    assert studio.ensure().error is None


def test_a_disk_that_is_too_small_is_said_with_both_figures(studio, hub):
    hub.add("org/repo", "a.bin", SMALL, claimed_size=10**18)
    studio.wants("org/repo", "a.bin")
    error = refused(studio, hub)
    assert "1000000000.0 GB are still to come" in error["what"]
    assert f"{shutil.disk_usage(studio.folder).free / 1e9:.0f}"[:1] in error["what"]
    assert "free at" in error["what"]
    assert hub.sent() == 0


def test_a_disk_that_fills_up_on_the_way_keeps_the_part(studio, hub):
    disk = studio.folder / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("no small file system can be mounted here (needs root)")
    try:
        studio.home = disk / "hf"
        hub.add("org/repo", "big.bin", BIG, rate=8 * MB)
        studio.wants("org/repo", "big.bin")
        process = studio.start()
        time.sleep(0.1)
        (disk / "other").write_bytes(bytes(8 * MB))  # fits now, and takes what the download needs
        error = json.loads(process.communicate(timeout=60)[0].splitlines()[-1])["error"]
        assert "The disk is too small" in error["what"]
        assert "are still to come and" in error["what"]
        assert studio.mistakable() == []
        (disk / "other").unlink()
        assert studio.ensure().error is None
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_cache_that_cannot_be_written_is_named_before_the_first_byte(studio, hub):
    hub.add("org/repo", "a.bin", SMALL)
    studio.wants("org/repo", "a.bin")
    folder = studio.home / "hub"
    folder.mkdir(parents=True)
    for path in (studio.folder, *studio.folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(0o755)
    folder.chmod(0o555)
    run = Run(other_user.run(studio.command(), {**studio.environ(), "HOME": "/nonexistent"}))
    assert f"The Hugging Face cache {folder} cannot be written" in run.error["what"]
    assert "HF_HOME" in run.error["advice"]
    assert hub.sent() == 0


def test_comfyui_models_that_cannot_be_written_is_named(studio, hub):
    hub.add("org/repo", "a.bin", SMALL)
    place = studio.wants("org/repo", "a.bin")
    place.parent.parent.mkdir(parents=True)
    place.parent.write_text("a file where a folder belongs")
    error = studio.ensure().error
    assert error["category"] == "weights"
    assert "cannot be placed" in error["what"]
