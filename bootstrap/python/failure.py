"""What user code threw, as the error objects of docs/frames.md."""

import os

TEXT_CHARACTERS_MAX = 16 * 1024
EXPORTS_MAX = 100


class LoadFailure(Exception):
    """Why a handler cannot be loaded; `error` is the payload of LOAD_FAILED."""

    def __init__(self, error):
        Exception.__init__(self, error["message"])
        self.error = error


class InvalidResponse(Exception):
    """A handler answered what cannot be used; the message says what and what would do."""


class Disconnected(OSError):
    """The caller is gone, so there is no more body to read."""


def describe_failure(thrown):
    """The error that goes into FAILED."""
    if isinstance(thrown, InvalidResponse):
        return {"code": "invalid-response", "message": _cut(thrown), "detail": _cut(thrown)}
    failure = dict(describe_thrown(thrown), code="handler-failed")
    try:
        if getattr(thrown, "retryable", None) is False:
            failure["retryable"] = False
    except BaseException:  # noqa: BLE001 - a broken property must not hide the failure
        pass
    return failure


def describe_thrown(thrown):
    """`message`, `detail`, `type`, `stack`. Never raises, whatever user code made of its exception."""
    kind = type(thrown).__name__
    try:
        message = _cut(thrown)
    except BaseException as second:  # noqa: BLE001 - a broken __str__ must not hide the failure
        message = "<its __str__ raised %s>" % type(second).__name__
    return {"message": message, "detail": "%s: %s" % (kind, message) if message else kind, "type": kind, "stack": _stack(thrown)}


def describe_syntax_error(thrown, code_path):
    line = (thrown.text or "").strip()
    file = _relative(thrown.filename or "?", code_path)
    detail = "%s, line %s: %s%s" % (file, thrown.lineno, thrown.msg, ": " + line[:200] if line else "")
    stack = '  File "%s", line %s\n    %s\n%s: %s' % (file, thrown.lineno, line, type(thrown).__name__, thrown.msg)
    return {
        "code": "handler-syntax-error",
        "message": detail,
        "detail": detail,
        "type": type(thrown).__name__,
        "stack": stack,
        "file": file,
        "line": thrown.lineno,
        "text": line[:200],
    }


def load_failed(thrown):
    return LoadFailure(dict(describe_thrown(thrown), code="handler-load-failed"))


def load_failed_because(message, **more):
    return LoadFailure(dict({"code": "handler-load-failed", "message": message, "detail": message}, **more))


def not_found(message, exports=()):
    names = sorted(exports)[:EXPORTS_MAX]
    return LoadFailure({"code": "handler-not-found", "message": message, "detail": message, "exports": names})


def _stack(thrown):
    try:
        import traceback

        trace = thrown.__traceback__
        while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        lines = traceback.format_exception(type(thrown), thrown, trace)
        return "".join(lines)[-TEXT_CHARACTERS_MAX:].rstrip()
    except BaseException:  # noqa: BLE001 - see describe_thrown
        return type(thrown).__name__


_OURS = __file__.rpartition("/")[0] + "/"


def _is_ours(file):
    return file.startswith(_OURS) or file.startswith("<frozen importlib") or file in adapter_files


# Paths of the handler adapters in use; their frames are left out of stacks.
adapter_files = set()


def _relative(file, code_path):
    prefix = code_path.rstrip("/") + "/"
    return file[len(prefix) :] if file.startswith(prefix) else file


def _cut(thrown):
    return str(thrown)[:TEXT_CHARACTERS_MAX]


def report(text):
    """Says something on the real stderr: for defects of this bootstrap and of the engine."""
    try:
        os.write(2, ("koine: %s\n" % text).encode("utf-8", "backslashreplace"))
    except OSError:
        return
