"""Runs coroutine handlers, any number at a time, on one event loop in the main thread."""

import asyncio
import sys
from collections import deque
from contextvars import copy_context

from .failure import Disconnected, LoadFailure, describe_failure, load_failed
from .output import current

STOP_S = 1.5


class AsyncRunner:
    def __init__(self, instance, call):
        self._instance = instance
        self._call = call
        # Before 3.10 a module may have bound its locks and queues to the current loop already.
        self._loop = asyncio.get_event_loop() if sys.version_info < (3, 10) else asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._stopped = self._loop.create_future()
        self._tasks = set()
        self._touched = deque()
        self._flushing = False
        self._summoned = False
        self._base = None

    def start(self, starters):
        """Runs the start hooks. Raises LoadFailure."""
        for start in starters:
            try:
                self._loop.run_until_complete(start())
            except LoadFailure:
                raise
            except Exception as thrown:
                raise load_failed(thrown) from None
        self._base = copy_context()

    def serve(self, stoppers):
        """For the main thread; returns when the instance is to leave."""
        channel = self._instance.channel
        channel.on_full = self._on_full
        self._loop.add_reader(channel.descriptor, self._on_readable)
        self._loop.call_soon(self._react)
        self._loop.run_until_complete(self._stopped)
        self._loop.run_until_complete(self._finish(stoppers))
        channel.on_full = None

    def stop(self):
        self._summon()

    def note(self, invocation):
        """Something arrived that a coroutine may wait for."""
        self._touched.append(invocation)

    def awaken(self, invocation):
        for waiter in invocation.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def relieve(self):
        """The watch has read what this loop did not get to."""
        if self._touched or self._instance.inbox:
            self._summon()

    def flush(self):
        """Writes once per turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _summon(self):
        if not self._summoned:
            self._summoned = True
            self._loop.call_soon_threadsafe(self._react)

    async def wait_async(self, invocation, ready):
        while not ready():
            if self._instance.lost:
                raise Disconnected("the engine is gone")
            waiter = self._loop.create_future()
            invocation.waiters.add(waiter)
            try:
                await waiter
            finally:
                invocation.waiters.discard(waiter)

    def _flush(self):
        self._flushing = False
        self._instance.channel.flush()

    def _on_full(self):
        self._loop.call_soon_threadsafe(self._await_writable)

    def _await_writable(self):
        self._loop.add_writer(self._instance.channel.descriptor, self._on_writable)

    def _on_writable(self):
        self._loop.remove_writer(self._instance.channel.descriptor)
        self._instance.channel.flush()

    def _on_readable(self):
        instance = self._instance
        if not instance.begin_reading():
            return
        try:
            instance.pump()
        finally:
            instance.end_reading()
        self._react()

    def _react(self):
        """Starts what arrived and wakes who waited for it."""
        instance = self._instance
        self._summoned = False
        while instance.inbox:
            self._begin(instance.inbox.popleft())
        while self._touched:
            invocation = self._touched.popleft()
            if invocation.cancelled and invocation.on_cancel is not None:
                on_cancel, invocation.on_cancel = invocation.on_cancel, None
                on_cancel()
            self.awaken(invocation)
        if instance.stopping and not self._stopped.done():
            if instance.lost:
                self._loop.remove_reader(instance.channel.descriptor)
            self._stopped.set_result(None)

    def _begin(self, invocation):
        context = self._base.copy()
        context.run(current.set, invocation)
        task = context.run(self._loop.create_task, self._run(invocation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, invocation):
        try:
            await self._call(invocation)
        except (SystemExit, KeyboardInterrupt) as thrown:
            self._exit(thrown)
            raise
        except BaseException as thrown:  # noqa: BLE001 - whatever user code raises is its outcome
            invocation.fail(describe_failure(thrown))
        else:
            invocation.end()
        self.flush()

    def _exit(self, thrown):
        code = getattr(thrown, "code", 1)
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        self._instance.channel.flush()

    async def _finish(self, stoppers):
        if self._tasks and not self._instance.lost:
            await asyncio.wait(self._tasks, timeout=STOP_S)
        for stop in stoppers:
            try:
                result = stop()
                if hasattr(result, "__await__"):
                    await asyncio.wait_for(result, STOP_S)
            except Exception:  # noqa: BLE001 - a failing hook must not keep the others from running
                sys.excepthook(*sys.exc_info())
