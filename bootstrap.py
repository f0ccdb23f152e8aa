"""Where ComfyUI lives, which commits of it and its packs are used, and how they get there.

``python bootstrap.py`` sets ComfyUI up, ``python bootstrap.py --check`` only looks. A folder that
stands at its pin is used as it is, without git and without a network; a checkout that a person (or a
CI cache) left in ``~/comfyui`` is copied; the rest is fetched by commit. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import checkouts
from checkouts import Refused
from errors import SetupError

REPO = Path(__file__).resolve().parent
Report = Callable[[str], None]


@dataclass(frozen=True)
class Pin:
    """One repository at one commit.

    Attributes:
        folder: the name of its folder; for ComfyUI itself a name only.
        url: where it is fetched from.
        commit: the full hash; these were tried together.
        provides: node class types that must be there once ComfyUI has loaded it. Those of a pack
            are the ones a graph uses or a mode may need.
        core: ComfyUI itself, and not a pack in its ``custom_nodes``.
    """

    folder: str
    url: str
    commit: str
    provides: tuple[str, ...]
    core: bool = False

    @property
    def name(self) -> str:
        """Owner and repository, as ``kijai/ComfyUI-KJNodes``."""
        return "/".join(self.url.removesuffix(".git").split("/")[-2:])

    @property
    def essential(self) -> tuple[str, ...]:
        """Files without which it cannot load; looked for even where git is not installed."""
        return ("nodes.py", "execution.py", "server.py") if self.core else ("__init__.py",)

    def path(self, comfy: Path) -> Path:
        """Its folder, given ComfyUI's."""
        return comfy if self.core else comfy / "custom_nodes" / self.folder


PINS = (
    Pin(  # v0.27.0
        "ComfyUI",
        "https://github.com/comfyanonymous/ComfyUI.git",
        "bb131be9e83d2f773c90f1d6f1e4b248a498c8c5",
        (
            "UNETLoader",
            "DualCLIPLoader",
            "VAELoader",
            "LatentUpscaleModelLoader",
            "EmptyLTXVLatentVideo",
            "LTXVEmptyLatentAudio",
            "LTXVConditioning",
            "LTXVConcatAVLatent",
            "LTXVSeparateAVLatent",
            "LTXVAddGuide",
            "LTXVCropGuides",
            "LTXVLatentUpsampler",
            "LTXVScheduler",
            "LTXVAudioVAEEncode",
            "LTXVAudioVAEDecode",
            "GetICLoRAParameters",
            "ComfySwitchNode",
            "SamplerCustomAdvanced",
            "CreateVideo",
            "SaveVideo",
        ),
        core=True,
    ),
    Pin(
        "ComfyUI-LTXVideo",
        "https://github.com/Lightricks/ComfyUI-LTXVideo.git",
        "2acf7af8991f33b5cc06ec26753cb6e88e057d04",
        ("MultimodalGuider", "GuiderParameters", "LTXVNormalizingSampler"),
    ),
    Pin(
        "ComfyUI-KJNodes",
        "https://github.com/kijai/ComfyUI-KJNodes.git",
        "01d9fa9c983273532cacdf9532c74a93c7dc86d2",
        ("VAELoaderKJ", "LTX2_NAG", "LTX2SamplingPreviewOverride"),
    ),
    Pin(
        "rgthree-comfy",
        "https://github.com/rgthree/rgthree-comfy.git",
        "683836c46e898668936c433502504cc0627482c5",
        ("Power Lora Loader (rgthree)",),
    ),
    Pin(
        "ComfyUI-VideoHelperSuite",
        "https://github.com/Kosinkadink/ComfyUI-VideoHelperSuite.git",
        "2984ec4c4b93292421888f38db74a5e8802a8ff8",
        ("VHS_LoadVideo", "VHS_VideoCombine", "VHS_VideoInfo"),
    ),
    Pin(
        "ComfyUI-Custom-Scripts",
        "https://github.com/pythongosssss/ComfyUI-Custom-Scripts.git",
        "609f3afaa74b2f88ef9ce8d939626065e3247469",
        ("MathExpression|pysssss", "ShowText|pysssss"),
    ),
    Pin(
        "ComfyUI-GGUF",
        "https://github.com/city96/ComfyUI-GGUF.git",
        "795e45156ece99afbc3efef911e63fcb46e6a20d",
        ("UnetLoaderGGUF", "DualCLIPLoaderGGUF"),
    ),
    Pin(
        "comfyui_controlnet_aux",
        "https://github.com/Fannovel16/comfyui_controlnet_aux.git",
        "e8b689a513c3e6b63edc44066560ca5919c0576e",
        ("DWPreprocessor", "DepthAnythingV2Preprocessor"),
    ),
    Pin(
        "ComfyMath",
        "https://github.com/evanspearman/ComfyMath.git",
        "c01177221c31b8e5fbc062778fc8254aeb541638",
        ("CM_IntBinaryOperation", "CM_FloatBinaryOperation", "CM_IntToFloat", "CM_FloatToInt"),
    ),
    Pin(
        "ComfyUI-mxToolkit",
        "https://github.com/Smirnov75/ComfyUI-mxToolkit.git",
        "7f7a0e584f12078a1c589645d866ae96bad0cc35",
        ("mxSlider", "mxSlider2D", "mxSeed"),
    ),
    Pin(
        "ComfyUI-MediaMixer",
        "https://github.com/DoctorDiffusion/ComfyUI-MediaMixer.git",
        "2bae7b5ea8fc52d8a4d668d62fed76265f4eec2c",
        ("FinalFrameSelector", "FirstFrameSelector"),
    ),
)


