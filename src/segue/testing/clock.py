"""Virtual time: minutes of a rollout pass in milliseconds, in the order in which they would really pass.

Rule 1: time jumps only when every task waits for a timer, straight to the next one. So nothing has to be
advanced by hand; `await clock.sleep(60)` in a test lets a minute happen.
Rule 2: what happens outside the loop takes the time it takes. While a job runs in an executor, a child
process lives or a socket is open, virtual time passes as real time does. A thread that is started in any
other way cannot be seen.
Rule 3: when nothing can ever happen any more, the loop says so instead of hanging.

    def test_a_minute_passes_at_once() -> None:
        clock = VirtualClock()
        clock.run(asyncio.sleep(60))
        assert clock.monotonic() == 60

With pytest-asyncio, in conftest.py; a test then finds its clock with `VirtualClock.current()`:

    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": VirtualLoop}
"""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = datetime(2030, 1, 1, tzinfo=UTC)
PATIENCE = 5.0
"""How long, in real seconds, a loop without a timer waits for a thread that it does not know."""


class NothingLeft(RuntimeError):
    """Every task waits for another one: the test would hang for ever."""


class Crashed(BaseException):
    """The loop was stopped in the middle, as `kill -9` would: no task was cancelled, none ran to its end."""


class VirtualClock:
    """A `Clock` that goes on when everything waits. It outlives its loops, as time outlives a control plane."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0

    @classmethod
    def current(cls) -> VirtualClock:
        """The clock of the running loop, which must be a `VirtualLoop`."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise RuntimeError("this test does not run on a VirtualLoop")
        return loop.clock

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def follow(self) -> None:
        """There is no other clock to follow."""

    def set(self, by: timedelta) -> None:
        """Let the time of day be so much later, or earlier, than it is."""
        self._start += by

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, when all that happens before then has happened."""
        await asyncio.sleep(seconds)

    async def idle(self) -> None:
        """Return when nothing is left to do at this moment but to wait. A microsecond passes."""
        await asyncio.sleep(1e-6)

    def pass_by(self, seconds: float) -> None:
        """Let `seconds` pass without letting anything happen, as if the machine had been asleep."""
        self._elapsed += seconds

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """The result of `main` in a new loop that keeps this time. Raises Crashed if the loop was crashed."""
        loop = VirtualLoop(self)
        task = loop.create_task(main)
        try:
            return loop.run_until_complete(task)
        except Crashed:
            _keep(asyncio.all_tasks(loop))
            raise
        finally:
            loop.wind_up()


def _keep(wreck: set[asyncio.Task[Any]]) -> None:
    """Keep the tasks of a crashed loop for ever: collected, they would run what they have in `finally`."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(wreck))


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on the time of `clock`."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        self.crashed = False
        self._outside = 0
        self._children: list[asyncio.SubprocessTransport] = []
        self._waiting = _Waiting(self)
        super().__init__(self._waiting)
        self._own_files = self._waiting.files

    def time(self) -> float:
        """The time of the clock, in seconds."""
        return self.clock.monotonic()

    def crash(self) -> None:
        """Stop as soon as the running task waits, and for good. `VirtualClock.run` raises Crashed."""
        self.crashed = True

    def wind_up(self) -> None:
        """Cancel what is left, wait until it has ended, and close the loop; a crashed loop is only closed."""
        try:
            if not self.crashed:
                self.run_until_complete(self._cancel_all())
                self.run_until_complete(self.shutdown_asyncgens())
                self.run_until_complete(self.shutdown_default_executor())
        finally:
            self.close()

    async def _cancel_all(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    @property
    def works_outside(self) -> bool:
        """Whether something is under way that takes real time."""
        self._children = [child for child in self._children if child.get_returncode() is None]
        return bool(self._outside or self._children or self._waiting.files > self._own_files)

    @contextmanager
    def _work_outside(self) -> Iterator[None]:
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """As everywhere; time passes as it really does until the job is done."""
        job = super().run_in_executor(executor, func, *args)
        self._outside += 1
        job.add_done_callback(self._job_done)
        return job

    def _job_done(self, job: asyncio.Future[Any]) -> None:
        self._outside -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As everywhere; a thread does it."""
        with self._work_outside():
            await super().shutdown_default_executor(*args)

    async def subprocess_exec(self, *args: Any, **options: Any) -> Any:
        """As everywhere; time passes as it really does until the child has ended."""
        return await self._with_child(super().subprocess_exec(*args, **options))

    async def subprocess_shell(self, *args: Any, **options: Any) -> Any:
        """As everywhere; time passes as it really does until the child has ended."""
        return await self._with_child(super().subprocess_shell(*args, **options))

    async def _with_child(self, starting: Coroutine[Any, Any, tuple[Any, Any]]) -> tuple[Any, Any]:
        with self._work_outside():
            transport, protocol = await starting
        self._children.append(transport)
        return transport, protocol


class _Waiting(selectors.DefaultSelector):
    """What the loop waits with: instead of waiting for a timer it moves the clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    @property
    def files(self) -> int:
        """How many sockets and pipes are waited for, the loop's own among them."""
        return len(self.get_map() or ())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now, or after a jump of at most `timeout`."""
        if self._loop.crashed:
            raise Crashed
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self._loop.works_outside:
            return self._really(timeout)
        if timeout is not None:
            self._loop.clock.pass_by(timeout)
            return []
        ready = super().select(PATIENCE)
        if not ready:
            raise NothingLeft("every task waits for another one: nothing will ever happen any more")
        return ready

    def _really(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.monotonic()
        ready = super().select(timeout)
        passed = time.monotonic() - began
        self._loop.clock.pass_by(passed if timeout is None else min(passed, timeout))
        return ready
