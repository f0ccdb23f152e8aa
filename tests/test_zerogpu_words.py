"""ZeroGPU's refusals in words: other wordings and other versions of the package, without a process."""

from __future__ import annotations

import errno

import gradio as gr
import httpx
import pydantic
import pytest

import zerogpu_errors as refusals


def told(title: str, message: str) -> gr.Error:
    """What the package raises."""
    return gr.Error(message, title=title)


QUOTA = "ZeroGPU quota exceeded"
EXCEEDED = "You have exceeded your Pro ZeroGPU quota (90s requested vs. 12s left). Try again in "


@pytest.mark.parametrize(
    ("title", "message", "category", "words"),
    [
        (QUOTA, EXCEEDED + "0:00:42. ", "gpu_quota", ("12 s left", "90 s", "in 42 s")),
        (QUOTA, EXCEEDED + "1 day, 2:03:04. ", "gpu_quota", ("26 h 3 min",)),
        (QUOTA, EXCEEDED + "2 days, 0:00:00.25. Subscribe", "gpu_quota", ("48 h 0 min",)),
        (
            QUOTA,
            "(90.0s requested vs 12.5s left). Try again in 0:10:00",
            "gpu_quota",
            ("12 s left",),
        ),
        (QUOTA, "(90s requested vs. -5s left).", "gpu_quota", ("has 0 s left", "later")),
        (QUOTA, "Something that was never seen before", "gpu_quota", ("used up", "later")),
        (QUOTA, "No GPU was available after 60s. Try", "gpu_busy", ("within a minute", "sign in")),
        ("Error", "You have exceeded your GPU quota. Try again in 1:00:00", "gpu_quota", ("1 h",)),
        ("Error", "No GPU is available for you after 60s", "gpu_busy", ("within a minute",)),
        ("", "GPU task aborted", "gpu_lost", ("GPU task aborted", "Try again")),
        ("ZeroGPU duration refused", "larger than the maximum allowed", "gpu_quota", ("PRO",)),
        ("ZeroGPU illegal duration", "", "gpu_quota", ("so much time", "Waiting does not help")),
        ("ZeroGPU token", "Expired ZeroGPU proxy token", "gpu_session", ("Reload the page",)),
        ("ZeroGPU client error", "Internal Gradio error", "gpu_session", ("whose visit",)),
        ("ZeroGPU maintenance", "Back at noon.", "gpu_busy", ("Back at noon", "few minutes")),
        (refusals.WORKER, "AssertionError", "gpu_lost", ("AssertionError",)),
        ("Something", "else", "internal", ("else", "report it")),
    ],
)
def test_explain_says_what_and_what_to_do(title, message, category, words):
    final = refusals.explain(told(title, message))
    assert final.category == category, final
    said = f"{final.what}. {final.advice}"
    assert all(word in said for word in words), said
    assert final.advice


class Answer(pydantic.BaseModel):
    """Stands for one of the package's models, which have a title, too."""

    quota: int


@pytest.mark.parametrize(
    ("error", "category", "words"),
    [
        (httpx.ConnectError("refused"), "gpu_busy", "does not answer (ConnectError)"),
        (httpx.ReadTimeout("slow"), "gpu_busy", "does not answer (ReadTimeout)"),
        (RuntimeError("Unexpected end of stream"), "gpu_busy", "refused the call"),
        (RuntimeError("ZeroGPU API /schedule error: 502 (x)"), "gpu_busy", "refused the call"),
        (RuntimeError("Connection closed by visitor while queueing"), "interrupted", "Cancelled"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory", "no memory left"),
        (MemoryError(), "out_of_memory", "no memory left"),
        (ValueError("bug"), "internal", "ValueError: bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_explain_knows_errors_without_a_title(error, category, words):
    final = refusals.explain(error)
    assert final.category == category
    assert words in final.what


def test_explain_is_not_fooled_by_another_errors_title():
    with pytest.raises(pydantic.ValidationError) as caught:
        Answer(quota="much")
    assert refusals.explain(caught.value).category == "internal"


def test_explain_tells_nobodys_token():
    final = refusals.explain(told("ZeroGPU client error", "hf_abcdefghijklmnopqrstuvwx"))
    assert "hf_abc" not in f"{final}{final.detail}"


def test_a_worker_that_is_gone_counts_as_aborted():
    assert refusals.aborted(refusals.Gone())
    assert refusals.aborted(told(refusals.WORKER, "GPU task aborted"))
    assert not refusals.aborted(told(refusals.WORKER, "ValueError"))