# ------------------------------------------------------------------ where things are


def on_spaces() -> bool:
    """Whether this runs on Hugging Face Spaces, which always sets ``SPACE_ID``."""
    return bool(os.environ.get("SPACE_ID"))


def brought_dir() -> Path:
    """Where a CI cache, or a person without access to GitHub, leaves a ComfyUI: ``~/comfyui``."""
    return Path.home() / "comfyui"


def comfy_dir() -> Path:
    """ComfyUI's folder, absolute: ``LTX23_AIO_COMFY_DIR``, else ``~/comfyui`` on Spaces, else
    ``comfyui`` in the repository."""
    named = os.environ.get("LTX23_AIO_COMFY_DIR", "").strip()
    if named:
        return Path(os.path.abspath(Path(named).expanduser()))
    return brought_dir() if on_spaces() else REPO / "comfyui"


def demo_dir() -> Path:
    """Where the demo weights are written; never among real weights."""
    return REPO / "demo_models"


def packs_allowed() -> tuple[str, ...]:
    """The folders in ``custom_nodes`` that ComfyUI may load, and no others."""
    return tuple(pin.folder for pin in PINS if not pin.core)


# ------------------------------------------------------------------ looking


@dataclass(frozen=True)
class Problem:
    """A checkout that is not as it has to be.

    Attributes:
        pin: which one. ``path``: its folder.
        kind: ``absent`` (nothing there, or no git checkout), ``elsewhere`` (at another commit, or
            at none), ``damaged`` (tracked files are missing).
        why: the reason, for a person.
        missing: the missing files of a damaged checkout, relative to ``path``.
    """

    pin: Pin
    path: Path
    kind: str
    why: str
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.pin.name} at {self.pin.commit} in {self.path}: {self.why}"


def _look(pin: Pin, comfy: Path) -> Problem | None:
    path = pin.path(comfy)
    stands_at = checkouts.head(path)
    if stands_at == pin.commit:
        missing = [name for name in pin.essential if not (path / name).is_file()]
        with contextlib.suppress(Refused):  # without git, the essential files have to do
            missing += [n for n in checkouts.changed(path)[0] if n not in missing]
        if not missing:
            return None
        return Problem(pin, path, "damaged", f"{len(missing)} files are missing", tuple(missing))
    if checkouts.is_empty(path):
        return Problem(pin, path, "absent", "it is not there")
    if not (path / ".git").exists():
        return Problem(pin, path, "absent", "the folder is no git checkout")
    return Problem(pin, path, "elsewhere", f"it stands at {stands_at or 'no commit'}")


