"""The environment that tools/run.py and tools/test.py make, and what tools/test.py says last."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import bootstrap

sys.path.insert(0, str(bootstrap.REPO / "tools"))
import _setup
import _suite

posix = pytest.mark.skipif(os.name != "posix", reason="programs are shell scripts here")
SYSTEM = "/usr/bin:/bin"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository of the test's own, with a requirements file that includes another."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "requirements.txt").write_text("", encoding="utf-8")
    (folder / "requirements-dev.txt").write_text("-r requirements.txt\n", encoding="utf-8")
    for name, value in {
        "REPO": folder,
        "VENV": folder / ".venv",
        "LOCK": folder / ".studio" / "setup.lock",
    }.items():
        monkeypatch.setattr(_setup, name, value)
    return folder


def wheel(folder: Path, name: str, source: str) -> Path:
    """A real wheel with one module, made by hand."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{at},,\n" for at in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for at, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(at, text)
    return path


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def answer(python: Path, code: str) -> str:
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


# ------------------------------------------------------------------ the Python that starts it


@pytest.mark.parametrize(
    ("name", "version"), [("run.py", (3, 6)), ("test.py", (3, 6)), ("_setup.py", (3, 8))]
)
def test_start_files_can_be_read_by_an_older_python(repo, name, version):
    ast.parse((repo / "tools" / name).read_text(encoding="utf-8"), feature_version=version)


@posix
def test_find_python_passes_over_names_that_do_not_run(project, tmp_path, monkeypatch):
    tools = tmp_path / "bin"
    program(tools, "python3.12", "echo 'python3.12: command not found' >&2; exit 127")
    program(tools, "python3.11", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tools))
    assert _setup.find_python() == [str(tools / "python3.11")]


@posix
def test_find_python_passes_over_other_versions(project, tmp_path, monkeypatch):
    program(tmp_path / "bin", "python3", "exit 1")  # what the version test answers there
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert _setup.find_python() is None


