"""A custom-node folder without nodes: ComfyUI's server says how long a run's nodes themselves took.

The bench gives it to the server it compares with, so that both sides are clocked at the same place.
"""

import time

import execution

NODE_CLASS_MAPPINGS = {}


def install() -> None:
    """Time every node the executor calls; send the sum as ``bench_clock`` before a run's success."""
    call, message = execution.get_output_data, execution.PromptExecutor.add_message
    spent = [0.0]

    async def timed(*args, **options):
        begun = time.perf_counter()
        try:
            return await call(*args, **options)
        finally:
            spent[0] += time.perf_counter() - begun

    def say(self, event, data, broadcast):
        if event == "execution_start":
            spent[0] = 0.0
        elif event == "execution_success":
            told = {"nodes": spent[0], "prompt_id": data["prompt_id"]}
            self.server.send_sync("bench_clock", told, self.server.client_id)
        return message(self, event, data, broadcast)

    execution.get_output_data, execution.PromptExecutor.add_message = timed, say


install()
