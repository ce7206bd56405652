"""Descriptor 3: reads what is there, joins what is written, and never lets two writers mix."""

import os
import select
from _thread import RLock
from time import monotonic

from .frames import FrameReader

READ_BYTES = 65536
# Output is written at once, so that a crash loses none of it, up to this many times per period; what is more waits for company.
LOG_WRITES_MAX = 32
LOG_PERIOD_S = 0.01
JOIN_BYTES = 32 * 1024
# Output that an event loop may leave unwritten before it has to wait for the engine.
BACKLOG_BYTES = 4 * 1024 * 1024


class Channel:
    def __init__(self, descriptor):
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        # Called instead of waiting when the engine is slow to read; None: wait.
        self.on_full = None
        self._frames = FrameReader()
        self._reading = select.poll()
        self._reading.register(descriptor, select.POLLIN)
        alarm, self._alarm = os.pipe()
        self._reading.register(alarm, select.POLLIN)
        self._out = bytearray()
        # Reentrant: a destructor that prints may run anywhere in here.
        self.lock = RLock()
        self._writing = False
        self._period_began = 0.0
        self._period_logs = 0

    def readable(self, timeout_ms=None):
        """Whether there is something to read; waits for it when no timeout is given. For the holder of the reading role."""
        return bool(self._reading.poll(timeout_ms))

    def wake(self):
        """Makes whoever waits in `readable` return, from now on: for leaving."""
        os.write(self._alarm, b"!")

    def receive(self):
        """Complete frames, possibly none; None when the engine is gone. Never waits. Raises BrokenRules."""
        try:
            chunk = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return ()
        except OSError:
            return None
        return self._frames.feed(chunk) if chunk else None

    def queue(self, encoded):
        """Adds frames to what `flush` writes."""
        with self.lock:
            self._out += encoded

    def queue_log(self, encoded):
        """Like queue, but writes at once what is not part of a flood."""
        with self.lock:
            self._out += encoded
            now = monotonic()
            if now - self._period_began > LOG_PERIOD_S:
                self._period_began = now
                self._period_logs = 0
            self._period_logs += 1
            if self._period_logs <= LOG_WRITES_MAX or len(self._out) >= JOIN_BYTES:
                self.flush()

    @property
    def waiting(self):
        return bool(self._out)

    def flush(self):
        with self.lock:
            if self._writing or self.descriptor < 0:
                return
            self._writing = True
            try:
                self._write()
            finally:
                self._writing = False

    def _write(self):
        while self._out:
            try:
                count = os.write(self.descriptor, self._out)
            except BlockingIOError:
                if self.on_full is not None and len(self._out) < BACKLOG_BYTES:
                    self.on_full()
                    return
                writable = select.poll()
                writable.register(self.descriptor, select.POLLOUT)
                writable.poll()
                continue
            except OSError:
                # The engine is gone; whoever reads notices and ends the process.
                self._out.clear()
                return
            del self._out[:count]

    def abandon(self):
        """In a forked child: the connection is the parent's alone."""
        descriptor, self.descriptor = self.descriptor, -1
        self.lock = RLock()
        self._out = bytearray()
        if descriptor >= 0:
            os.close(descriptor)
