"""The virtual clock keeps the order of real time and takes none of it."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

import pytest

from segue.engine.clock import Clock, SystemClock, wait_for
from segue.testing.clock import START, Crashed, NothingLeft, VirtualClock, VirtualLoop


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_both_clocks_are_clocks(clock: VirtualClock) -> None:
    clocks: list[Clock] = [clock, SystemClock()]
    assert all(one.now().utcoffset() == timedelta(0) for one in clocks)


def test_a_day_passes_at_once(clock: VirtualClock) -> None:
    clock.run(clock.sleep(86_400))
    assert clock.monotonic() == 86_400
    assert clock.now() == START + timedelta(days=1)


def test_timers_of_all_tasks_go_off_in_the_order_of_their_times(clock: VirtualClock) -> None:
    seen: list[tuple[float, str]] = []

    async def ticks(name: str, every: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(every)
            seen.append((clock.monotonic(), name))

    async def both() -> None:
        await asyncio.gather(ticks("slow", 60, 2), ticks("fast", 25, 4))

    clock.run(both())
    assert seen == [(25, "fast"), (50, "fast"), (60, "slow"), (75, "fast"), (100, "fast"), (120, "slow")]


def test_asyncio_timeouts_are_virtual_too(clock: VirtualClock) -> None:
    async def never() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await asyncio.Event().wait()

    clock.run(never())
    assert clock.monotonic() == 600


def test_idle_returns_when_everything_that_can_happen_now_has_happened(clock: VirtualClock) -> None:
    steps: list[int] = []

    async def busy() -> None:
        for number in range(100):
            steps.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(busy())
        await clock.idle()
        assert task.done()

    clock.run(main())
    assert len(steps) == 100


def test_a_job_in_a_thread_does_not_lose_against_a_timer(clock: VirtualClock) -> None:
    async def main() -> str:
        async with asyncio.timeout(5):
            return await asyncio.to_thread(_slow)

    assert clock.run(main()) == "done"


def _slow() -> str:
    time.sleep(0.05)
    return "done"


def test_a_child_process_does_not_lose_against_a_timer(clock: VirtualClock) -> None:
    async def main() -> int:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(0.05)")
        async with asyncio.timeout(60):
            return await child.wait()

    assert clock.run(main()) == 0
    assert 0.05 <= clock.monotonic() < 60


def test_time_jumps_again_once_the_child_has_ended(clock: VirtualClock) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        await child.wait()
        await clock.sleep(86_400)

    clock.run(main())
    assert clock.monotonic() >= 86_400


def test_an_open_socket_is_waited_for_in_real_time(clock: VirtualClock) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(_slow)
        writer.write(await reader.readline())
        writer.close()

    async def main() -> bytes:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            answer = await reader.readline()
            writer.close()
            return answer

    assert clock.run(main()) == b"hello\n"


def test_a_test_that_would_hang_says_so(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.testing.clock.PATIENCE", 0.01)
    with pytest.raises(NothingLeft):
        clock.run(_wait_for_ever())


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


def test_time_goes_on_over_a_new_loop(clock: VirtualClock) -> None:
    clock.run(clock.sleep(10))
    clock.run(clock.sleep(5))
    assert clock.monotonic() == 15


def test_a_crashed_loop_ends_nothing_properly(clock: VirtualClock) -> None:
    tidied: list[str] = []

    async def works() -> None:
        try:
            await clock.sleep(60)
        finally:
            tidied.append("worker")

    async def main() -> None:
        task = asyncio.create_task(works())
        await clock.sleep(1)
        asyncio.get_running_loop().crash()  # type: ignore[attr-defined]
        await task

    with pytest.raises(Crashed):
        clock.run(main())
    assert tidied == []
    assert clock.monotonic() == 1


def test_what_is_left_is_cancelled_at_the_end(clock: VirtualClock) -> None:
    tidied: list[str] = []

    async def works() -> None:
        try:
            await clock.sleep(60)
        finally:
            tidied.append("worker")

    async def main() -> None:
        task = asyncio.create_task(works())
        await clock.sleep(1)
        assert not task.done()

    clock.run(main())
    assert tidied == ["worker"]


def test_the_clock_of_a_running_loop_is_found(clock: VirtualClock) -> None:
    async def main() -> VirtualClock:
        return VirtualClock.current()

    assert clock.run(main()) is clock
    with pytest.raises(RuntimeError, match="VirtualLoop"):
        asyncio.run(main())


def test_a_loop_without_a_clock_makes_its_own() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(asyncio.sleep(3600))


def test_wait_for_gives_the_result(clock: VirtualClock) -> None:
    async def later() -> str:
        await clock.sleep(9)
        return "result"

    assert clock.run(wait_for(clock, later(), 10)) == "result"
    assert clock.monotonic() == 9


def test_wait_for_raises_what_was_raised(clock: VirtualClock) -> None:
    async def fails() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        clock.run(wait_for(clock, fails(), 10))


def test_wait_for_has_ended_what_it_gives_up(clock: VirtualClock) -> None:
    tidied: list[float] = []

    async def slow() -> None:
        try:
            await clock.sleep(60)
        finally:
            await clock.sleep(2)
            tidied.append(clock.monotonic())

    with pytest.raises(TimeoutError):
        clock.run(wait_for(clock, slow(), 10))
    assert tidied == [12]


def test_wait_for_passes_a_cancellation_on(clock: VirtualClock) -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await clock.sleep(60)
        finally:
            ended.append("inner")

    async def main() -> None:
        task = asyncio.create_task(wait_for(clock, slow(), 10))
        await clock.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["inner"]

    clock.run(main())
