"""Handler model `wsgi`: `app(environ, start_response)` as in PEP 3333. Event calls arrive as POST / with the payload."""

import io
import sys

from koine_bootstrap.failure import InvalidResponse
from koine_bootstrap.signature import is_async, positional

MODEL = "wsgi"

_NAMES = ("app", "application")
# Of one hop only: the platform decides about these.
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade")
)


def select(module, name):
    """The WSGI application among a module's attributes, or None. Without a name: `app` or `application`."""
    for candidate in (name,) if name else _NAMES:
        value = getattr(module, candidate, None)
        if callable(value) and _looks_right(value, named_app=candidate in _NAMES):
            return value
    return None


def adapt(handler, instance):
    """A plain callable that runs one invocation."""
    threads = instance.concurrency > 1

    def call(invocation):
        environ = _environ(invocation, threads)
        _Exchange(invocation, environ["REQUEST_METHOD"]).run(handler, environ)

    return call


def _looks_right(value, named_app):
    if isinstance(value, type) or is_async(value):
        return False
    names = positional(value)
    if names is None:
        return named_app
    if len(names) != 2:
        return False
    if names[0] == "environ" or names[1] == "start_response":
        return True
    return named_app and names != ["event", "context"]


class _Exchange:
    """One answer, from start_response to the last chunk."""

    def __init__(self, invocation, method):
        self._invocation = invocation
        self._method = method
        self._status = None
        self._headers = None

    def run(self, app, environ):
        result = app(environ, self._start_response)
        if not hasattr(result, "__iter__"):
            raise InvalidResponse("a WSGI application must return an iterable of bytes, not %s" % type(result).__name__)
        try:
            if isinstance(result, (list, tuple)):
                self._finish(b"".join(_bytes(chunk) for chunk in result))
                return
            for chunk in result:
                if _bytes(chunk) and not self._write(chunk):
                    return
            self._finish(b"")
        finally:
            if hasattr(result, "close"):
                result.close()

    def _start_response(self, status, headers, exc_info=None):
        if exc_info is not None:
            try:
                if self._invocation.answered:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._status is not None:
            raise AssertionError("start_response was called twice without exc_info")
        self._status = _status(status)
        self._headers = _headers(headers)
        return self._write

    def _write(self, chunk):
        """The `write` of PEP 3333, and what sends every chunk of the iterable. False: the caller is gone."""
        self._begin()
        return self._invocation.write(_bytes(chunk))

    def _finish(self, body):
        if self._invocation.answered:
            self._invocation.finish(body)
            return
        if self._status is not None and body and self._method != "HEAD" and not _has(self._headers, "content-length"):
            self._headers += ("content-length", str(len(body)))
        self._begin()
        self._invocation.finish(body)

    def _begin(self):
        if self._invocation.answered:
            return
        if self._status is None:
            raise InvalidResponse("start_response was not called before the first byte of the body")
        self._invocation.head(self._status, self._headers)


class FileWrapper:
    """`wsgi.file_wrapper`: a file as an iterable of blocks."""

    def __init__(self, file, block_bytes=65536):
        self._file = file
        self._block_bytes = block_bytes
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self):
        return self

    def __next__(self):
        block = self._file.read(self._block_bytes)
        if not block:
            raise StopIteration
        return block


class _Input(io.RawIOBase):
    """`wsgi.input`: the request's body as it arrives; ends where the body ends."""

    def __init__(self, invocation):
        self._invocation = invocation
        self._rest = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self._rest:
            self._rest = self._invocation.read()
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _environ(invocation, threads):
    event = invocation.kind == "event"
    headers = ("content-type", invocation.content_type) if event else invocation.headers
    url = "/" if event else invocation.url
    origin = "http://localhost" if event else invocation.origin
    path, _, query = url.partition("?")
    scheme, _, authority = origin.partition("://")
    host, port = _split_authority(authority, scheme)
    environ = {
        "REQUEST_METHOD": "POST" if event else invocation.method,
        "SCRIPT_NAME": "" if event else _decode(invocation.base_path.rstrip("/")),
        "PATH_INFO": _decode(path),
        "QUERY_STRING": query,
        "REQUEST_URI": ("" if event else invocation.base_path.rstrip("/")) + url,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "" if event else invocation.remote_address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(_Input(invocation), 65536),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threads,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "koine.invocation_id": invocation.id,
    }
    _add_headers(environ, headers)
    if "CONTENT_LENGTH" not in environ and invocation.body_complete:
        environ["CONTENT_LENGTH"] = str(invocation.body_bytes_here)
    return environ


def _add_headers(environ, headers):
    for at in range(0, len(headers), 2):
        name = headers[at]
        # `a_b` and `a-b` would become one key: the former is only sent to pass for the latter.
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        value = headers[at + 1]
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value


def _split_authority(authority, scheme):
    """Host and port of `host`, `host:port`, `[::1]:port`, as str."""
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, "443" if scheme == "https" else "80"
    return host, port


def _decode(path):
    """Percent-decoded bytes, shown as Latin-1 as PEP 3333 wants it."""
    if "%" not in path:
        return path.encode("utf-8", "surrogateescape").decode("latin-1")
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("latin-1")


def _status(status):
    code = status[:3] if isinstance(status, str) else ""
    if not (code.isascii() and code.isdigit() and status[3:4] in ("", " ") and 100 <= int(code) <= 599):
        raise InvalidResponse("the status must be a str such as '200 OK', not %.100r" % (status,))
    return int(code)


def _headers(headers):
    if not isinstance(headers, list):
        raise InvalidResponse("the headers must be a list of (name, value), not %s" % type(headers).__name__)
    flat = []
    for header in headers:
        if not (isinstance(header, tuple) and len(header) == 2 and all(isinstance(part, str) for part in header)):
            raise InvalidResponse("a header must be a tuple of two str, not %.100r" % (header,))
        name, value = header
        if any(character in part for part in header for character in "\r\n\0"):
            raise InvalidResponse("header %.100r has a line break in it" % (name,))
        if name.lower() not in _HOP_BY_HOP:
            flat += (name, value)
    return flat


def _has(headers, wanted):
    return any(name.lower() == wanted for name in headers[::2])


def _bytes(chunk):
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise InvalidResponse("the body must be made of bytes, not %s" % type(chunk).__name__)
    return chunk
