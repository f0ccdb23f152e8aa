"""One real generation per mode: a GPU, the full weights, minutes. Run with ``--gpu``."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
import samples

from events import Failed, Finished
from modes import MODES

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def full_engine():
    from engine import Engine, choose_weights

    weights, reason = choose_weights("auto")
    if weights == "demo":
        pytest.skip(f"no GPU that can hold the full weights: {reason}")
    engine = Engine(weights)
    engine.boot()
    return engine


@pytest.mark.parametrize("mode", MODES)
def test_full_weights_make_a_picture_that_is_not_noise(full_engine, tmp_path, mode):
    size = {"width": 768, "height": 512, "seconds": 2.0, "fps": 24}
    request = samples.request_for(mode, tmp_path, **size)
    *_, final = full_engine.run(request, tmp_path)
    assert isinstance(final, Finished), final if isinstance(final, Failed) else None
    with av.open(final.path) as container:
        frames = [
            f.to_ndarray(format="rgb24") for f in container.decode(container.streams.video[0])
        ]
    assert len(frames) == request.frames
    assert frames[0].shape == (request.height, request.width, 3)
    step = abs(frames[0][:, 1:].astype(int) - frames[0][:, :-1]).mean()
    assert step < 25  # neighbouring pixels of a picture resemble each other; those of noise do not
    assert Path(final.path).stat().st_size > 20_000
