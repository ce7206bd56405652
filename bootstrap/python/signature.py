"""What a callable looks like, without the cost of importing `inspect`."""

_COROUTINE = 0x80
_VARIABLE_POSITIONAL = 0x04
_PARTIALS_MAX = 20


def is_async(callable_):
    """Whether calling it gives a coroutine: `async def`, or an instance with an `async def __call__`."""
    function = _function(callable_)[0]
    return function is not None and bool(function.__code__.co_flags & _COROUTINE)


def positional(callable_):
    """Names of the parameters that can be given by position; None where that cannot be known, as for `*arguments`."""
    function, given = _function(callable_)
    while function is not None and hasattr(function, "__wrapped__"):
        inner, bound = _function(function.__wrapped__)
        if inner is None:
            break
        function = inner
        given += bound
    if function is None or function.__code__.co_flags & _VARIABLE_POSITIONAL:
        return None
    code = function.__code__
    return list(code.co_varnames[: code.co_argcount])[given:]


def _function(callable_):
    """The Python function behind a callable, and how many of its parameters are given already."""
    given = 0
    for _ in range(_PARTIALS_MAX):
        if isinstance(callable_, type):
            return None, 0
        if hasattr(callable_, "__code__") and hasattr(callable_, "__defaults__"):
            # A bound method shows the code of its function, and so does what wraps one.
            return callable_, given + (1 if getattr(callable_, "__self__", None) is not None else 0)
        if hasattr(callable_, "func") and hasattr(callable_, "keywords"):
            given += len(callable_.args)
            callable_ = callable_.func
            continue
        call = getattr(type(callable_), "__call__", None)
        if not hasattr(call, "__code__"):
            return None, 0
        return call, given + 1
    return None, 0
