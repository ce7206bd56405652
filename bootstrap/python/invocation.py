"""One invocation as handler adapters see it: the call, its body, and the answer, with back-pressure both ways.

Every method that may wait exists twice: plain for handlers in threads, and with `_async` for those on the event loop.
"""

from collections import deque
from json import JSONEncoder

from .failure import Disconnected, InvalidResponse
from .frames import DATA, END, FAILED, HEAD, JSON_BYTES_MAX, LAST, WINDOW_BYTES, credit_frame, frame
from .output import flush_partial

CREDIT_BYTES_MIN = 64 * 1024
HEADS_CACHED_MAX = 256

_encode = JSONEncoder(separators=(",", ":")).encode
# Most handlers answer with one of a few heads.
_heads = {}


class Invocation:
    def __init__(self, instance, stream, head, body, complete):
        self.stream = stream
        self.id = head["id"]
        self.attempt = head["attempt"]
        self.deadline_ms = head["deadlineMs"]
        # `http`: then method, url, headers, base_path, origin, remote_address; `event`: then content_type.
        self.kind = head["kind"]
        self.context = head.get("context")
        if self.kind == "http":
            self.method = head["method"]
            self.url = head["url"]
            # Names and values in turn, as received.
            self.headers = head["headers"]
            self.base_path = head["basePath"]
            self.origin = head["origin"]
            self.remote_address = head["remoteAddress"]
        else:
            self.content_type = head["contentType"]
        # The caller is gone; what is written is dropped.
        self.cancelled = False
        self.ended = False
        # Called once on the event loop when the invocation is cancelled.
        self.on_cancel = None
        self.partial = {}
        # Futures of coroutines that wait for something to arrive.
        self.waiters = set()
        self.body_complete = complete
        self._instance = instance
        self._channel = instance.channel
        self._parts = deque((body,)) if body else deque()
        self._owed = 0
        self._unread = len(body)
        self._window = WINDOW_BYTES
        self._pending = b""
        self._answered = False

    # What arrives. Called by whoever reads the channel, under the instance's lock.

    def receive_data(self, payload, last):
        """Whether the engine was allowed to send this."""
        self._unread += len(payload)
        if self.body_complete or self._unread + self._owed > WINDOW_BYTES:
            return False
        if payload:
            self._parts.append(payload)
        self.body_complete = last
        return True

    def receive_credit(self, count):
        self._window += count

    # The request's body.

    def read(self):
        """The next part of the body as soon as there is one; b"" at its end. Raises Disconnected."""
        if not self._has_input():
            self._instance.runner.wait(self._has_input)
        return self._take()

    async def read_async(self):
        if not self._has_input():
            await self._instance.runner.wait_async(self, self._has_input)
        return self._take()

    def read_all(self):
        if self.body_complete and len(self._parts) == 1:
            return self._take()
        parts = []
        part = self.read()
        while part:
            parts.append(part)
            part = self.read()
        return b"".join(parts)

    async def read_all_async(self):
        parts = []
        part = await self.read_async()
        while part:
            parts.append(part)
            part = await self.read_async()
        return b"".join(parts)

    @property
    def at_end(self):
        """Whether the whole body has been read."""
        return self.body_complete and not self._parts

    @property
    def body_bytes_here(self):
        """Bytes of the body that are here and unread; with `body_complete` the rest of it."""
        return self._unread

    async def gone_async(self, otherwise):
        """Until the caller is gone, or `otherwise()` after a `notify`."""
        await self._instance.runner.wait_async(self, lambda: self.cancelled or otherwise())

    def notify(self):
        """Makes coroutines of this invocation that wait look again. On the event loop only."""
        self._instance.runner.awaken(self)

    # The answer.

    @property
    def answered(self):
        """Whether there is a head already."""
        return self._answered

    def head(self, status, headers):
        """Status and headers (names and values in turn, all str). Sent together with the first part of the body."""
        if self._answered:
            raise InvalidResponse("the head of the answer was given twice")
        key = (status, *headers)
        payload = _heads.get(key)
        if payload is None:
            payload = _encode({"status": status, "headers": headers}).encode()
            if len(payload) > JSON_BYTES_MAX:
                raise InvalidResponse("its headers are larger than %d bytes" % JSON_BYTES_MAX)
            if len(payload) < 1024:
                if len(_heads) >= HEADS_CACHED_MAX:
                    _heads.clear()
                _heads[key] = payload
        self._answered = True
        self._pending = frame(HEAD, self.stream, payload)

    def write(self, chunk):
        """Sends a part of the body; waits while the caller is slow. False: the caller is gone."""
        at = 0
        while not self.cancelled:
            at = self._give(chunk, at)
            if at == len(chunk):
                return True
            self._instance.runner.wait(self._has_window)
        return False

    async def write_async(self, chunk):
        at = 0
        while not self.cancelled:
            at = self._give(chunk, at)
            if at == len(chunk):
                return True
            await self._instance.runner.wait_async(self, self._has_window)
        return False

    def respond(self, status, headers, body=b""):
        """A whole answer at once; small ones leave in one write. The rest of a large one needs `write`, so that it can wait."""
        self.head(status, headers)
        self.finish(body)

    def finish(self, body=b""):
        """Completes the answer with what fits into the window. For more than that use `write` before."""
        if len(body) > self._window:
            self.write(body)
            body = b""
        if not self.cancelled:
            self._window -= len(body)
            # Queued and not written: END usually follows at once. Where it does not, the watch or the loop's turn sends it.
            self._channel.queue(self._pending + frame(DATA, self.stream, body, LAST))
            self._pending = b""

    async def respond_async(self, status, headers, body=b""):
        self.head(status, headers)
        await self.finish_async(body)

    async def finish_async(self, body=b""):
        if len(body) > self._window:
            await self.write_async(body)
            body = b""
        self.finish(body)
        self._instance.runner.flush()

    # How it ends. Called by the runner.

    def end(self):
        if not self._answered and not self.cancelled:
            self.fail({"code": "invalid-response", "message": "the handler ended without an answer"})
            return
        if not self._answered:
            self.head(499, ())
        self._settle(frame(END, self.stream))

    def fail(self, error):
        # A head that has not left yet would only be in the way of the error.
        self._pending = b""
        self._settle(frame(FAILED, self.stream, _encode(error).encode()))

    def _settle(self, last):
        with self._channel.lock:
            flush_partial(self._channel, self)
            self.ended = True
            self._channel.queue(self._pending + last)
        self._pending = b""
        self._instance.forget(self)

    def _has_input(self):
        return bool(self._parts) or self.body_complete or self.cancelled

    def _has_window(self):
        return self._window > 0 or self.cancelled

    def _take(self):
        if not self._parts:
            if not self.body_complete:
                raise Disconnected("the caller is gone")
            return b""
        with self._instance.changed:
            part = self._parts.popleft()
            self._unread -= len(part)
            if self.body_complete:
                return part
            self._owed += len(part)
            if self._owed < CREDIT_BYTES_MIN:
                return part
            owed, self._owed = self._owed, 0
        self._channel.queue(credit_frame(self.stream, owed))
        self._instance.runner.flush()
        return part

    def _give(self, chunk, at):
        """Sends as much as the window allows, from `at` on; answers how far it came."""
        if not self._answered:
            raise InvalidResponse("a part of the body came before the head")
        with self._instance.changed:
            count = min(len(chunk) - at, self._window)
            self._window -= count
        if count > 0 or self._pending:
            part = bytes(chunk[at : at + count]) if count != len(chunk) else bytes(chunk)
            encoded = self._pending + (frame(DATA, self.stream, part) if count > 0 else b"")
            self._pending = b""
            self._channel.queue(encoded)
            self._instance.runner.flush()
        return at + count

