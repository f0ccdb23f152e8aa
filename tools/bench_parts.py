"""Starting up, and the files: what the bench measures without running a graph."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import bootstrap
from request import Request
from tools.bench_comfy import Server, child_environment

BOOT = "from engine import Engine; Engine('demo').boot(lambda m: None); print('ready', flush=True)"
CLIP = {"width": 768, "height": 512, "frames": 121, "fps": 24}  # what is encoded


def boot(comfy: Path, folder: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from a process's start to a ready engine, ours and main.py's, in alternating order.

    Both load the same packs and see the same weights; main.py binds its port, ours binds nothing.
    """
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(rounds + 1):
        for side in ["ours", "theirs"] if turn % 2 == 0 else ["theirs", "ours"]:
            seconds = boot_ours() if side == "ours" else boot_theirs(comfy, folder)
            if turn:  # the first round only fills the system's file cache
                taken[side].append(seconds)
        say(f"boot {turn} of {rounds}")
    return {
        **{side: median(values) for side, values in taken.items()},
        "ratio": median(a / b for a, b in zip(*taken.values(), strict=True)),
        "all": {side: [round(v, 2) for v in values] for side, values in taken.items()},
    }


def boot_ours() -> float:
    """Seconds until the engine is ready in a process of its own."""
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", BOOT],
        cwd=bootstrap.REPO,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = any(line.strip() == "ready" for line in process.stdout)
        seconds = time.monotonic() - begun
        process.kill()
    if not ready:
        raise RuntimeError("the engine does not boot; start tools/generate.py to see why")
    return seconds


def boot_theirs(comfy: Path, folder: Path) -> float:
    """Seconds until main.py answers."""
    server = Server(comfy, folder)
    try:
        return server.start()
    finally:
        server.stop()


# ------------------------------------------------------------------ encoding


def ffmpeg() -> str:
    """An FFmpeg's path: the system's, else the one imageio-ffmpeg brings."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def frames_per_second(folder: Path, rounds: int) -> dict[str, Any]:
    """Writing a video as ComfyUI's SaveVideo does, against FFmpeg at the same settings.

    Both get a pan over smoothed noise, from memory (SaveVideo float tensors, FFmpeg raw RGB) and write
    H.264 at libx264's own defaults, yuv420p. Needs the booted engine.
    """
    from fractions import Fraction

    import torch
    from comfy_api.latest import InputImpl, Types

    width, height, count = CLIP["width"], CLIP["height"], CLIP["frames"]
    torch.manual_seed(0)
    ground = torch.rand(1, 3, height // 8, (width + 2 * count) // 8)
    ground = torch.nn.functional.interpolate(ground, (height, width + 2 * count), mode="bicubic")
    moving = [ground[0, :, :, 2 * i : 2 * i + width] for i in range(count)]  # a pan to the right
    frames = torch.stack(moving).permute(0, 2, 3, 1).clamp(0, 1).contiguous()
    raw = (frames * 255).to(torch.uint8).numpy().tobytes()
    video = InputImpl.VideoFromComponents(
        Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(CLIP["fps"]))
    )
    plain = [
        *(ffmpeg(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"),
        *("-s", f"{width}x{height}", "-r", str(CLIP["fps"]), "-i", "-"),
        *("-c:v", "libx264", "-pix_fmt", "yuv420p", str(folder / "theirs.mp4")),
    ]

    def ours() -> None:
        video.save_to(str(folder / "ours.mp4"))

    def theirs() -> None:
        subprocess.run(plain, input=raw, check=True)

    return {"frames": count, **_side_by_side(ours, theirs, rounds, count)}


def _side_by_side(
    ours: Callable[[], None], theirs: Callable[[], None], rounds: int, count: int
) -> dict[str, Any]:
    """Frames per second of both, medians of alternating rounds, and the ratio of their times."""
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(rounds):
        sides = [("ours", ours), ("theirs", theirs)]
        for name, work in sides if turn % 2 == 0 else sides[::-1]:
            begun = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - begun)
    return {
        "ours_fps": count / median(taken["ours"]),
        "theirs_fps": count / median(taken["theirs"]),
        "ratio": median(a / b for a, b in zip(*taken.values(), strict=True)),
    }


# ------------------------------------------------------------------ a large upload


def large_video(path: Path, megabytes: int = 500) -> Path:
    """A video of about that size: ten seconds of 1080p with noise, repeated without encoding again."""
    clip = path.with_name("clip.mp4")
    source = "testsrc2=size=1920x1080:rate=30,noise=alls=20:allf=t"
    common = [ffmpeg(), "-y", "-v", "error"]
    subprocess.run(
        [
            *common,
            *("-f", "lavfi", "-t", "10", "-i", source),
            *("-f", "lavfi", "-t", "10", "-i", "sine=frequency=440"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-b:v", "20M", "-pix_fmt", "yuv420p"),
            *("-c:a", "aac", str(clip)),
        ],
        check=True,
    )
    times = max(0, round(megabytes * 1e6 / clip.stat().st_size) - 1)
    loop = ["-stream_loop", str(times), "-i", str(clip), "-c", "copy", str(path)]
    subprocess.run([*common, *loop], check=True)
    clip.unlink()
    return path


def staging(folder: Path, rounds: int, megabytes: int = 500) -> dict[str, Any]:
    """Bringing a large video into the engine's input folder: first time, again, and what is written.

    Beside it what reading and copying the file alone take.
    """
    import media

    source = large_video(folder / "large.mp4", megabytes)
    request = Request(
        mode="style", prompt="a", video=str(source), width=768, height=512, seconds=5.0, fps=24
    )
    taken: dict[str, list[float]] = {"read": [], "copy": [], "first": [], "again": []}
    written = 0
    for turn in range(rounds):
        inputs = folder / f"input-{turn}"
        source.touch()  # a new upload: nothing is remembered of it
        for name, work in (
            ("read", lambda: _read(source)),
            ("copy", lambda: shutil.copyfile(source, folder / "copy.mp4")),
            ("first", lambda inputs=inputs: media.stage(request, inputs)),
            ("again", lambda inputs=inputs: media.stage(request, inputs)),
        ):
            begun = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - begun)
        written = sum(file.stat().st_size for file in inputs.iterdir())
        shutil.rmtree(inputs)
    return {
        "megabytes": source.stat().st_size / 1e6,
        **{name: median(values) for name, values in taken.items()},
        "written_megabytes": written / 1e6,
    }


def _read(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
