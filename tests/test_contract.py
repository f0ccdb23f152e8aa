"""The surface of ComfyUI that the studio stands on; when a pin moves, this names what changed."""

from __future__ import annotations

import inspect

import pytest

pytestmark = pytest.mark.comfy


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_executor_takes_what_we_give_it(engine):
    import execution

    assert parameters(execution.PromptExecutor.__init__)[:4] == [
        "self",
        "server",
        "cache_type",
        "cache_args",
    ]
    assert parameters(execution.PromptExecutor.execute) == [
        "self",
        "prompt",
        "prompt_id",
        "extra_data",
        "execute_outputs",
    ]
    assert execution.CacheType.RAM_PRESSURE
    assert hasattr(execution.PromptExecutor, "reset")


def test_validation_returns_what_we_read(engine):
    import execution

    assert parameters(execution.validate_inputs)[:4] == ["prompt_id", "prompt", "item", "validated"]
    assert inspect.iscoroutinefunction(execution.validate_inputs)


def test_events_pass_through_one_method(engine):
    import server

    assert parameters(server.PromptServer.send_sync) == ["self", "event", "data", "sid"]
    assert server.PromptServer.instance.client_id in (None, "studio")


def test_the_progress_hook_has_our_signature(engine):
    import comfy.utils

    source = inspect.getsource(comfy.utils.ProgressBar.update_absolute)
    assert "self.hook(self.current, self.total, preview, node_id=self.node_id)" in source


def test_node_errors_carry_what_we_show(engine):
    import execution

    source = inspect.getsource(execution.PromptExecutor.handle_execution_error)
    for key in ("node_id", "node_type", "exception_message", "exception_type", "traceback"):
        assert f'"{key}"' in source, key


@pytest.mark.parametrize(
    "name",
    [
        "interrupt_current_processing",
        "throw_exception_if_processing_interrupted",
        "unload_all_models",
        "soft_empty_cache",
        "get_torch_device",
        "get_torch_device_name",
        "get_total_memory",
        "get_free_memory",
        "get_all_torch_devices",
        "is_nvidia",
        "is_wsl",
        "total_ram",
        "torch_version_numeric",
    ],
)
def test_model_management_still_has(engine, name):
    import comfy.model_management as mm

    assert hasattr(mm, name)


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "lowvram",
        "highvram",
        "disable_all_custom_nodes",
        "whitelist_custom_nodes",
        "front_end_root",
        "disable_api_nodes",
        "reserve_vram",
        "vram_headroom",
    ],
)
def test_command_line_options_still_exist(engine, name):
    from comfy.cli_args import args

    assert hasattr(args, name)


def test_only_the_allowed_packs_are_loaded(engine):
    import nodes

    import bootstrap
    import comfyhost

    loaded = {
        module.rsplit("/", 1)[-1]
        for module in nodes.LOADED_MODULE_DIRS.values()
        if "custom_nodes" in module
    }
    assert loaded == {*bootstrap.packs_allowed(), comfyhost.SHIM}


def test_nothing_listens_on_a_socket(engine):
    import psutil

    assert [c for c in psutil.Process().net_connections() if c.status == "LISTEN"] == []


def test_demo_weights_are_the_only_ones_visible(engine):
    import folder_paths

    import bootstrap

    for kind in ("diffusion_models", "loras", "vae", "text_encoders", "checkpoints"):
        assert folder_paths.get_folder_paths(kind) == [str(bootstrap.demo_dir() / kind)]


def test_the_captured_schema_still_describes_this_comfyui(engine):
    import nodes

    import schema

    captured, live = set(schema.load()), set(nodes.NODE_CLASS_MAPPINGS)
    assert not captured - live, f"gone: {sorted(captured - live)[:5]}"
