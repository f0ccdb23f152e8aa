"""One small workflow per convenience of ComfyUI's editor, and the graph each one stands for.

Used twice: with our converter, and with the released front end, which has to agree.
"""

from __future__ import annotations

from typing import Any

from sketch import Sketch

Case = tuple[dict[str, Any], dict[str, dict[str, Any]]]  # the file; node id -> inputs

LATENT = {"samples": "LATENT"}


def _preview(sketch: Sketch, node_id: int, origin: int, slot: int = 0) -> None:
    sketch.node(node_id, "PreviewAny", [], {"source": "*"})
    sketch.link(origin, slot, node_id, "source")


def reroutes() -> Case:
    """A value through two reroutes, one of them feeding two inputs."""
    s = Sketch()
    s.node(1, "EmptyLatentImage", [64, 32, 1], outputs=("LATENT",))
    s.node(2, "Reroute", inputs={"": "*"}, outputs=("LATENT",))
    s.node(3, "Reroute", inputs={"": "*"}, outputs=("LATENT",))
    s.node(4, "LatentFlip", ["x-axis: vertically"], LATENT, ("LATENT",))
    s.link(1, 0, 2, "")
    s.link(2, 0, 3, "")
    s.link(3, 0, 4, "samples")
    _preview(s, 5, 4)
    return s.file(), {
        "1": {"width": 64, "height": 32, "batch_size": 1},
        "4": {"flip_method": "x-axis: vertically", "samples": ["1", 0]},
        "5": {"source": ["4", 0]},
    }


def muted() -> Case:
    """What a muted node fed is empty, or has its widget's value; a muted reroute leads nowhere."""
    s = Sketch()
    s.node(1, "PrimitiveInt", [3, "fixed"], outputs=("INT",), mode=2)
    s.node(2, "EmptyLatentImage", [64, 32, 1], {"width*": "INT"}, ("LATENT",))
    s.node(3, "Reroute", inputs={"": "*"}, outputs=("LATENT",), mode=2)
    s.node(4, "LatentFlip", ["x-axis: vertically"], LATENT, ("LATENT",))
    s.link(1, 0, 2, "width")
    s.link(2, 0, 3, "")
    s.link(3, 0, 4, "samples")
    _preview(s, 5, 4)
    return s.file(), {
        "2": {"width": 64, "height": 32, "batch_size": 1},
        "4": {"flip_method": "x-axis: vertically"},
        "5": {"source": ["4", 0]},
    }


def bypassed() -> Case:
    """A bypassed node hands on the input of the output's type, past a bypassed neighbour."""
    s = Sketch()
    s.node(1, "EmptyLatentImage", [64, 32, 1], outputs=("LATENT",))
    s.node(2, "VAELoader", ["pixel_space"], outputs=("VAE",))
    s.node(3, "LatentFlip", ["x-axis: vertically"], LATENT, ("LATENT",), mode=4)
    inputs = {"pixels": "IMAGE", "vae": "VAE", "mask": "MASK"}
    s.node(4, "VAEEncodeForInpaint", [6], inputs, ("LATENT",), mode=4)
    s.node(5, "VAEDecode", None, {"samples": "LATENT", "vae": "VAE"}, ("IMAGE",))
    s.link(1, 0, 3, "samples")
    s.link(3, 0, 5, "samples")
    s.link(2, 0, 4, "vae")
    s.link(2, 0, 5, "vae")
    _preview(s, 6, 5)
    _preview(s, 7, 4)
    pair = {"positive": "CONDITIONING", "negative": "CONDITIONING"}
    s.node(8, "LTXVConditioning", [25], pair, ("CONDITIONING", "CONDITIONING"))
    s.node(9, "LTXVConditioning", [24], pair, ("CONDITIONING", "CONDITIONING"), mode=4)
    s.node(10, "LTXVConditioning", [24], pair, ("CONDITIONING", "CONDITIONING"))
    for slot, name in enumerate(pair):
        s.link(8, slot, 9, name)
        s.link(9, slot, 10, name)
    return s.file(), {
        "1": {"width": 64, "height": 32, "batch_size": 1},
        "2": {"vae_name": "pixel_space"},
        "5": {"samples": ["1", 0], "vae": ["2", 0]},
        "6": {"source": ["5", 0]},
        "7": {},
        "8": {"frame_rate": 25.0},
        "10": {"positive": ["8", 0], "negative": ["8", 1], "frame_rate": 24.0},
    }


def primitive() -> Case:
    """A primitive node's value is the widget's value."""
    s = Sketch()
    s.node(1, "PrimitiveNode", [96, "fixed"], outputs=("INT",))
    s.nodes[0]["outputs"][0]["widget"] = {"name": "width"}
    s.node(2, "EmptyLatentImage", [64, 32, 1], {"width*": "INT"}, ("LATENT",))
    s.link(1, 0, 2, "width")
    _preview(s, 3, 2)
    return s.file(), {
        "2": {"width": 96, "height": 32, "batch_size": 1},
        "3": {"source": ["2", 0]},
    }


