"""Handler model `asgi`: an ASGI 3 application, with lifespan where it has one. Event calls arrive as POST / with the payload."""

from koine_bootstrap.failure import Disconnected, InvalidResponse, load_failed_because
from koine_bootstrap.signature import is_async, positional

MODEL = "asgi"

_NAMES = ("app", "application")
_VERSION = {"version": "3.0", "spec_version": "2.4"}
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"))


def select(module, name):
    """The ASGI application among a module's attributes, or None. Without a name: `app` or `application`."""
    for candidate in (name,) if name else _NAMES:
        value = getattr(module, candidate, None)
        if callable(value) and _looks_right(value):
            return value
    return None


def adapt(handler, instance):
    """A coroutine function that runs one invocation."""
    lifespan = _Lifespan(handler)
    instance.on_start(lifespan.start)
    instance.on_stop(lifespan.stop)

    async def call(invocation):
        scope = _scope(invocation)
        scope["state"] = dict(lifespan.state)
        exchange = _Exchange(invocation)
        await handler(scope, exchange.receive, exchange.send)
        exchange.check_complete()

    return call


def _looks_right(value):
    if isinstance(value, type):
        return False
    names = positional(value)
    if names == ["scope", "receive", "send"]:
        return True
    return is_async(value) and (names is None or len(names) == 3)


class _Exchange:
    """`receive` and `send` of one request."""

    def __init__(self, invocation):
        self._invocation = invocation
        self._body_given = False
        self._start = None
        self._complete = False

    async def receive(self):
        invocation = self._invocation
        if not self._body_given and not invocation.cancelled:
            try:
                part = await invocation.read_async()
            except Disconnected:
                return {"type": "http.disconnect"}
            more = bool(part) and not invocation.at_end
            self._body_given = not more
            return {"type": "http.request", "body": part, "more_body": more}
        # The answer is complete, or the caller leaves before it is.
        await invocation.gone_async(lambda: self._complete)
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if self._complete:
            raise RuntimeError("%s was sent after the answer was complete" % kind)
        if kind == "http.response.start":
            if self._start is not None:
                raise RuntimeError("http.response.start was sent twice")
            self._start = message
        elif kind == "http.response.body":
            await self._send_body(bytes(message.get("body", b"")), bool(message.get("more_body", False)))
        else:
            raise RuntimeError("%s cannot be sent on an HTTP request" % kind)

    def check_complete(self):
        if not self._complete and not self._invocation.cancelled:
            raise InvalidResponse("the ASGI application returned before its answer was complete")

    async def _send_body(self, body, more):
        if self._start is None:
            raise RuntimeError("http.response.body was sent before http.response.start")
        invocation = self._invocation
        if not invocation.answered:
            invocation.head(_status(self._start["status"]), _headers(self._start.get("headers", ())))
        if more:
            await invocation.write_async(body)
            return
        await invocation.finish_async(body)
        self._complete = True
        invocation.notify()


class _Lifespan:
    """Tells the application that it starts and stops. One that does not know of lifespans raises, and that is fine."""

    def __init__(self, app):
        self.state = {}
        self._app = app
        self._task = None

    async def start(self):
        import asyncio

        loop = asyncio.get_running_loop()
        self._messages = asyncio.Queue()
        self._started = loop.create_future()
        self._stopped = loop.create_future()
        self._messages.put_nowait({"type": "lifespan.startup"})
        self._task = loop.create_task(self._run())
        failed = await self._started
        if failed is not None:
            raise load_failed_because("the application's startup failed: %s" % failed)

    async def stop(self):
        if self._task is None or self._task.done():
            return
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        await self._stopped

    async def _run(self):
        scope = {"type": "lifespan", "asgi": _VERSION, "state": self.state}
        try:
            await self._app(scope, self._messages.get, self._send)
        except Exception:  # noqa: BLE001 - the specification's way of saying "not supported"
            if self._started.done():
                raise
        finally:
            for future in (self._started, self._stopped):
                if not future.done():
                    future.set_result(None)

    async def _send(self, message):
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            _settle(self._started, None)
        elif kind == "lifespan.startup.failed":
            _settle(self._started, message.get("message") or "no reason given")
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            _settle(self._stopped, None)
        else:
            raise RuntimeError("%s cannot be sent in a lifespan" % kind)


def _settle(future, value):
    if not future.done():
        future.set_result(value)


def _scope(invocation):
    if invocation.kind == "event":
        headers = [(b"content-type", invocation.content_type.encode("latin-1", "replace"))]
        return _http_scope("POST", "", "/", headers, "http://localhost", None)
    flat = invocation.headers
    headers = [
        (flat[at].lower().encode("latin-1", "replace"), flat[at + 1].encode("latin-1", "replace"))
        for at in range(0, len(flat), 2)
    ]
    client = [invocation.remote_address, 0]
    return _http_scope(
        invocation.method, invocation.base_path.rstrip("/"), invocation.url, headers, invocation.origin, client
    )


def _http_scope(method, root_path, url, headers, origin, client):
    path, _, query = url.partition("?")
    raw_path = root_path + path
    scheme, _, authority = origin.partition("://")
    return {
        "type": "http",
        "asgi": _VERSION,
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        # The whole path, of which root_path is the beginning.
        "path": _decode(raw_path),
        "raw_path": raw_path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode("utf-8", "surrogateescape"),
        "root_path": _decode(root_path),
        "headers": headers,
        "client": client,
        "server": _server(authority, scheme),
        "extensions": {},
    }


def _server(authority, scheme):
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit():
        return [authority, 443 if scheme == "https" else 80]
    return [host, int(port)]


def _decode(path):
    if "%" not in path:
        return path
    from urllib.parse import unquote

    return unquote(path)


def _status(status):
    if not isinstance(status, int) or not 100 <= status <= 599:
        raise InvalidResponse("the status must be an int from 100 to 599, not %.100r" % (status,))
    return int(status)


def _headers(headers):
    flat = []
    for name, value in headers:
        if not isinstance(name, (bytes, bytearray)) or not isinstance(value, (bytes, bytearray)):
            raise InvalidResponse("a header must be two bytes objects, not %.100r" % ((name, value),))
        if any(character in part for part in (name, value) for character in (b"\r", b"\n", b"\0")):
            raise InvalidResponse("header %.100r has a line break in it" % (name,))
        if name.lower() not in _HOP_BY_HOP:
            flat += (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
    return flat
