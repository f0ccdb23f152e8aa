"""Drive the released ComfyUI front end: python front_end_driver.py JOB.json

In a process of its own, because Playwright allows one browser driver a process. JOB.json holds
`url`, `chromium`, `profile` (an empty folder), `out` and any of

    load     [workflow, ...]: each is loaded and exported; out: [{"output", "workflow"} or {"error"}]
    widgets  true: every node type is made once; out: {class: [[name, stored], ...]}
    drop     [path, ...]: each file is opened as if dropped on the page, and exported
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = "() => window.app && window.app.graph && window.app.extensionManager"
EXPORT = """async workflow => {
    await window.app.loadGraphData(workflow);
    await new Promise(done => setTimeout(done, 300));
    const prompt = await window.app.graphToPrompt();
    const known = window.LiteGraph.registered_node_types;
    const missing = window.app.graph._nodes.map(n => n.type).filter(
        type => !(type in known) && !window.app.graph.subgraphs.has(type));
    return {output: prompt.output, workflow: prompt.workflow, missing};
}"""
DROP = """async ([name, content]) => {
    const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
    await window.app.handleFile(new File([bytes], name, {type: "video/mp4"}));
    await new Promise(done => setTimeout(done, 1000));
    const prompt = await window.app.graphToPrompt();
    return {output: prompt.output, workflow: prompt.workflow};
}"""
WIDGETS = """() => {
    const found = {};
    for (const type of Object.keys(window.LiteGraph.registered_node_types)) {
        const node = window.LiteGraph.createNode(type);
        window.app.graph.add(node);
        found[type] = (node.widgets || []).map(w => [w.name, w.serialize !== false]);
        window.app.graph.remove(node);
    }
    return found;
}"""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result: dict = {}
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            job["profile"],
            executable_path=job["chromium"],
            args=FLAGS,
            headless=True,
            viewport={"width": 320, "height": 240},  # nobody looks; drawing graphs takes most of it
        )
        page = context.new_page()
        page.goto(job["url"], wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=90_000)
        page.wait_for_timeout(4000)  # extensions register their nodes after the graph exists
        if job.get("widgets"):
            result["widgets"] = page.evaluate(WIDGETS)
        for workflow in job.get("load", []):
            result.setdefault("load", []).append(page.evaluate(EXPORT, workflow))
        for path in job.get("drop", []):
            content = base64.b64encode(Path(path).read_bytes()).decode()
            result.setdefault("drop", []).append(page.evaluate(DROP, [Path(path).name, content]))
        context.close()
    Path(job["out"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
