"""Freed memory is kept on a CPU: counted in fresh pages, not in seconds."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

import allocator
import bootstrap

PROGRAM = """
import resource, sys, threading
import allocator, torch
done = allocator.keep_freed_memory() if sys.argv[1] == "kept" else True
def work():
    for _ in range(20):
        torch.ones(64 * 2**20, dtype=torch.uint8)
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def once():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
once()
before = pages()
once()
print(int(done), pages() - before)
"""


def fresh_pages(how: str) -> int:
    """Pages the system had to zero for twenty blocks of 64 MB in a second thread."""
    pytest.importorskip("torch")
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        cwd=bootstrap.REPO,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    done, pages = map(int, said.stdout.split())
    assert done
    return pages


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_allocator_keeps_pages_between_blocks(monkeypatch):
    monkeypatch.delenv("SPACE_ID", raising=False)
    if allocator.shutil.which("nvidia-smi") or allocator.os.path.exists("/dev/kfd"):
        pytest.skip("only without a GPU")
    kept, ordinary = fresh_pages("kept"), fresh_pages("ordinary")
    assert kept * 4 < ordinary, f"{kept} fresh pages, {ordinary} without"


def test_allocator_leaves_spaces_alone(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert not allocator.keep_freed_memory()
