"""Handler model `lambda`: `def handler(event, context)`, plain or async. HTTP calls arrive as API Gateway events of payload format 2.0."""

import os
import time
from json import JSONEncoder, loads

from koine_bootstrap.failure import InvalidResponse
from koine_bootstrap.signature import is_async, positional

MODEL = "lambda"

_NAMES = ("handler", "lambda_handler", "main")
_APPLICATION_NAMES = ("app", "application")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_JSON_HEADERS = ("content-type", "application/json")
# All others arrive in Base64, forms included: as API Gateway has it.
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript")
_ACCOUNT = "000000000000"
_API = "koine"
# The length and the coding of the transfer are the platform's business.
_DROPPED_HEADERS = ("content-length", "transfer-encoding")


def select(module, name):
    """The handler among a module's attributes, or None. Without a name: `handler`, `lambda_handler`, `main`."""
    if name:
        value = getattr(module, name, None)
        return value if callable(value) and not isinstance(value, type) else None
    for candidate in _NAMES:
        value = getattr(module, candidate, None)
        if callable(value) and not isinstance(value, type) and (candidate != "main" or _takes_two(value)):
            return value
    # Frameworks such as Chalice make an application that is called like a handler.
    for candidate in _APPLICATION_NAMES:
        value = getattr(module, candidate, None)
        if callable(value) and not isinstance(value, type) and positional(value) == ["event", "context"]:
            return value
    return None


def prepare(instance, explicit):
    """Sets what module-level code of a Lambda function looks for; not for handlers that may be of another model."""
    if explicit or (instance.handler_name or "").rpartition(".")[2] in _NAMES[:2]:
        _set_variables(instance)
    if explicit and "AWS_LAMBDA_RUNTIME_API" in os.environ:
        _start_extensions()
    if explicit and "AWS_LAMBDA_LOG_FORMAT" in os.environ:
        _format_logging()


def adapt(handler, instance):
    """A callable that runs one invocation; a coroutine function when the handler is one."""
    _set_variables(instance)
    surroundings = _Surroundings(instance)

    if is_async(handler):

        async def call_async(invocation):
            from asyncio import current_task

            invocation.on_cancel = current_task().cancel
            _begin(invocation)
            event = _event(invocation, await invocation.read_all_async())
            result = await handler(event, Context(invocation, surroundings))
            await invocation.respond_async(*_answer(invocation, result))

        return call_async

    def call(invocation):
        _begin(invocation)
        event = _event(invocation, invocation.read_all())
        result = handler(event, Context(invocation, surroundings))
        if hasattr(result, "__await__"):
            result = _run(result)
        invocation.respond(*_answer(invocation, result))

    return call


# The call that writes; an instance of these functions serves one at a time.
_current = {"id": None, "tenant_id": None}


def _begin(invocation):
    details = _details(invocation)
    _current["id"] = invocation.id
    _current["tenant_id"] = details.get("tenantId")
    os.environ["_X_AMZN_TRACE_ID"] = details.get("traceId") or _trace_id(invocation)


def _trace_id(invocation):
    """The caller's trace goes on; else one begins."""
    headers = invocation.headers if invocation.kind == "http" else ()
    for at in range(0, len(headers), 2):
        if headers[at].lower() == "x-amzn-trace-id":
            return headers[at + 1]
    digits = invocation.id.replace("-", "").ljust(32, "0")
    return "Root=1-%x-%s;Parent=%s;Sampled=0" % (int(time.time()), digits[8:32], digits[-16:])


def _details(invocation):
    """What the AWS dialect may add to a call."""
    return (getattr(invocation, "context", None) or {}).get("lambda") or {}


def _takes_two(value):
    """Tells a handler from the `main()` of a script."""
    names = positional(value)
    return names is None or len(names) == 2


class Context:
    """What handlers get as their second argument."""

    def __init__(self, invocation, surroundings):
        self._deadline_ms = invocation.deadline_ms
        self._surroundings = surroundings
        self.aws_request_id = invocation.id
        self._details = _details(invocation)
        self.client_context = _client_context(self._details.get("clientContext"))
        identity = self._details.get("identity") or {}
        self.identity = _Object(
            cognito_identity_id=identity.get("cognitoIdentityId"),
            cognito_identity_pool_id=identity.get("cognitoIdentityPoolId"),
        )
        self.tenant_id = self._details.get("tenantId")

    function_name = property(lambda self: self._surroundings.function_name)
    function_version = property(lambda self: self._told("functionVersion", self._surroundings.function_version))
    invoked_function_arn = property(lambda self: self._told("invokedFunctionArn", self._surroundings.invoked_function_arn))
    memory_limit_in_mb = property(lambda self: self._surroundings.memory_limit_in_mb)
    log_group_name = property(lambda self: self._surroundings.log_group_name)
    log_stream_name = property(lambda self: self._told("logStreamName", self._surroundings.log_stream_name))

    def get_remaining_time_in_millis(self):
        return max(0, int(self._deadline_ms - time.time() * 1000))

    def log(self, message):
        print(message, end="")

    def _told(self, name, otherwise):
        return self._details.get(name) or otherwise


