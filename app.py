"""The launcher: put the parts together, serve the page, boot the engine behind it.

Nobody imports this file: ComfyUI has a package called ``app``. See ``python app.py --help``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import allocator
import bootstrap
import hub_cache
import logs
from registry import REQUESTS

HEAD_START = 4.0  # seconds the engine waits for a first page to be there, so as not to slow it down


def options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="LTX 2.3 Studio: six modes, one page.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: only this machine"
    )
    parser.add_argument(
        "--port", type=int, default=None, help="port; default: the first free one from 7860"
    )
    parser.add_argument(
        "--weights", choices=REQUESTS, default="auto", help="auto looks at this machine"
    )
    parser.add_argument(
        "--share", action="store_true", help="a public address through Gradio's relay"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; returns the exit status."""
    given = options(argv)
    allocator.keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logs.setup(terminal=True)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    hub_cache.prepare()  # on a Space, before anything imports huggingface_hub
    import quick_gradio

    quick_gradio.prepare()
    import ui
    import zerogpu
    from jobs import Studio

    spaces = bootstrap.on_spaces()
    outputs = Path(os.environ.get("LTX23_AIO_OUTPUTS") or bootstrap.REPO / "outputs").resolve()
    studio = Studio(
        given.weights, outputs, keep=not spaces, slots=zerogpu.SLOTS, prepare=bootstrap.ensure
    )
    with quick_gradio.without_servers():
        page = ui.build(studio)
    page.launch(
        server_name="0.0.0.0" if spaces else given.host,
        server_port=given.port,
        share=given.share,
        inbrowser=not (given.no_browser or spaces),
        prevent_thread_lock=True,
        allowed_paths=[str(outputs)],
        **ui.launch_arguments(),
    )
    studio.start(HEAD_START)
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
