"""Runs plain handlers: in the main thread, and in more threads when the function allows more than one invocation at a time.

The thread that reads an invocation runs it. Whether another thread takes over the reading at once depends on how long handlers have
taken: below a millisecond, switching threads costs more than waiting. The watch corrects that when a handler turns out slow.
"""

import sys
import threading
from contextvars import copy_context
from time import perf_counter

from .failure import Disconnected, describe_failure
from .output import current

SLOW_S = 0.001
# One slow run (a first connection, say) shall not count for a hundred fast ones.
SAMPLE_S_MAX = 0.005


class SyncRunner:
    def __init__(self, instance, call):
        self._instance = instance
        self._call = call
        self._threads = 1
        self._threads_max = max(1, instance.concurrency)
        self._parked = 0
        # Threads without work and without the reading role wait here.
        self._work = threading.Condition(instance.lock)
        self._mean_s = 2 * SLOW_S
        self._base = None

    def start(self, starters):
        if starters:
            raise RuntimeError("on_start needs an asynchronous handler")
        self._base = copy_context()

    def serve(self, stoppers):
        """For the main thread; returns when the instance is to leave."""
        self._loop()
        with self._instance.changed:
            while self._instance.invocations and not self._instance.lost:
                self._instance.changed.wait(0.05)
        for stop in stoppers:
            stop()

    def stop(self):
        with self._work:
            self._work.notify_all()

    def flush(self):
        self._instance.channel.flush()

    def wait(self, ready):
        """Until `ready()`; reads the channel meanwhile when nobody else does. Raises Disconnected when the engine is gone."""
        instance = self._instance
        self.flush()
        while True:
            with instance.changed:
                if ready():
                    return
                if instance.lost:
                    raise Disconnected("the engine is gone")
                if instance.reading:
                    instance.changed.wait()
                    continue
                instance.reading = True
            self._read()
            self.relieve()

    def note(self, invocation):
        """Something arrived for it: whoever waits is told when the reading role is given back."""

    def relieve(self):
        """Brings in as many threads as there are invocations that nobody has begun."""
        for _ in range(len(self._instance.inbox)):
            if not self._bring_thread():
                return

    def _loop(self):
        while True:
            invocation = self._next()
            if invocation is None:
                return
            self._run(invocation)

    def _next(self):
        instance = self._instance
        while True:
            with instance.changed:
                if instance.lost:
                    return None
                if instance.inbox:
                    invocation = instance.inbox.popleft()
                    break
                if instance.stopping:
                    return None
                if instance.reading:
                    # Whoever wakes us counts us out.
                    self._parked += 1
                    self._work.wait()
                    continue
                instance.reading = True
            if instance.channel.waiting:
                instance.channel.flush()
            self._read()
        if self._threads_max > 1 and self._mean_s > SLOW_S:
            self._bring_thread()
        return invocation

    def _read(self):
        instance = self._instance
        try:
            instance.channel.readable()
            instance.pump()
        finally:
            instance.end_reading()

    def _run(self, invocation):
        started = perf_counter()
        try:
            self._base.copy().run(self._enter, invocation)
        except SystemExit:
            return
        except BaseException as thrown:  # noqa: BLE001 - whatever user code raises is its outcome
            invocation.fail(describe_failure(thrown))
        else:
            invocation.end()
        took_s = min(perf_counter() - started, SAMPLE_S_MAX)
        self._mean_s += (took_s - self._mean_s) * 0.1
        # With more to run at once the answers leave together; the watch sees to it that none waits for long.
        if not self._instance.inbox or self._mean_s > SLOW_S:
            self._instance.channel.flush()

    def _enter(self, invocation):
        current.set(invocation)
        try:
            self._call(invocation)
        except SystemExit as thrown:
            self._exit(thrown)
            raise

    def _exit(self, thrown):
        """sys.exit in a handler ends the process: what it wrote goes out, the rest is the engine's to report."""
        if thrown.code is not None and not isinstance(thrown.code, int):
            print(thrown.code, file=sys.stderr)
            thrown.code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        self._instance.channel.flush()
        self._instance.lost = True
        self._instance.stop(thrown.code or 0)

    def _bring_thread(self):
        with self._work:
            if self._parked > 0:
                self._parked -= 1
                self._work.notify()
                return True
            if self._threads >= self._threads_max or self._instance.stopping:
                return False
            self._threads += 1
        try:
            threading.Thread(target=self._loop, name="koine-handler-%d" % self._threads, daemon=True).start()
            return True
        except RuntimeError:
            # The sandbox allows no more threads; those that are there do the work.
            self._threads_max = self._threads = self._threads - 1
            return False