def controls() -> Case:
    """Seeds are followed by a control of the editor's own; PrimitiveInt's has another name."""
    s = Sketch()
    s.node(1, "PrimitiveInt", [3, "increment"], outputs=("INT",))
    inputs = {"model": "MODEL", "positive": "CONDITIONING"}
    s.node(2, "KSampler", [7, "randomize", 9, 1.5, "lcm", "simple", 1], inputs, ("LATENT",))
    s.node(3, "RandomNoise", [11, "fixed"], outputs=("NOISE",))
    _preview(s, 4, 1)
    _preview(s, 5, 2)
    _preview(s, 6, 3)
    sampler = {"seed": 7, "steps": 9, "cfg": 1.5, "sampler_name": "lcm", "scheduler": "simple"}
    return s.file(), {
        "1": {"value": 3},
        "2": {**sampler, "denoise": 1.0},
        "3": {"noise_seed": 11},
        "4": {"source": ["1", 0]},
        "5": {"source": ["2", 0]},
        "6": {"source": ["3", 0]},
    }


def set_and_get() -> Case:
    """KJNodes' pair, also across a subgraph's border."""
    inner = Sketch(500)
    inner.node(31, "GetNode", ["size"], outputs=("INT",))
    inner.node(32, "EmptyLatentImage", [1, 48, 1], {"width*": "INT"}, ("LATENT",))
    inner.link(31, 0, 32, "width")
    inner.link(32, 0, -20, "LATENT")
    body = inner.subgraph("Getter", {}, {"LATENT": "LATENT"})
    s = Sketch()
    s.node(1, "PrimitiveInt", [88, "fixed"], outputs=("INT",))
    more = {"properties": {"previousName": "size"}, "title": "Set_size"}
    s.node(2, "SetNode", ["size"], {"INT": "INT"}, ("*",), **more)
    s.node(3, "GetNode", ["size"], outputs=("INT",), title="Get_size")
    s.node(4, "EmptyLatentImage", [64, 32, 1], {"height*": "INT"}, ("LATENT",))
    s.node(5, body["id"], [], {}, ("LATENT",))
    s.link(1, 0, 2, "INT")
    s.link(3, 0, 4, "height")
    _preview(s, 6, 4)
    _preview(s, 7, 5)
    return s.file(body), {
        "1": {"value": 88},
        "4": {"width": 64, "height": ["1", 0], "batch_size": 1},
        "5:32": {"width": ["1", 0], "height": 48, "batch_size": 1},
        "6": {"source": ["4", 0]},
        "7": {"source": ["5:32", 0]},
    }


def dictionaries() -> Case:
    """Packs that store widgets by name, and one that stores rows."""
    s = Sketch()
    values = {
        "frame_rate": 24,
        "loop_count": 0,
        "filename_prefix": "x",
        "format": "video/h264-mp4",
        "pix_fmt": "yuv420p",
        "crf": 17,
        "save_metadata": True,
        "trim_to_audio": False,
        "pingpong": False,
        "save_output": True,
        "videopreview": {"hidden": False, "paused": False, "params": {}},
    }
    s.node(1, "EmptyImage", [64, 32, 1, 0], outputs=("IMAGE",))
    s.node(2, "VHS_VideoCombine", values, {"images": "IMAGE"}, ("VHS_FILENAMES",))
    s.link(1, 0, 2, "images")
    rows = [
        {"on": True, "lora": "a.safetensors", "strength": 0.5, "strengthTwo": None},
        {"on": False, "lora": "b.safetensors", "strength": 1, "strengthTwo": None},
    ]
    stored = [{}, {"type": "PowerLoraLoaderHeaderWidget"}, *rows, {}, ""]
    s.node(3, "UNETLoader", ["m.safetensors", "default"], outputs=("MODEL",))
    s.node(4, "Power Lora Loader (rgthree)", stored, {"model": "MODEL"}, ("MODEL", "CLIP"))
    s.link(3, 0, 4, "model")
    _preview(s, 5, 4)
    del values["videopreview"]
    return s.file(), {
        "1": {"width": 64, "height": 32, "batch_size": 1, "color": 0},
        "2": {**values, "images": ["1", 0]},
        "3": {"unet_name": "m.safetensors", "weight_dtype": "default"},
        "4": {
            "model": ["3", 0],
            "lora_1": {"on": True, "lora": "a.safetensors", "strength": 0.5},
            "lora_2": {"on": False, "lora": "b.safetensors", "strength": 1},
        },
        "5": {"source": ["4", 0]},
    }