class _Surroundings:
    """What stays the same between invocations."""

    def __init__(self, instance):
        function = instance.function
        region = os.environ.get("AWS_REGION") or "us-east-1"
        self.function_name = function["name"]
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION") or str(function["version"])
        # AWS gives Python a str here.
        self.memory_limit_in_mb = str(instance.memory_bytes_max // (1024 * 1024))
        self.invoked_function_arn = "arn:aws:lambda:%s:%s:function:%s:%s" % (
            region,
            _ACCOUNT,
            self.function_name,
            self.function_version,
        )
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME") or "/aws/lambda/" + self.function_name
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME") or "%s/[%s]%s" % (
            time.strftime("%Y/%m/%d", time.gmtime()),
            self.function_version,
            os.urandom(16).hex(),
        )


def _set_variables(instance):
    for name, value in (
        ("AWS_LAMBDA_FUNCTION_NAME", instance.function["name"]),
        ("AWS_LAMBDA_FUNCTION_VERSION", str(instance.function["version"])),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", str(instance.memory_bytes_max // (1024 * 1024))),
        ("LAMBDA_TASK_ROOT", instance.code_path),
        ("_HANDLER", instance.handler),
    ):
        os.environ.setdefault(name, value)


_EXTENSIONS = "/opt/extensions"
# What the platform gives an instance to end is a little more.
_EXTENSIONS_END_S = 1.2


def _start_extensions():
    """Starts the programs that layers brought beside this one; when it ends they end first."""
    if not os.path.isdir(_EXTENSIONS):
        return
    import atexit
    from subprocess import DEVNULL, Popen, TimeoutExpired

    files = [os.path.join(_EXTENSIONS, name) for name in sorted(os.listdir(_EXTENSIONS))]
    programs = [Popen([file], stdin=DEVNULL) for file in files if os.path.isfile(file) and os.access(file, os.X_OK)]

    def wait():
        until = time.monotonic() + _EXTENSIONS_END_S
        for program in programs:
            try:
                program.wait(max(0, until - time.monotonic()))
            except TimeoutExpired:
                return

    if programs:
        atexit.register(wait)


def _format_logging():
    """Has the root logger write lines as Lambda's runtime does, from the moment that `logging` is there: to import it takes long for those who do not."""
    import sys

    if "logging" in sys.modules:
        _add_log_handler()
    else:
        sys.meta_path.insert(0, _LoggingFinder())


class _LoggingFinder:
    def find_spec(self, name, path=None, target=None):
        import sys

        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_add(module):
            del spec.loader.exec_module
            execute(module)
            _add_log_handler()

        spec.loader.exec_module = execute_and_add
        return spec


_SEVERITIES = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}


def _add_log_handler():
    import logging

    is_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON"

    class LambdaHandler(logging.Handler):
        def emit(self, record):
            import sys

            sys.stdout.write(self.format(record))

    class TextFormatter(logging.Formatter):
        converter = time.gmtime

        def format(self, record):
            record.aws_request_id = _current["id"]
            return logging.Formatter.format(self, record)

    class JsonFormatter(logging.Formatter):
        def format(self, record):
            return _json_line(record) + "\n"

    handler = LambdaHandler()
    if is_json:
        handler.setFormatter(JsonFormatter())
        logging.root.setLevel(_SEVERITIES.get(os.environ.get("AWS_LAMBDA_LOG_LEVEL", ""), logging.INFO))
    else:
        form = "[%(levelname)s]\t%(asctime)s.%(msecs)dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(TextFormatter(form, "%Y-%m-%dT%H:%M:%S"))
    logging.root.addHandler(handler)


_RECORD_FIELDS = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno funcName created msecs "
    "relativeCreated thread threadName processName process taskName message asctime".split()
)


def _json_line(record):
    line = {
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
        "level": record.levelname,
        "message": record.getMessage(),
        "logger": record.name,
    }
    if record.exc_info and record.exc_info[0] is not None:
        from traceback import format_tb

        kind, thrown, trace = record.exc_info
        line["errorType"] = kind.__name__
        line["errorMessage"] = str(thrown)
        line["stackTrace"] = format_tb(trace)
        line["location"] = "%s:%s:%d" % (record.pathname, record.funcName, record.lineno)
    if record.stack_info:
        line["stackTrace"] = record.stack_info
    if _current["id"] is not None:
        line["requestId"] = _current["id"]
    if _current["tenant_id"] is not None:
        line["tenantId"] = _current["tenant_id"]
    for name, value in record.__dict__.items():
        if name not in _RECORD_FIELDS and name not in line:
            line[name] = value
    return JSONEncoder(ensure_ascii=False, default=str).encode(line)


class _Object:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def _client_context(given):
    if not isinstance(given, dict):
        return None
    client = given.get("client")
    return _Object(custom=given.get("custom"), env=given.get("env"), client=_Object(**client) if isinstance(client, dict) else None)


# What the handler gets.


