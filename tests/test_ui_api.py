"""The API and MCP of the running studio, through their ordinary clients."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from pathlib import Path

import pytest
import samples
import studio_app
from gradio_client import Client, handle_file

import mediafile
from modes import MODES

pytestmark = pytest.mark.comfy


@pytest.fixture(scope="module")
def app(comfy_path):
    return studio_app.running()


@pytest.fixture(scope="module")
def client(app):
    return Client(app.url, verbose=False)


def arguments(mode: str, folder: Path, **values) -> dict:
    """A small job of a mode as the client's keyword arguments."""
    request = samples.request_for(mode, folder, **values)
    given = {k: v for k, v in request.to_dict().items() if k not in ("format", "mode")}
    given.update({name: handle_file(path) for name, path in request.media.items()})
    return given


@pytest.mark.parametrize("mode", MODES)
def test_endpoint_streams_progress_and_ends_with_a_video(client, mode, tmp_path):
    job = client.submit(**arguments(mode, tmp_path), api_name=f"/{mode}")
    seen = list(job)
    status, video = seen[-1]
    assert status["phase"] == "done"
    info = mediafile.probe(video, "video")
    assert info.has_audio
    assert [s["phase"] for s, v in seen[:-1] if v is None] != []
    assert json.loads(status["request"])["mode"] == mode
    assert str(tmp_path) not in status["request"]


def test_endpoint_says_what_is_wrong_in_words(client):
    with pytest.raises(Exception, match="above 40 s"):
        client.predict(prompt="x", seconds=99.0, api_name="/t2v")


def test_endpoint_stops_when_its_client_cancels(client):
    job = client.submit(prompt="long", seconds=10.0, api_name="/t2v")
    while not any(status["phase"] == "running" for status, _ in job.outputs()):
        time.sleep(0.1)
    job.cancel()
    began = time.monotonic()
    client.predict(prompt="next", seconds=0.4, width=128, height=128, api_name="/t2v")
    assert time.monotonic() - began < 60, "the cancelled job went on"


def raw_call(url: str, mode: str, data: list) -> str:
    """One call of the HTTP API without the client, as somebody with bad intent makes it."""
    body = json.dumps({"data": data}).encode()
    headers = {"Content-Type": "application/json"}
    post = urllib.request.Request(f"{url}/gradio_api/call/{mode}", body, headers)
    with urllib.request.urlopen(post, timeout=30) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/gradio_api/call/{mode}/{event}", timeout=120) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_endpoint_never_opens_a_file_of_this_machine(app, tmp_path, meta):
    secret = samples.image(tmp_path / "secret.png", 320, 240)
    names = [f.name for f in sorted(MODES["i2v"].fields, key=lambda f: not f.required)]
    values = {f.name: f.default for f in MODES["i2v"].fields}
    values |= {"image": {"path": str(secret), **meta}, "width": 128, "height": 128, "seconds": 0.4}
    answer = raw_call(app.url, "i2v", [values[name] for name in names])
    assert "event: error" in answer
    assert "event: complete" not in answer


def test_mcp_offers_the_modes_as_tools_and_makes_a_video(app):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def talk() -> tuple[list, object, list]:
        messages: list[str] = []

        async def heard(progress, total, message) -> None:
            messages.append(message or "")

        async with (
            streamablehttp_client(f"{app.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            given = {"prompt": "x", "seconds": 0.4, "width": 128, "height": 128, "seed": 3}
            made = await session.call_tool("t2v", given, progress_callback=heard)
            return tools, made, messages

    tools, made, messages = asyncio.run(talk())
    assert {tool.name for tool in tools} == set(MODES)
    preset = next(t for t in tools if t.name == "t2v").inputSchema["properties"]["preset"]
    assert preset["enum"] == ["fast", "balanced", "quality"]
    assert not made.isError
    assert any(".mp4" in getattr(part, "text", "") for part in made.content)
    assert any("Reading the prompt" in message for message in messages)