def subgraphs() -> Case:
    """A subgraph in a subgraph, used twice, fed by a link once and by its own widget once."""
    deep = Sketch(600)
    deep.node(41, "EmptyLatentImage", [16, 24, 1], {"width*": "INT"}, ("LATENT",))
    deep.link(-10, 0, 41, "width")
    deep.link(41, 0, -20, "LATENT")
    inner = deep.subgraph("Deep", {"width": "INT"}, {"LATENT": "LATENT"})
    middle = Sketch(700)
    middle.node(51, inner["id"], [], {"width*": "INT"}, ("LATENT",))
    middle.node(52, "LatentFlip", ["y-axis: horizontally"], LATENT, ("LATENT",))
    middle.link(-10, 0, 51, "width")
    middle.link(51, 0, 52, "samples")
    middle.link(52, 0, -20, "LATENT")
    outer = middle.subgraph("Middle", {"width": "INT"}, {"LATENT": "LATENT"})
    s = Sketch()
    s.node(1, "PrimitiveInt", [88, "fixed"], outputs=("INT",))
    s.node(2, outer["id"], [], {"width*": "INT"}, ("LATENT",), title="Linked")
    s.node(3, outer["id"], [], {"width*": "INT"}, ("LATENT",), title="By hand")
    s.link(1, 0, 2, "width")
    _preview(s, 4, 2)
    _preview(s, 5, 3)
    flip = {"flip_method": "y-axis: horizontally"}
    return s.file(inner, outer), {
        "1": {"value": 88},
        "2:51:41": {"width": ["1", 0], "height": 24, "batch_size": 1},
        "2:52": {**flip, "samples": ["2:51:41", 0]},
        "3:51:41": {"width": 16, "height": 24, "batch_size": 1},
        "3:52": {**flip, "samples": ["3:51:41", 0]},
        "4": {"source": ["2:52", 0]},
        "5": {"source": ["3:52", 0]},
    }


def same_numbers() -> Case:
    """Two subgraphs whose nodes have numbers that others have too are numbered anew."""
    bodies = []
    for name, at in (("One", 500), ("Two", 600)):
        inner = Sketch(at)
        inner.node(1, "EmptyLatentImage", [at, 24, 1], {}, ("LATENT",))
        inner.node(7, "LatentFlip", ["x-axis: vertically"], LATENT, ("LATENT",))
        inner.link(1, 0, 7, "samples")
        inner.link(7, 0, -20, "LATENT")
        bodies.append(inner.subgraph(name, {}, {"LATENT": "LATENT"}))
    s = Sketch()
    s.node(1, bodies[0]["id"], [], {}, ("LATENT",))
    s.node(2, bodies[1]["id"], [], {}, ("LATENT",))
    _preview(s, 3, 1)
    _preview(s, 4, 2)
    flip = {"flip_method": "x-axis: vertically"}
    return s.file(*bodies), {
        "1:901": {"width": 500, "height": 24, "batch_size": 1},
        "1:7": {**flip, "samples": ["1:901", 0]},
        "2:902": {"width": 600, "height": 24, "batch_size": 1},
        "2:903": {**flip, "samples": ["2:902", 0]},
        "3": {"source": ["1:7", 0]},
        "4": {"source": ["2:903", 0]},
    }


def dynamic_combos() -> Case:
    """Inputs of the choice taken have dotted names; so have inputs that grow."""
    s = Sketch()
    s.node(1, "EmptyImage", [64, 32, 1, 0], outputs=("IMAGE",))
    values = ["scale longer dimension", 512, "area"]
    s.node(2, "ResizeImageMaskNode", values, {"input": "IMAGE,MASK"}, ("*",))
    s.node(3, "PrimitiveInt", [5, "fixed"], outputs=("INT",))
    inputs = {f"values.{letter}": "FLOAT,INT,BOOLEAN" for letter in "abc"}
    s.node(4, "ComfyMathExpression", ["a + c"], inputs, ("FLOAT", "INT", "BOOLEAN"))
    s.link(1, 0, 2, "input")
    s.link(3, 0, 4, "values.a")
    s.link(3, 0, 4, "values.c")
    _preview(s, 5, 2)
    _preview(s, 6, 4)
    resize = {"resize_type": "scale longer dimension", "resize_type.longer_size": 512}
    return s.file(), {
        "1": {"width": 64, "height": 32, "batch_size": 1, "color": 0},
        "2": {"input": ["1", 0], **resize, "scale_method": "area"},
        "3": {"value": 5},
        "4": {"expression": "a + c", "values.a": ["3", 0], "values.c": ["3", 0]},
        "5": {"source": ["2", 0]},
        "6": {"source": ["4", 0]},
    }


def prompts() -> Case:
    """The language of prompts: comments, and braces that were escaped."""
    s = Sketch()
    text = r"a \{cat\} /* not this */ and {one}" + "\nsee http://x.y\nend"
    s.node(1, "CLIPTextEncode", [text], {"clip": "CLIP"}, ("CONDITIONING",))
    s.node(2, "Note", ["nobody reads this"])
    s.node(3, "MarkdownNote", ["# nor this"])
    _preview(s, 4, 1)
    return s.file(), {
        "1": {"text": "a {cat}  and one\nsee http:\nend"},
        "4": {"source": ["1", 0]},
    }


CASES = {
    case.__name__: case
    for case in (
        reroutes,
        muted,
        bypassed,
        primitive,
        controls,
        set_and_get,
        dictionaries,
        subgraphs,
        same_numbers,
        dynamic_combos,
        prompts,
    )
}