def _event(invocation, body):
    if invocation.kind == "http":
        return _gateway_event(invocation, body)
    if not body:
        return {}
    try:
        event = loads(body)
    except (ValueError, RecursionError) as thrown:
        raise InvalidResponse("a lambda handler takes JSON, and the payload is none: %s" % thrown) from None
    # A batch of a trigger's events is a list of records, as batches of other sources are.
    return {"Records": event} if invocation.content_type.startswith("application/cloudevents-batch+json") else event


def _gateway_event(invocation, body):
    path, _, query = invocation.url.partition("?")
    headers, cookies = _headers(invocation.headers)
    now = time.time()
    domain = headers.get("host") or invocation.origin.partition("://")[2]
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": _ACCOUNT,
            "apiId": _API,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": invocation.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": invocation.remote_address,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": invocation.id,
            "routeKey": "$default",
            "stage": "$default",
            "time": _common_log_time(now),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    # What the dialect knows of a request to an address of its own: whose API it is, and who asks.
    event["requestContext"].update(((invocation.context or {}).get("lambda") or {}).get("requestContext") or {})
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _query_parameters(query)
    if body:
        event["body"], event["isBase64Encoded"] = _body_text(body, headers)
    return event


def _headers(flat):
    headers = {}
    cookies = []
    for at in range(0, len(flat), 2):
        name = flat[at].lower()
        value = flat[at + 1]
        if name == "cookie":
            cookies += [cookie.strip() for cookie in value.split(";") if cookie.strip()]
        else:
            headers[name] = headers[name] + "," + value if name in headers else value
    return headers, cookies


def _query_parameters(query):
    from urllib.parse import parse_qsl

    parameters = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=None):
        parameters[name] = parameters[name] + "," + value if name in parameters else value
    return parameters


def _body_text(body, headers):
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    textual = not kind or kind.startswith(_TEXT_TYPES) or kind.endswith(("+json", "+xml"))
    if textual and headers.get("content-encoding", "identity") == "identity":
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    from binascii import b2a_base64

    return b2a_base64(body, newline=False).decode("ascii"), True


def _common_log_time(now):
    utc = time.gmtime(now)
    return "%02d/%s/%d:%02d:%02d:%02d +0000" % (
        utc.tm_mday,
        _MONTHS[utc.tm_mon - 1],
        utc.tm_year,
        utc.tm_hour,
        utc.tm_min,
        utc.tm_sec,
    )


# What the handler gives.


def _answer(invocation, result):
    """Status, headers, body."""
    if invocation.kind == "event":
        return 200, _JSON_HEADERS, _json(result)
    if isinstance(result, dict) and "statusCode" in result:
        return _gateway_answer(result)
    if isinstance(result, str):
        return 200, _JSON_HEADERS, result.encode("utf-8", "surrogatepass")
    return 200, _JSON_HEADERS, _json(result)


def _gateway_answer(result):
    several = {str(name).lower(): values for name, values in (result.get("multiValueHeaders") or {}).items()}
    headers = []
    for name, value in (result.get("headers") or {}).items():
        if str(name).lower() not in several:
            _add_header(headers, str(name).lower(), value)
    for name, values in several.items():
        for value in values:
            _add_header(headers, name, value)
    for cookie in result.get("cookies") or ():
        _add_header(headers, "set-cookie", cookie)
    if "content-type" not in headers[::2]:
        headers += _JSON_HEADERS
    return _status(result["statusCode"]), headers, _body_bytes(result)


def _status(status):
    try:
        code = int(status)
    except (TypeError, ValueError):
        code = 0
    if isinstance(status, (bool, float)) or not 200 <= code <= 599:
        raise InvalidResponse("statusCode must be a number from 200 to 599, not %.100r" % (status,))
    return code


def _add_header(headers, name, value):
    if value is None or name in _DROPPED_HEADERS:
        return
    if not isinstance(value, (str, int, float)):
        raise InvalidResponse("header %.100r must be a str or a number, not %s" % (name, type(value).__name__))
    headers += (name, _text(value))


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _body_bytes(result):
    body = result.get("body")
    if body is None:
        return b""
    if isinstance(body, (bool, int, float)):
        body = _text(body)
    if not isinstance(body, str):
        raise InvalidResponse("the body must be a str (json.dumps makes one), not %s" % type(body).__name__)
    if not result.get("isBase64Encoded"):
        return body.encode("utf-8", "surrogatepass")
    from binascii import Error, a2b_base64

    try:
        return a2b_base64(body)
    except (Error, ValueError) as thrown:
        raise InvalidResponse("isBase64Encoded is true, but the body is not Base64: %s" % thrown) from None


def _unusual(value):
    """Numbers of databases come as Decimal; anything else that JSON does not know is an error."""
    if type(value).__name__ == "Decimal" and hasattr(value, "as_integer_ratio"):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError("%s cannot be written as JSON" % type(value).__name__)


_encode = JSONEncoder(ensure_ascii=False, allow_nan=False, default=_unusual).encode


def _json(result):
    try:
        return _encode(result).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as thrown:
        raise InvalidResponse("the handler's result cannot be written as JSON: %s" % thrown) from None


def _run(awaitable):
    """For a plain function that returns a coroutine, such as a decorated `async def`."""
    import asyncio

    async def wait():
        return await awaitable

    return asyncio.run(wait())
