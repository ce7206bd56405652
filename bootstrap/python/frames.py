"""The wire of docs/frames.md: encoding, and a reader that refuses everything that breaks the rules."""

from struct import Struct

SPECIALISE, INVOKE, DATA, CREDIT, CANCEL, PING, SHUTDOWN = range(1, 8)
READY, SPECIALISED, LOAD_FAILED, HEAD, END, FAILED, LOG, PONG = range(16, 24)

LAST = 1
HEADER_BYTES = 12
PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
# The engine takes no larger JSON from an instance.
JSON_BYTES_MAX = 1024 * 1024
WINDOW_BYTES = 256 * 1024

_header = Struct("<IIBBH")
_log_head = Struct("<dB")
_u32 = Struct("<I")

# Length of the payload where the type fixes it; whether the stream must be 0.
_LENGTHS = {CREDIT: 4, CANCEL: 0, PING: 8, SHUTDOWN: 0}
_ON_STREAM_0 = {SPECIALISE: True, PING: True, SHUTDOWN: True, INVOKE: False, DATA: False, CREDIT: False, CANCEL: False}


class BrokenRules(Exception):
    """The engine sent what no engine may send; the connection is of no more use."""


def frame(kind, stream, payload=b"", flags=0):
    return _header.pack(len(payload), stream, kind, flags, 0) + payload


def log_frame(stream, time_ms, source, text):
    """`source` is 1 for stdout, 2 for stderr; `text` is bytes."""
    return _header.pack(9 + len(text), stream, LOG, 0, 0) + _log_head.pack(time_ms, source) + text


def credit_frame(stream, count):
    return _header.pack(4, stream, CREDIT, 0, 0) + _u32.pack(count)


def u32(payload, at=0):
    return _u32.unpack_from(payload, at)[0]


class FrameReader:
    """Cuts a byte stream into frames `(kind, stream, flags, payload)`."""

    def __init__(self):
        self._rest = b""

    def feed(self, chunk):
        """The frames that are complete with this chunk. Raises BrokenRules."""
        if self._rest:
            if type(self._rest) is not bytearray:
                self._rest = bytearray(self._rest)
            self._rest += chunk
            chunk = self._rest
        frames = []
        at = 0
        size = len(chunk)
        while size - at >= HEADER_BYTES:
            length, stream, kind, flags, zero = _header.unpack_from(chunk, at)
            _check(length, stream, kind, flags, zero)
            end = at + HEADER_BYTES + length
            if end > size:
                break
            frames.append((kind, stream, flags, bytes(chunk[at + HEADER_BYTES : end])))
            at = end
        if at == size:
            self._rest = b""
        elif at > 0:
            self._rest = chunk[at:]
        else:
            self._rest = chunk
        return frames


def _check(length, stream, kind, flags, zero):
    on_stream_0 = _ON_STREAM_0.get(kind)
    if on_stream_0 is None:
        raise BrokenRules("type %d" % kind)
    if length > PAYLOAD_BYTES_MAX:
        raise BrokenRules("a payload of %d bytes" % length)
    if zero != 0 or flags & ~LAST or (flags and kind not in (INVOKE, DATA)):
        raise BrokenRules("reserved bits of type %d are set" % kind)
    if on_stream_0 != (stream == 0):
        raise BrokenRules("type %d on stream %d" % (kind, stream))
    if _LENGTHS.get(kind, length) != length:
        raise BrokenRules("type %d with %d bytes" % (kind, length))
