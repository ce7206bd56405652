"""The life of an instance: wait for a specialisation, load the handler, run what comes, leave when told.

Reading the channel is a role that one thread has at a time (`reading`, guarded by `changed`): whoever has nothing better to do, or
waits for a part of a body, takes it. So the usual invocation is read, run and answered by one thread. `watch.py` steps in when
everybody is busy.
"""

import gc
import os
import sys
import threading
from _signal import SIG_IGN, SIGINT, signal
from _thread import start_new_thread
from collections import deque
from json import dumps, loads
from time import monotonic, sleep

from . import frames, output
from .channel import Channel
from .failure import LoadFailure, report
from .invocation import Invocation
from .load import load_handler, prepare_process, rehearse
from .signature import is_async
from .sync_runner import SyncRunner
from .watch import Watch

# The engine waits 2 s after SHUTDOWN; what has not ended by then is cut off here, cleanly.
LEAVE_S = 1.8
# Exit status when the engine broke the rules of the wire.
BROKEN_RULES_STATUS = 76


class Instance:
    """Also what handler adapters get, see docs/adapters.md."""

    def __init__(self, descriptor):
        self.channel = Channel(descriptor)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.reading = False
        # How often the channel was read: shows the watch whether somebody still does.
        self.reads = 0
        self.invocations = {}
        self.inbox = deque()
        self.runner = None
        self.loading = False
        self.stopping = False
        self.lost = False
        self.exit_status = 0
        self.watch = None
        self._has_time = False
        # What the handler string names inside its module; None: nothing.
        self.handler_name = None
        self._starters = []
        self._stoppers = []
        self._specialisation = None
        # Invocations that came together with the specialisation, and when; they run once it is done.
        self._early = []

    # For adapters.

    def on_start(self, start):
        """`async def start()` runs on the event loop before the first invocation; what it raises fails the load."""
        self._starters.append(start)

    def on_stop(self, stop):
        """`stop()`, plain or async, runs when the instance is told to leave."""
        self._stoppers.append(stop)

    # The main thread.

    def live(self, adapters=()):
        """`adapters`: paths of those to load when the engine asks by a PING whether a spare is well: then there is time."""
        signal(SIGINT, SIG_IGN)
        output.install(self.channel)
        gc.disable()
        while self._specialisation is None and not self.stopping:
            self.channel.readable()
            self.pump()
            if self._has_time and self.watch is None and self._specialisation is None:
                rehearse(adapters)
                self.watch = Watch(self)
        try:
            if not self.stopping:
                self._serve()
            self.leave()
        except SystemExit as thrown:
            self.stop(_status(thrown.code))
            self.channel.flush()
            raise SystemExit(self.exit_status) from None

    def _serve(self):
        started = monotonic()
        self.loading = True
        self.watch = self.watch or Watch(self)
        self.watch.wake()
        try:
            model, self.runner = self._load(self._specialisation)
            self.runner.start(self._starters)
        except LoadFailure as thrown:
            self._answer_load(frames.LOAD_FAILED, thrown.error)
            self.stop(1)
            return
        load_ms = round((monotonic() - started) * 1000, 3)
        gc.freeze()
        gc.enable()
        with self.changed:
            self.loading = False
            for invocation, came in self._early:
                # Loading takes nothing of an invocation's time.
                invocation.deadline_ms += round((monotonic() - came) * 1000)
        self._answer_load(frames.SPECIALISED, {"handlerModel": model, "loadMs": load_ms})
        self._drop_cancelled()
        self.runner.serve(self._stoppers)

    def _load(self, specialisation):
        self.function = specialisation["function"]
        self.handler = specialisation["handler"]
        self.code_path = specialisation["codePath"]
        self.memory_bytes_max = specialisation["memoryBytesMax"]
        self.timeout_ms = specialisation["timeoutMs"]
        self.concurrency = specialisation["instanceConcurrency"]
        prepare_process(specialisation)
        adapter, handler = load_handler(specialisation, self)
        call = adapter.adapt(handler, self)
        if is_async(call):
            # asyncio takes tens of milliseconds to import, which other handlers need not pay.
            from .async_runner import AsyncRunner

            return adapter.MODEL, AsyncRunner(self, call)
        return adapter.MODEL, SyncRunner(self, call)

    def _answer_load(self, kind, payload):
        sys.stdout.flush()
        sys.stderr.flush()
        self.channel.queue(frames.frame(kind, 0, dumps(payload).encode()))
        self.channel.flush()

    # Leaving.

    def stop(self, status):
        """Asks the main thread to leave with this status, and makes sure that the process ends even if it cannot."""
        with self.changed:
            if self.stopping:
                return
            self.stopping = True
            self.exit_status = status
            self.changed.notify_all()
        self.channel.wake()
        if self.runner is not None:
            self.runner.stop()

        def leave_late():
            sleep(LEAVE_S)
            os._exit(self.exit_status)

        start_new_thread(leave_late, ())

    def leave(self):
        self.channel.flush()
        raise SystemExit(self.exit_status)

    # The channel.

    def begin_reading(self):
        with self.changed:
            if self.reading:
                return False
            self.reading = True
            return True

    def end_reading(self):
        with self.changed:
            self.reading = False
            self.changed.notify_all()

    def pump(self):
        """Reads what is there and acts on it. Only for the thread that has the reading role."""
        self.reads += 1
        try:
            arrived = self.channel.receive()
            if arrived is None:
                self.lost = True
                self.stop(0)
                return
            for kind, stream, flags, payload in arrived:
                self._handle(kind, stream, flags, payload)
        except frames.BrokenRules as thrown:
            report("the engine broke the rules of the connection: %s" % thrown)
            os._exit(BROKEN_RULES_STATUS)

    def forget(self, invocation):
        self.invocations.pop(invocation.stream, None)

    def _handle(self, kind, stream, flags, payload):
        if kind == frames.INVOKE:
            self._accept(stream, flags, payload)
        elif kind == frames.PING:
            self._has_time = True
            self.channel.queue(frames.frame(frames.PONG, 0, payload))
            self.channel.flush()
        elif kind == frames.SHUTDOWN:
            self.stop(0)
        elif kind == frames.SPECIALISE:
            if self._specialisation is not None:
                raise frames.BrokenRules("a second SPECIALISE")
            self._specialisation = _parse(payload)
        else:
            invocation = self.invocations.get(stream)
            if invocation is not None:
                self._pass(invocation, kind, flags, payload)

    def _accept(self, stream, flags, payload):
        if self._specialisation is None or stream in self.invocations:
            raise frames.BrokenRules("INVOKE of stream %d out of turn" % stream)
        size = frames.u32(payload) if len(payload) >= 4 else len(payload)
        if 4 + size > len(payload) or len(payload) - 4 - size > frames.WINDOW_BYTES:
            raise frames.BrokenRules("INVOKE with sizes that do not fit")
        try:
            head = _parse(payload[4 : 4 + size])
            invocation = Invocation(self, stream, head, payload[4 + size :], bool(flags & frames.LAST))
        except (KeyError, TypeError) as thrown:
            raise frames.BrokenRules("INVOKE without %s" % thrown) from None
        self.invocations[stream] = invocation
        self.inbox.append(invocation)
        if self.runner is None or self.loading:
            self._keep_early(invocation)
        else:
            self.watch.wake()

    def _drop_cancelled(self):
        """What was cancelled while the handler was loaded is not begun."""
        for invocation, _ in self._early:
            with self.changed:
                begun = not invocation.cancelled or invocation not in self.inbox
                if not begun:
                    self.inbox.remove(invocation)
            if not begun:
                invocation.end()
        self._early.clear()
        self.channel.flush()

    def _keep_early(self, invocation):
        with self.changed:
            if self.runner is None or self.loading:
                self._early.append((invocation, monotonic()))

    def _pass(self, invocation, kind, flags, payload):
        with self.changed:
            if kind == frames.DATA:
                if not invocation.receive_data(payload, bool(flags & frames.LAST)):
                    raise frames.BrokenRules("DATA beyond the window or the end of stream %d" % invocation.stream)
            elif kind == frames.CREDIT:
                invocation.receive_credit(frames.u32(payload))
            else:
                invocation.cancelled = True
            if self.runner is not None:
                self.runner.note(invocation)


def _parse(payload):
    try:
        return loads(payload)
    except (ValueError, RecursionError):
        raise frames.BrokenRules("JSON that cannot be read") from None


def _status(code):
    if code is None:
        return 0
    return code if isinstance(code, int) else 1
