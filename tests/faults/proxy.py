"""A TCP proxy on loopback that reads the headers of Kafka requests and does what it is told.

A request begins with its length (int32), API key, API version (int16 each) and correlation id
(int32); answers come in the order of their requests.
"""

import asyncio
import contextlib
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

PRODUCE, OFFSET_COMMIT, END_TXN = 0, 8, 26
CONNECT_SECONDS = 10.0


@dataclass(slots=True)
class Rule:
    """What happens to the next request of one API key.

    - "lose the request": the broker never sees it;
    - "lose the answer": the broker has done it, the client never hears;
    - "hold": kept until `deliver`, which works also when the client is gone;
    - "delay": passed on after `seconds`;
    - "tell": `told` is called with the client's port once the request has gone out, or, with
      `at_answer`, once its answer is there and before the client can see it.

    `times` rules that many requests. `met` is set when it has ruled one.
    """

    api: int
    action: str
    seconds: float = 0.0
    times: int = 1
    at_answer: bool = False
    told: Callable[[int], None] | None = None
    matches: Callable[[bytes], bool] = lambda _: True
    met: threading.Event = field(default_factory=threading.Event)
    held: bytes | None = None


@dataclass(slots=True)
class _Asked:
    correlation: int
    rule: Rule | None


class Proxy:
    """Listens at `port`, passes on to `upstream`; its rules are set from any thread."""

    def __init__(self, port: int, upstream: int) -> None:
        self.port = port
        self._upstream = upstream
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def bootstrap(self) -> str:
        """Its address, for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._client, "127.0.0.1", self.port))

    def stop(self) -> None:
        """Break every connection."""

        async def end() -> None:
            self._server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CONNECT_SECONDS)
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CONNECT_SECONDS)

    @contextlib.contextmanager
    def ruling(self, rule: Rule) -> Iterator[Rule]:
        """Let the rule stand until it has ruled, at most as long as this lasts."""
        self._rules.append(rule)
        try:
            yield rule
        finally:
            with contextlib.suppress(ValueError):
                self._rules.remove(rule)

    def deliver(self, rule: Rule) -> int:
        """Send what a rule holds, over a connection of its own; returns the answer's error code."""
        assert rule.held is not None
        return self._wait(self._deliver(rule.held))

    async def _deliver(self, request: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        writer.write(request)
        answer = await _frame(reader)
        writer.close()
        (version,) = struct.unpack_from(">h", request, 6)
        # Correlation id, from version 3 on an empty set of tags, throttle time, error code.
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + (1 if version >= 3 else 0) + 4)
        return error

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        asked: deque[_Asked] = deque()
        down = asyncio.ensure_future(self._answers(upstream[0], writer, asked))
        try:
            await self._requests(reader, upstream[1], asked, writer.get_extra_info("peername")[1])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            down.cancel()
            upstream[1].close()
            writer.close()

    async def _requests(self, reader, writer, asked: deque[_Asked], port: int) -> None:
        while True:
            request = await _frame(reader)
            api, _, correlation = struct.unpack_from(">hhi", request, 4)
            rule = self._ruling(api, request)
            if rule is not None and rule.action == "lose the request":
                continue
            if rule is not None and rule.action == "hold":
                rule.held = request
                rule.met.set()
                continue
            if rule is not None and rule.action == "delay":
                await asyncio.sleep(rule.seconds)
            asked.append(_Asked(correlation, rule))
            writer.write(request)
            await writer.drain()
            if rule is not None and rule.told is not None and not rule.at_answer:
                await self._tell(rule, port)

    @staticmethod
    async def _tell(rule: Rule, port: int) -> None:
        assert rule.told is not None
        await asyncio.to_thread(rule.told, port)
        rule.met.set()

    def _ruling(self, api: int, request: bytes) -> Rule | None:
        for rule in self._rules:
            if rule.api == api and rule.matches(request):
                rule.times -= 1
                if rule.times == 0:
                    self._rules.remove(rule)
                if rule.action not in {"hold", "tell"}:
                    rule.met.set()
                return rule
        return None

    async def _answers(self, reader, writer: asyncio.StreamWriter, asked: deque[_Asked]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                answer = await _frame(reader)
                (correlation,) = struct.unpack_from(">i", answer, 4)
                # A request that wants no answer stands before those that do.
                while asked and asked[0].correlation != correlation:
                    asked.popleft()
                rule = asked.popleft().rule if asked else None
                if rule is not None and rule.action == "lose the answer":
                    continue
                if rule is not None and rule.told is not None and rule.at_answer:
                    await self._tell(rule, writer.get_extra_info("peername")[1])
                writer.write(answer)
                await writer.drain()
        # The broker is gone: so is this connection.
        writer.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head, "big"))
