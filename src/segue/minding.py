"""Tasks that go on beside: a defect in one ends the control plane, and is never merely the end of the task.

What is half-done is not gone on with: the process ends, and a new one finds out how things are. A task that died
unseen would leave an instance that nobody looks after, or an Envoy that nobody starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

FAILED = "the control plane failed"
"""What the event loop's exception handler is told of such a defect."""


def beside(work: Coroutine[Any, Any, T], whose: str) -> asyncio.Task[T]:
    """Let `work`, done for `whose` sake, go on beside."""
    task = asyncio.create_task(work)
    task.add_done_callback(partial(_ended, whose))
    return task


def _ended(whose: str, task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        failure = {"message": f"{whose}: {FAILED}", "exception": error, "task": task}
        asyncio.get_running_loop().call_exception_handler(failure)