def check(comfy: Path | None = None, pins: tuple[Pin, ...] = PINS) -> list[Problem]:
    """What keeps ComfyUI from being complete; an empty list when it can be used as it is.

    Uses no network and writes nothing.
    """
    comfy = comfy or comfy_dir()
    with ThreadPoolExecutor(4) as pool:
        return [found for found in pool.map(lambda pin: _look(pin, comfy), pins) if found]


# ------------------------------------------------------------------ mending


def ensure(report: Report = print, comfy: Path | None = None, pins: tuple[Pin, ...] = PINS) -> Path:
    """Bring ComfyUI and its packs to their pins and return ComfyUI's folder.

    An interrupted set-up is completed by the next one, and two at once wait for each other. Files
    of a person's own are never deleted or overwritten.

    Args:
        report: told what is done, one short sentence each.
        comfy: ComfyUI's folder; by default :func:`comfy_dir`.
        pins: what it has to consist of.

    Raises:
        SetupError: one error with everything that cannot be had, why, and what to do.
    """
    comfy = comfy or comfy_dir()
    theirs = comfy not in (REPO / "comfyui", brought_dir() if on_spaces() else None)
    if not check(comfy, pins):
        return comfy
    comfy = comfy.resolve()
    say = _one_at_a_time(report)
    base = comfy if os.path.ismount(comfy) else comfy.parent  # renames need one file system
    mark = f".{comfy.name}.part-"
    try:
        lock = checkouts.lock(
            comfy.parent / f".{comfy.name}.lock",
            lambda: say("Waiting for another set-up of ComfyUI to end"),
        )
        with lock as held:
            for stale in base.glob(mark + "*"):
                checkouts.remove(stale)
            problems = check(comfy, pins)
            work = Path(tempfile.mkdtemp(prefix=mark, dir=base)) if problems else None
            try:
                failures = _mend(problems, work, say, held, theirs)
            finally:
                if work:
                    checkouts.remove(work)
    except OSError as error:  # TimeoutError, from the lock, is one
        raise SetupError(
            f"ComfyUI cannot be set up: {error.strerror or error}",
            str(comfy),
            "Make the folder writable, or point LTX23_AIO_COMFY_DIR at another one.",
        ) from error
    if failures:
        raise _error(failures, comfy, len(pins))
    return comfy


def _one_at_a_time(report: Report) -> Report:
    turn = threading.Lock()

    def say(sentence: str) -> None:
        with turn:
            report(sentence)

    return say


def _mend(
    problems: list[Problem], work: Path | None, report: Report, held: int, theirs: bool
) -> list[tuple[Problem, Refused]]:
    """Mend every problem; those that cannot be are returned with the reason."""
    failures: list[tuple[Problem, Refused]] = []
    closed: set[str] = set()  # servers that cannot be reached: asked once, not eleven times
    pool = ThreadPoolExecutor(4)
    try:
        jobs = {
            problem: pool.submit(_obtain, problem.pin, work / problem.pin.folder, report, closed)
            for problem in problems
            if problem.kind == "absent"
        }
        for problem in problems:
            try:
                if problem in jobs:
                    jobs[problem].result()
                    checkouts.place(work / problem.pin.folder, problem.path)
                else:
                    _mend_in_place(problem, report, held, theirs)
                report(f"{problem.pin.folder} is at {problem.pin.commit[:12]}")
            except Refused as refusal:
                failures.append((problem, refusal))
            except OSError as error:
                failures.append((problem, Refused(f"{error.strerror or error}")))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing new is begun
    return failures


