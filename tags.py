"""The finished mp4 and what it carries: the graph and the request, as container tags."""

from __future__ import annotations

import os
from pathlib import Path

from errors import BadInput
from mediafile import open_av, whole
from request import Request

TAG_LIMIT = 4_000_000  # characters of one metadata tag we are willing to read


def finish(source: Path, target: Path, tags: dict[str, str]) -> None:
    """Copy a video's streams into ``target`` with ``+faststart`` and one container tag per entry.

    Nothing is encoded again. ComfyUI reads a graph back from separate ``prompt`` and ``workflow``
    tags, so they are never combined.
    """
    import av

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