@posix
def test_need_python_hands_over_to_one_that_fits(project, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.exit(int(sys.argv[1]))", encoding="utf-8")
    program(tmp_path / "bin", "python3.10", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SystemExit) as ended:
        _setup.need_python([str(script), "7"], version=(3, 9))
    assert ended.value.code == 7


def test_need_python_says_what_is_missing(project, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"needs Python 3.10, 3.11 or 3.12. This one is 3.13"):
        _setup.need_python(["script.py"], version=(3, 13))


def test_need_python_goes_on_with_one_that_fits(project, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for minor in (10, 11, 12):
        _setup.need_python(["script.py"], version=(3, minor))


# ------------------------------------------------------------------ what is installed


def test_fingerprint_sees_included_files_and_no_line_endings(project):
    dev = project / "requirements-dev.txt"
    before = _setup.fingerprint(dev)
    dev.write_bytes(dev.read_bytes().replace(b"\n", b"\r\n"))
    assert _setup.fingerprint(dev) == before
    (project / "requirements.txt").write_text("einops\n", encoding="utf-8")
    assert _setup.fingerprint(dev) != before


def test_is_installed_until_the_list_changes(project):
    dev, base = project / "requirements-dev.txt", project / "requirements.txt"
    _setup.venv_python().parent.mkdir(parents=True)
    _setup.venv_python().touch()
    assert not _setup.is_installed(dev)
    _setup.mark_installed(dev)
    assert _setup.is_installed(dev)
    assert _setup.is_installed(base)  # it came along
    base.write_text("einops\n", encoding="utf-8")
    assert not _setup.is_installed(dev)
    assert not _setup.is_installed(base)


def test_is_installed_not_without_an_interpreter_or_with_a_broken_note(project):
    base = project / "requirements.txt"
    (project / ".venv").mkdir()
    _setup.mark_installed(base)
    assert not _setup.is_installed(base)
    _setup.venv_python().parent.mkdir(parents=True)
    _setup.venv_python().touch()
    assert _setup.is_installed(base)
    (project / ".venv" / "installed.json").write_text("{", encoding="utf-8")
    assert not _setup.is_installed(base)


@pytest.mark.parametrize("harm", ["none", "missing", "cut", "no record", "half a record"])
def test_damaged_finds_packages_that_are_not_whole(project, harm):
    packages = project / ".venv" / "lib" / "python3.11" / "site-packages"
    info = packages / "tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: tiny\nVersion: 1.0\n", encoding="utf-8")
    (packages / "tiny.py").write_text("x = 1\n", encoding="utf-8")
    (packages / "other.py").touch()
    pyc = "__pycache__/tiny.cpython-311.pyc,sha256=x,9"
    lines = ["tiny.py,sha256=x,6", "other.py,,", pyc, "tiny-1.0.dist-info/RECORD,,"]
    (info / "RECORD").write_text("\n".join(lines), encoding="utf-8")
    if harm == "missing":
        (packages / "tiny.py").unlink()
    elif harm == "cut":
        (packages / "tiny.py").write_text("x", encoding="utf-8")
    elif harm == "no record":
        (info / "RECORD").unlink()
    elif harm == "half a record":
        (info / "RECORD").write_text(lines[0] + "\nother.p", encoding="utf-8")
    assert _setup.damaged() == (set() if harm == "none" else {info})


# ------------------------------------------------------------------ installing


@posix
@pytest.mark.parametrize(("status", "takes"), [(0, "uv"), (127, "pip")])
def test_install_command_takes_a_uv_that_works(project, tmp_path, monkeypatch, status, takes):
    program(tmp_path / "bin", "uv", f"exit {status}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    command = _setup.install_command(project / "requirements.txt")
    assert ("-m" in command) == (takes == "pip")
    assert command[-2:] == ["-r", str(project / "requirements.txt")]
    assert str(_setup.venv_python()) in command


@pytest.mark.parametrize(
    ("line", "news"),
    [
        ("Resolved 144 packages in 1.42s", "Resolved 144 packages in 1.42s"),
        ("Downloading torch (506.1MiB)", "Downloading torch (506.1MiB)"),
        ("  Downloading https://x/a/torch-2.whl (530.6 MB)", "Downloading torch-2.whl (530.6 MB)"),
        ("  Downloading big-1.whl (1.2 GB)", "Downloading big-1.whl (1.2 GB)"),
        ("Downloading pillow (6.8MiB)", None),
        ("  Downloading small-1.whl (51 kB)", None),
        ("Installing collected packages: a, b, c", "Unpacking 3 packages"),
        ("Successfully installed a-1 b-2", "Installed 2 packages"),
        ("Collecting torch==2.11.0", None),
        ("Requirement already satisfied: numpy", None),
    ],
)
def test_worth_saying_keeps_progress_and_drops_the_flood(line, news):
    assert _setup.worth_saying(line + "\n") == news


@posix
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_prepare_makes_an_environment_once(project, tmp_path, monkeypatch, installer):
    if installer == "pip":
        monkeypatch.setenv("PATH", SYSTEM)
    if bool(_setup.find_uv()) != (installer == "uv"):
        pytest.skip(f"cannot be forced to {installer} on this machine")
    listed = wheel(tmp_path, "tiny", "x = 42\n")
    (project / "requirements.txt").write_text(f"{listed}\n", encoding="utf-8")
    said = []
    python = _setup.prepare("requirements-dev.txt", said.append)
    assert answer(python, "import tiny; print(tiny.x)") == "42"
    assert f"with {installer};" in " ".join(said)
    assert "tiny" in (project / ".venv" / "setup.log").read_text(encoding="utf-8")
    said.clear()
    begun = time.monotonic()
    assert _setup.prepare("requirements-dev.txt", said.append) == python
    assert _setup.prepare("requirements.txt", said.append) == python
    assert time.monotonic() - begun < 0.2
    assert said == []


@posix
def test_prepare_follows_the_list(project, tmp_path):
    _setup.prepare("requirements.txt", print)
    listed = wheel(tmp_path, "tiny", "x = 42\n")
    (project / "requirements.txt").write_text(f"{listed}\n", encoding="utf-8")
    python = _setup.prepare("requirements.txt", print)
    assert answer(python, "import tiny; print(tiny.x)") == "42"


@posix
def test_prepare_mends_an_environment_whose_python_is_gone(project):
    python = _setup.prepare("requirements.txt", print)
    (project / ".venv" / "bin" / "python3").unlink(missing_ok=True)
    python.unlink()
    python.symlink_to(project / "gone")
    _setup.prepare("requirements.txt", print)
    assert _setup.runs([str(python)])


@posix
def test_prepare_that_fails_says_why_and_where_the_log_is(project, tmp_path):
    (project / "requirements.txt").write_text(f"{tmp_path}/gone-1.0.whl\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        _setup.prepare("requirements.txt", print)
    message = str(ended.value)
    assert "requirements.txt cannot be installed" in message
    assert "gone-1.0.whl" in message
    assert "setup.log" in message
    assert not _setup.is_installed(project / "requirements.txt")


@posix
def test_prepare_completes_an_install_that_was_killed(project, tmp_path, monkeypatch):
    listed = wheel(tmp_path, "tiny", "x = 42\n")
    python = _setup.prepare("requirements.txt", print)
    (project / "requirements.txt").write_text(f"{listed}\n", encoding="utf-8")
    _setup.prepare("requirements.txt", print)
    module = Path(answer(python, "import tiny; print(tiny.__file__)"))
    (project / "requirements.txt").write_text(f"\n{listed}\n", encoding="utf-8")

    mark, pid = tmp_path / "at-work", tmp_path / "pid"
    hang = f'case "$1" in --version) exit 0;; esac; echo $$ > {pid}; touch {mark}; exec sleep 60'
    program(tmp_path / "bin", "uv", hang)
    code = (
        f"import sys; sys.path.insert(0, {str(bootstrap.REPO / 'tools')!r}); import _setup\n"
        "from pathlib import Path\n"
        f"_setup.REPO = Path({str(project)!r}); _setup.VENV = _setup.REPO / '.venv'\n"
        "_setup.LOCK = _setup.REPO / '.studio/setup.lock'\n"
        "_setup.prepare('requirements.txt')"
    )
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL
    )
    ends = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < ends
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    module.unlink()  # as if it had been killed between two files
    with pytest.raises(TimeoutError), _setup_lock():
        pass  # the installer that lives on is not disturbed
    os.kill(int(pid.read_text()), signal.SIGKILL)

    said = []
    _setup.prepare("requirements.txt", said.append)
    assert answer(python, "import tiny; print(tiny.x)") == "42"
    assert any("anew" in sentence for sentence in said)


def _setup_lock():
    import checkouts

    return checkouts.lock(_setup.LOCK, lambda: None, limit=0.3)


# ------------------------------------------------------------------ what tools/test.py says


@pytest.fixture
def small_suite(tmp_path, repo):
    """Runs pytest over two tests of which one needs ComfyUI; returns (status, output, tally)."""
    shutil.copy(repo / "tests" / "conftest.py", tmp_path)
    shutil.copy(repo / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_small.py").write_text(
        "import pytest\n\ndef test_plain():\n    pass\n\n"
        "@pytest.mark.comfy\ndef test_real():\n    assert 1 == 2\n",
        encoding="utf-8",
    )

    def run(*options: str, comfy: str = "nowhere") -> tuple[int, str, _suite.Tally | None]:
        report = tmp_path / "reports" / "all.xml"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", f"--junitxml={report}", *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repo), "LTX23_AIO_COMFY_DIR": comfy},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr, _suite.tally(report.parent)

    return run


def test_suite_without_comfy_says_what_was_left_out(small_suite):
    status, output, count = small_suite()
    assert status == 0
    assert "NOT TESTED: the real ComfyUI" in output
    assert "1 passed, 1 skipped" in output
    assert count == _suite.Tally(ran=0, failed=0, skipped=1)


def test_suite_with_comfy_that_is_not_there_is_an_error(small_suite):
    status, output, _ = small_suite("--comfy-real")
    assert status == 4
    assert "ComfyUI is not complete" in output
    assert "LTX23_AIO_COMFY_DIR" in output


@pytest.mark.comfy
def test_suite_with_comfy_counts_what_failed(small_suite, comfy_path):
    status, _, count = small_suite("--comfy-real", comfy=str(comfy_path))
    assert status == 1
    assert count == _suite.Tally(ran=1, failed=1, skipped=0)


def test_last_words_are_loud_without_comfy():
    lines = _suite.last_words("It cannot be had.\nBecause.", "x", _suite.Tally(skipped=12))
    assert "12 TESTS SKIPPED" in lines[1]
    assert "# Because." in lines
    assert all(line.startswith("#") for line in lines)


def test_last_words_count_what_ran_with_comfy():
    (line,) = _suite.last_words("", "/there", _suite.Tally(ran=5, failed=2, skipped=1))
    assert "/there: 5 tests ran" in line
    assert "2 of them failed, 1 were skipped" in line
    (line,) = _suite.last_words("", "/there", _suite.Tally())
    assert "passed" not in line


def test_tally_without_a_report_is_none(tmp_path):
    assert _suite.tally(tmp_path) is None
    (tmp_path / "torn.xml").write_text("<testsuites><testca", encoding="utf-8")
    assert _suite.tally(tmp_path) is None


def test_tally_adds_the_reports_up(tmp_path):
    case = '<testcase><properties><property name="needs" value="comfy"/></properties>{}</testcase>'
    for name, end in (("side", "<skipped/>"), ("alone", "<failure/>")):
        text = f"<testsuites>{case.format('')}{case.format(end)}</testsuites>"
        (tmp_path / f"{name}.xml").write_text(text, encoding="utf-8")
    assert _suite.tally(tmp_path) == _suite.Tally(ran=3, failed=1, skipped=1)


def test_passes_leave_no_test_out_and_take_none_twice():
    side, alone = _suite.passes([], [], 2).values()
    mark, other = (command[command.index("-m") + 1] for command in (alone, side))
    assert other == f"not {mark}"
    assert "-n" in side
    assert "-n" not in alone
    assert side[1] != alone[1]  # a report of its own
    assert _suite.environment("-n" in side)["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(("arguments", "cores"), [(["-k", "fox"], 8), (["--slow"], 2), ([], 1)])
def test_passes_keep_chosen_tests_and_one_core_to_one_process(arguments, cores):
    (command,) = _suite.passes(["--comfy-real"], arguments, cores).values()
    assert "-n" not in command
    assert "-m" not in command
    assert command[2:] == ["--comfy-real", *arguments]


# ------------------------------------------------------------------ the real thing


@pytest.mark.slow
def test_a_clean_clone_tests_itself(repo, tmp_path):
    """Downloads or links some 6 GB: the whole environment, from nothing."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(repo), str(clone)], check=True)
    command = [sys.executable, "tools/test.py", "--no-comfy", "tests/test_request.py"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LTX23_")}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout
    assert "WITHOUT THE REAL COMFYUI" in done.stdout.splitlines()[-3]
    assert len(done.stdout.splitlines()) < 60
    assert not subprocess.check_output(["git", "status", "--porcelain"], cwd=clone)
    begun = time.monotonic()
    code = "import sys; sys.path.insert(0, 'tools'); import _setup; _setup.prepare('requirements-dev.txt')"
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True)
    assert time.monotonic() - begun < 1
    shutil.rmtree(clone)