def _obtain(pin: Pin, folder: Path, report: Report, closed: set[str]) -> None:
    """Make a whole checkout of a pin in a temporary folder: from ``~/comfyui``, or by fetching."""
    brought = pin.path(brought_dir())
    if checkouts.head(brought) == pin.commit:
        try:
            if not checkouts.changed(brought)[0]:
                report(f"Copying {pin.folder} from {brought}")
                checkouts.copy(brought, folder)
                return
        except Refused as refusal:
            if str(refusal) == checkouts.NO_GIT:
                raise
            checkouts.remove(folder)
    server = pin.url.split("://")[-1].split("/")[0]
    if server and server in closed:
        raise Refused(f"{server} cannot be reached", "", True)
    report(f"Fetching {pin.name} at {pin.commit[:12]}")
    try:
        checkouts.fetch(pin.url, pin.commit, folder)
    except Refused as refusal:
        if refusal.unreachable:
            closed.add(server)
        raise


def _mend_in_place(problem: Problem, report: Report, held: int, theirs: bool) -> None:
    pin, path = problem.pin, problem.path
    if problem.kind == "elsewhere":
        if theirs and checkouts.branch(path) and checkouts.head(path):
            raise Refused(
                f"it is your own checkout, on a branch, and {problem.why}; "
                f"run git checkout --detach {pin.commit} in it, or use another folder"
            )
        report(f"Moving {pin.folder} to {pin.commit[:12]}")
        checkouts.move(path, pin.url, pin.commit, held)
    missing = list(problem.missing) or checkouts.changed(path)[0]
    if missing:
        report(f"Restoring {len(missing)} files of {pin.folder}")
        checkouts.restore(path, missing)
    left = _look(pin, path if pin.core else path.parent.parent)
    if left:
        raise Refused(left.why)


def _error(failures: list[tuple[Problem, Refused]], comfy: Path, total: int) -> SetupError:
    """One error for everything that cannot be had; the same reason is said once."""
    reasons: dict[str, list[Problem]] = {}
    for problem, refusal in failures:
        reasons.setdefault(str(refusal), []).append(problem)
    what = "; ".join(
        f"{reason}: {', '.join(f'{p.pin.name} at {p.pin.commit[:12]}' for p in those)}"
        for reason, those in reasons.items()
    )
    advice = []
    if checkouts.NO_GIT in reasons:
        advice.append("Install git, or point LTX23_AIO_COMFY_DIR at a ComfyUI that has them.")
    if any(refusal.unreachable for _, refusal in failures):
        advice.append(
            f"Start again when it can be, or bring the checkouts to {brought_dir()} (packs in its "
            "custom_nodes), or point LTX23_AIO_COMFY_DIR at a ComfyUI that has them."
        )
    blocked = [problem.path for problem, _ in failures if not checkouts.is_empty(problem.path)]
    if blocked:
        advice.append(f"Mend or move away {', '.join(map(str, blocked[:4]))}.")
    return SetupError(
        f"ComfyUI is not complete, {len(failures)} of {total} checkouts cannot be had: {what}",
        str(comfy),
        " ".join(advice) or "Mend that and start again.",
        detail="\n\n".join(
            f"{problem}\n{refusal}\n{refusal.detail}" for problem, refusal in failures
        ),
    )


def main() -> int:
    """The command line: 0 when ComfyUI is complete, 1 with one sentence when it is not."""
    parser = argparse.ArgumentParser(description="Set up ComfyUI and its packs at their pins.")
    parser.add_argument("--check", action="store_true", help="only look; change nothing")
    parser.add_argument("--comfy", type=Path, help="ComfyUI's folder (default: where it belongs)")
    options = parser.parse_args()
    if options.check:
        problems = check(options.comfy)
        for problem in problems:
            print(problem, file=sys.stderr)
        return 1 if problems else 0
    try:
        print(f"ComfyUI is complete in {ensure(comfy=options.comfy)}")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
