"""The finished mp4 and what it carries: the graph and the request, as container tags."""

from __future__ import annotations

import json
import os
from pathlib import Path

import bootstrap
from errors import BadInput
from media import STAGED_NAME
from mediafile import open_av, whole
from modes import MODES
from request import Request

TAG_LIMIT = 4_000_000  # characters of one metadata tag we are willing to read


def finish(source: Path, target: Path, tags: dict[str, str]) -> None:
    """Copy a video's streams into ``target`` with ``+faststart`` and one container tag per entry.

    Nothing is encoded again. ComfyUI reads a graph back from separate ``prompt`` and ``workflow``
    tags, so they are never combined. The folder is made if it is not there.

    Raises:
        OSError: it cannot be written; what was written of it is gone.
    """
    import av

    target.parent.mkdir(parents=True, exist_ok=True)
    with whole(target) as part:
        options = {"movflags": "+faststart+use_metadata_tags"}
        with (
            av.open(str(source)) as old,
            av.open(str(part), "w", format="mp4", options=options) as new,
        ):
            new.metadata.update(tags)
            copies = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
            for packet in old.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)


def read_tags(path: str | os.PathLike) -> dict[str, str]:
    """The container tags of a video; untrusted text, overlong ones left out.

    Raises:
        BadInput: it is not a video.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no file {path.name[:80]!r}", "request", "Check the path.")
    with open_av(path, "video", "request") as container:
        return {k.lower(): v for k, v in container.metadata.items() if len(v) <= TAG_LIMIT}


def read_request(path: str | os.PathLike) -> Request:
    """The request saved as JSON, or carried by an mp4 made here; validated like any other.

    Raises:
        BadInput: there is none, or it is not valid.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no file {path.name[:80]!r}", "request", "Check the path.")
    with open(path, "rb") as file:
        head = file.read(TAG_LIMIT)
    if head.lstrip()[:1] == b"{":
        return Request.from_json(head.decode("utf-8", "replace"))
    text = read_tags(path).get("request")
    if not text:
        raise BadInput(
            f"{path.name[:80]!r} carries no request",
            "request",
            "Only videos made here with their settings kept can be replayed.",
        )
    return Request.from_json(text)


def with_found_files(request: Request, source: str | os.PathLike) -> Request:
    """A replayed request whose files were found again.

    A saved request names files without their folders; one inside a video that names a folder was
    not written here. Each file is looked for as it stands, then beside ``source``, then among ComfyUI's inputs under the name the mp4 says it was staged as; the rest is
    left for the person to give.
    """
    source = Path(source)
    staged = _staged_inputs(source)
    video = source.suffix.lower() == ".mp4"
    changes: dict[str, object] = {}
    for name, path in request.media.items():
        beside, copy = source.parent / Path(path).name, staged.get(name)
        trusted = not video or path == Path(path).name
        if Path(path).is_file() and trusted and not (video and beside.is_file()):
            continue
        if beside.is_file():
            changes[name] = str(beside)
        elif copy is not None:
            changes[name] = str(copy)
            if MODES[request.mode].field(name).kind == "audio":
                changes["audio_start"] = 0.0  # the copy already begins there
        elif not trusted and Path(path).is_file():
            changes[name] = Path(path).name  # a video may come from anyone: never their path here
    return request.replace(**changes) if changes else request


def _staged_inputs(source: Path) -> dict[str, Path]:
    if source.suffix.lower() != ".mp4":
        return {}
    try:
        names = json.loads(read_tags(source).get("inputs", "{}"))
    except ValueError:
        return {}
    found = {}
    for name, file in names.items() if isinstance(names, dict) else ():
        path = bootstrap.comfy_dir() / "input" / str(file)
        if STAGED_NAME.fullmatch(str(file)) and path.is_file():
            found[name] = path
    return found
