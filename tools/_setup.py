"""The virtual environment in ``.venv``: made, filled from a requirements file, kept.

Standard library only, and written so that an older Python can still start it: it then looks for a
Python 3.10 to 3.12 and hands over, or says in one sentence what is missing. A second start compares
hashes and does nothing; an install that was interrupted is completed by the next start.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, NoReturn  # noqa: UP035 - Python 3.8 reads this

REPO = Path(__file__).resolve().parents[1]
VENV = REPO / ".venv"
OLDEST, NEWEST = (3, 10), (3, 12)
WANTED = ("3.12", "3.11", "3.10")
SUITABLE = "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))"
HEARTBEAT = 30.0  # seconds of silence after which the install says that it is still at work
LOCK = REPO / ".studio" / "setup.lock"

if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))  # bootstrap and checkouts, imported once Python is suitable

Say = Callable[[str], None]


def say(sentence: str) -> None:
    """Print one line now, whatever the output is connected to."""
    print(sentence, flush=True)


def fail(sentence: str) -> NoReturn:
    """End with one sentence and status 1."""
    sys.stdout.flush()
    sys.exit(sentence)


# ------------------------------------------------------------------ a suitable Python


def runs(command: list[str], code: str = SUITABLE) -> bool:
    """Whether a Python starts and the code succeeds in it; by default, whether it is 3.10 to 3.12."""
    try:
        done = subprocess.run(
            [*command, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def find_uv() -> str | None:
    """uv's path, if there is one that works; pyenv has an empty name for it, too."""
    found = shutil.which("uv")
    try:
        works = found and not subprocess.call(
            [found, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    return found if works else None


def candidates() -> Iterator[list[str]]:
    """Commands that may start a Python 3.10 to 3.12, most wanted first."""
    if venv_python().exists():
        yield [str(venv_python())]
    for version in WANTED:
        found = shutil.which("python" + version)
        if found:
            yield [found]
    launcher = shutil.which("py") if os.name == "nt" else None
    if launcher:
        for version in WANTED:
            yield [launcher, "-" + version]
    for name in ("python3", "python"):
        found = shutil.which(name)
        if found:
            yield [found]


def find_python() -> list[str] | None:
    """The command of an installed Python 3.10 to 3.12; None if there is none.

    It is tried, because a name on PATH proves little: pyenv has one for versions that are not
    selected, Windows has one that opens its shop.
    """
    return next((command for command in candidates() if runs(command)), None)


def need_python(arguments: list[str], version: tuple[int, int] = sys.version_info[:2]) -> None:
    """Go on if this Python is 3.10 to 3.12; else start the same script with one that is.

    Args:
        arguments: the script and what it was given.
        version: of the Python that runs this.
    """
    if OLDEST <= version <= NEWEST:
        return
    found = find_python()
    uv = find_uv() if found is None and not VENV.exists() else None
    if uv:  # it knows Pythons that are not on PATH, and can fetch one
        say("Asking uv for a Python 3.12")
        subprocess.run([uv, "venv", "-q", "--python", "3.12", str(VENV)], check=False)
        found = find_python()
    if found is None:
        fail(
            f"This needs Python 3.10, 3.11 or 3.12. This one is {version[0]}.{version[1]} and no "
            "other was found on PATH. Install Python 3.12 (python.org, or the system's packages), "
            "and start this again."
        )
    sys.exit(subprocess.call([*found, *arguments]))


# ------------------------------------------------------------------ what is installed


def venv_python() -> Path:
    """The environment's interpreter."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def closure(requirements: Path) -> list[Path]:
    """A requirements file and those it includes with ``-r``."""
    files = [requirements]
    for line in requirements.read_text(encoding="utf-8").splitlines():
        match = re.match(r"-r\s+(\S+)", line)
        if match:
            files += closure(requirements.parent / match.group(1))
    return files


def fingerprint(requirements: Path) -> str:
    """A hash of everything a requirements file asks for; line endings do not matter."""
    lines = [
        line
        for file in closure(requirements)
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _stamp() -> Path:
    return VENV / "installed.json"


def _stamps() -> dict[str, str]:
    try:
        found = json.loads(_stamp().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_installed(requirements: Path) -> bool:
    """Whether the environment was completed for this file as it now is."""
    return venv_python().exists() and _stamps().get(requirements.name) == fingerprint(requirements)


def mark_installed(requirements: Path) -> None:
    """Remember that this file, and so every file it includes, is installed."""
    stamps = _stamps()
    stamps.update({file.name: fingerprint(file) for file in closure(requirements)})
    part = _stamp().with_suffix(".part")
    part.write_text(json.dumps(stamps, indent=1), encoding="utf-8")
    os.replace(part, _stamp())


def damaged() -> set[Path]:
    """The ``.dist-info`` folders of packages of which not every file is there, as after a kill.

    An installer takes such a package for installed; without this folder it installs it anew.
    """
    places = [*VENV.glob("lib/python*/site-packages"), *VENV.glob("Lib/site-packages")]
    folders = (folder for place in places for folder in place.glob("*.dist-info"))
    return {folder for folder in folders if not _whole(folder)}


def _whole(info: Path) -> bool:
    """Whether every file in a package's RECORD is there, in its size; Python makes ``.pyc`` anew.

    importlib.metadata does not tell: from Python 3.12 on it leaves missing files out.
    """
    try:
        for name, _, size in csv.reader((info / "RECORD").read_text("utf-8").splitlines()):
            file = info.parent / name
            if name.endswith(".pyc"):
                continue
            if not file.exists() or (size and file.stat().st_size != int(size)):
                return False
    except (OSError, ValueError):  # no RECORD, or half of one
        return False
    return True


# ------------------------------------------------------------------ installing


def make_venv(tell: Say = say) -> None:
    """Create the environment, or mend one whose interpreter is gone."""
    python, uv = venv_python(), find_uv()
    needed = SUITABLE if uv else SUITABLE.replace("import sys;", "import pip, sys;")
    if python.exists() and runs([str(python)], needed):
        return
    tell("Creating the environment in .venv with Python " + platform.python_version())
    # Not sys.executable, which may lie in the very folder that is cleared.
    base = getattr(sys, "_base_executable", sys.executable)
    command = [base, "-m", "venv", "--clear", *(["--without-pip"] if uv else []), str(VENV)]
    environment = {k: v for k, v in os.environ.items() if k != "__PYVENV_LAUNCHER__"}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode or not runs([str(python)], needed):
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        advice = (
            "Install the package python3-venv and start this again."
            if any("ensurepip" in line for line in said)
            else "Delete .venv and start this again."
        )
        fail("The environment cannot be created: {}. {}".format(" ".join(said)[-300:], advice))


def install_command(requirements: Path) -> list[str]:
    """How the packages are installed: with uv where it is there, else with pip."""
    uv = find_uv()
    if uv:
        installer = [uv, "pip", "install", "--python", str(venv_python())]
    else:
        installer = [str(venv_python()), "-m", "pip", "install", "--progress-bar", "off"]
        installer += ["--disable-pip-version-check", "--no-input"]
    return [*installer, "-r", str(requirements)]


def worth_saying(line: str) -> str | None:
    """What of an installer's line is progress to a person; None for the flood."""
    line = line.strip()
    if re.match(r"(Resolved|Prepared|Installed|Audited) \d+ packages? ", line):
        return line
    if line.startswith("Successfully installed "):
        return f"Installed {len(line.split()) - 2} packages"
    big = re.match(r"Downloading (\S+) \((?:(\d+)(?:\.\d+)? ?Mi?B|[\d.]+ ?Gi?B)\)", line)
    if big and int(big.group(2) or 1000) >= 100:
        return "Downloading " + line.split(" ", 1)[1].rsplit("/", 1)[-1]
    if line.startswith("Installing collected packages"):
        return "Unpacking {} packages".format(line.count(",") + 1)
    return None


def _follow(command: list[str], log: Path, tell: Say, held: int) -> int:
    """Run an installer, everything into the log, what is worth it to the person.

    It keeps the lock until it ends, even if this process is killed.
    """
    environment = dict(os.environ, PYTHONUNBUFFERED="1", NO_COLOR="1")
    environment.pop("VIRTUAL_ENV", None)
    child = subprocess.Popen(
        command,
        cwd=str(REPO),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        pass_fds=(held,) if os.name == "posix" else (),
    )
    lines = queue.Queue()  # type: queue.Queue[str]

    def read() -> None:
        for line in child.stdout or ():
            lines.put(line)
        lines.put("")  # the end; every line of the installer's has a line break

    threading.Thread(target=read, daemon=True).start()
    begun, line, last = time.monotonic(), " ", ""
    try:
        with log.open("w", encoding="utf-8") as sink:
            sink.write(" ".join(command) + "\n")
            while line:
                try:
                    line = lines.get(timeout=HEARTBEAT)
                except queue.Empty:
                    minutes = (time.monotonic() - begun) / 60
                    tell(f"Still at it after {minutes:.1f} minutes: {last[:80]}")
                    continue
                sink.write(line)
                sink.flush()
                last = line.strip() or last
                news = worth_saying(line)
                if news:
                    tell(news)
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        fail("Interrupted. Start this again to go on.")


def prepare(name: str, tell: Say = say) -> Path:
    """Make the environment hold what a requirements file asks for.

    Args:
        name: the file's name in the repository's root.
        tell: told what is done; silent when there is nothing to do.

    Returns:
        The environment's interpreter. On failure this ends the process with one sentence.
    """
    requirements = REPO / name
    if is_installed(requirements):
        return venv_python()
    import checkouts

    with checkouts.lock(LOCK, lambda: tell("Waiting for another set-up to end")) as held:
        if is_installed(requirements):
            return venv_python()
        make_venv(tell)
        marker, log = VENV / "installing", VENV / "setup.log"
        if marker.exists():
            for folder in sorted(damaged()):
                tell("Installing anew what was interrupted: " + folder.stem)
                shutil.rmtree(folder, ignore_errors=True)
        marker.write_text(name, encoding="utf-8")
        if _stamp().exists():
            _stamp().unlink()
        command = install_command(requirements)
        tell(
            "Installing the packages of {} with {}; the first time it is some 3 GB. Log: {}".format(
                name, "uv" if "uv" in Path(command[0]).stem else "pip", log.relative_to(REPO)
            )
        )
        status = _follow(command, log, tell, held)
        if status:
            fail(_install_error(name, log))
        mark_installed(requirements)
        marker.unlink()
    return venv_python()


def _install_error(name: str, log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    tail = "\n".join("    " + line for line in text.splitlines()[-12:])
    if re.search("no space left", text, re.IGNORECASE):
        advice = "The disk is full: the packages take 6 GB. Make room and start this again."
    elif re.search("resolve|timed out|connection|network|dns error", text, re.IGNORECASE):
        advice = "The package index cannot be reached: connect, and start this again."
    elif sys.platform == "darwin" and platform.machine() == "x86_64":
        advice = "torch is no longer built for Macs with Intel processors; use another machine."
    else:
        advice = f"Mend what it says and start this again. The whole log: {log}"
    return f"The packages of {name} cannot be installed:\n{tail}\n{advice}"


def comfy(tell: Say = say) -> str:
    """Bring ComfyUI to its pin. Returns nothing, or the sentence that says why it cannot be had."""
    import bootstrap
    from errors import SetupError

    with contextlib.suppress(KeyboardInterrupt):
        try:
            bootstrap.ensure(tell)
        except SetupError as error:
            return str(error)
        return ""
    fail("Interrupted. Start this again to go on.")


def start_studio(arguments: list[str]) -> int:
    """Set everything up and become the studio; what is missing of ComfyUI does not keep the page
    from opening.

    Args:
        arguments: passed on to app.py.

    Returns:
        The studio's status, where it runs as a child; elsewhere this does not return.
    """
    python = str(prepare("requirements-local.txt"))
    problem = comfy()
    if problem:
        say(problem)
    page = REPO / "app.py"
    if not page.exists():
        example = 't2v --prompt "A lighthouse in a storm, waves against the rocks"'
        say(f"Make a video with: {python} tools/generate.py {example}")
        return 1 if problem else 0
    if problem:
        say("The page starts all the same.")
    command = [python, str(page), *arguments]
    if os.name != "nt":
        sys.stdout.flush()
        os.execv(python, command)
    try:  # there, exec would leave the terminal before the studio ends
        return subprocess.call(command)
    except KeyboardInterrupt:
        return 130
