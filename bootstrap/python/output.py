"""sys.stdout and sys.stderr of user code: text becomes LOG frames of the invocation that is running in this context.

The descriptors 1 and 2 stay what they are; what child processes and C code write there is read by the engine as output of the
instance.
"""

import atexit
import io
import os
import sys
import threading
from _contextvars import ContextVar
from time import time

from .frames import log_frame

# A line is sent when it is complete, or when this much of it is there.
LINE_BYTES_MAX = 16 * 1024
CHUNK_BYTES_MAX = 64 * 1024

# The invocation that the running code belongs to.
current = ContextVar("koine_invocation")


class Outside:
    """Stands for an invocation where there is none."""

    stream = 0
    ended = False

    def __init__(self):
        self.partial = {}


def install(channel):
    """Replaces sys.stdout and sys.stderr, and makes threads carry the invocation of whoever starts them."""
    outside = Outside()
    sys.stdout = _Text(_Bytes(channel, outside, 1), "<stdout>")
    sys.stderr = _Text(_Bytes(channel, outside, 2), "<stderr>")
    _patch_threads()
    _patch_exit(channel)
    # First in, so last out: after the exit hooks of user code.
    atexit.register(channel.flush)
    os.register_at_fork(after_in_child=lambda: _in_child(channel))


def flush_partial(channel, invocation):
    """Sends what an invocation wrote without a newline at the end."""
    for source, partial in list(invocation.partial.items()):
        invocation.partial.pop(source, None)
        if partial:
            channel.queue(log_frame(invocation.stream, time() * 1000, source, bytes(partial)))


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`: cuts into lines per invocation, so that output that overlaps stays apart."""

    def __init__(self, channel, outside, source):
        self._channel = channel
        self._outside = outside
        self._source = source

    def write(self, chunk):
        chunk = bytes(chunk)
        # The channel's lock, so that nothing is sent for an invocation after its end.
        with self._channel.lock:
            owner = self._owner()
            partial = owner.partial.pop(self._source, b"")
            whole = partial + chunk if partial else chunk
            end = whole.rfind(b"\n") + 1
            if len(whole) - end > LINE_BYTES_MAX:
                end = len(whole)
            if end < len(whole):
                owner.partial[self._source] = whole[end:]
            if end > 0:
                self._send(owner, whole[:end])
        return len(chunk)

    def flush(self):
        with self._channel.lock:
            owner = self._owner()
            partial = owner.partial.pop(self._source, b"")
            if partial:
                self._send(owner, partial)

    def writable(self):
        return True

    def isatty(self):
        return False

    def fileno(self):
        return self._source

    def close(self):
        """Stays open, like the descriptor beneath."""

    def _owner(self):
        invocation = current.get(None)
        return self._outside if invocation is None or invocation.ended else invocation

    def _send(self, owner, text):
        now_ms = time() * 1000
        for at in range(0, len(text), CHUNK_BYTES_MAX):
            part = text[at : at + CHUNK_BYTES_MAX]
            self._channel.queue_log(log_frame(owner.stream, now_ms, self._source, part))


class _Text(io.TextIOBase):
    """Text on top of `_Bytes` without a buffer of its own, which invocations would have to share."""

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    write_through = True
    mode = "w"

    def __init__(self, raw, name):
        self.buffer = raw
        self.name = name

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError("write() argument must be str, not %s" % type(text).__name__)
        self.buffer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self):
        self.buffer.flush()

    def writable(self):
        return True

    def isatty(self):
        return False

    def fileno(self):
        return self.buffer.fileno()

    def close(self):
        """Stays open, like the descriptor beneath."""

    def detach(self):
        raise io.UnsupportedOperation("detach")

    def reconfigure(self, **_):
        """Accepted for the sake of code that wants UTF-8 or line buffering, which is what it has."""


def _patch_threads():
    """A new thread starts with an empty context: hand the invocation over, and nothing else."""
    start = threading.Thread.start

    def start_with_invocation(thread):
        invocation = current.get(None)
        if invocation is not None:
            run = thread.run

            def run_within():
                thread.__dict__.pop("run", None)
                current.set(invocation)
                run()

            thread.run = run_within
        futures = sys.modules.get("concurrent.futures.thread")
        if futures is not None:
            _patch_executor(futures.ThreadPoolExecutor)
        start(thread)

    threading.Thread.start = start_with_invocation


def _patch_executor(executor):
    """Threads of an executor outlive invocations, so every piece of work carries its own."""
    submit = executor.submit
    if hasattr(submit, "koine"):
        return

    def submit_with_invocation(self, function, /, *arguments, **named):
        invocation = current.get(None)

        def within(*arguments, **named):
            token = current.set(invocation)
            try:
                return function(*arguments, **named)
            finally:
                current.reset(token)

        return submit(self, within, *arguments, **named)

    submit_with_invocation.koine = True
    submit_with_invocation.__doc__ = submit.__doc__
    executor.submit = submit_with_invocation


def _patch_exit(channel):
    leave = os._exit

    def flush_and_leave(status):
        channel.flush()
        leave(status)

    os._exit = flush_and_leave


def _in_child(channel):
    channel.abandon()
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
