"""What `import koine` gives a function that is deployed with `--allow`: it asks the platform over a loopback port of its own sandbox, with a token
that ends with its instance. See docs/triggers.md."""

import json
import os
import uuid
from datetime import datetime, timezone
from http.client import HTTPConnection
from urllib.parse import quote, urlencode, urlsplit

_TIMEOUT_SECONDS = 300


class KoineError(Exception):
    """An answer of the platform that is an error; `code` is its own, such as `forbidden`."""

    def __init__(self, status, error):
        hint = error.get("hint")
        message = error.get("message") or "The platform answered %d" % status
        super().__init__("%s. %s" % (message, hint) if hint else message)
        self.status = status
        self.code = error.get("code", "unexpected-answer")


def invoke(name, payload=None, *, later=False, qualifier=None):
    """Hands a payload to a function of the same namespace and returns its result; with `later` its activation's id once the call is on disk."""
    query = {key: value for key, value in (("mode", "async" if later else None), ("qualifier", qualifier)) if value}
    path = "/functions/%s/invoke?%s" % (quote(name, safe=""), urlencode(query))
    answer = _ask("POST", path, {} if payload is None else payload)
    return answer["activationId"] if later else answer


def publish(topic, data, *, type="koine.topic.message", subject=None, source=None, id=None):
    """Publishes an event to a topic; it is on disk for every subscription when this returns."""
    event = {
        "specversion": "1.0",
        "id": id or str(uuid.uuid4()),
        "source": source or "/topics/%s" % topic,
        "type": type,
        "time": datetime.now(timezone.utc).isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
    if subject is not None:
        event["subject"] = subject
    return _ask("POST", "/topics/%s" % quote(topic, safe=""), event, "application/cloudevents+json")


def schedule(name, *, function, **settings):
    """Makes or replaces a schedule: `schedule("remind-17", function="remind", at="2030-01-31T09:00:00Z", data={"id": 17})`."""
    rule = {"kind": "schedule", "function": function, "settings": settings}
    return _ask("PUT", "/triggers/%s" % quote(name, safe=""), rule)


def unschedule(name):
    """Deletes a schedule."""
    _ask("DELETE", "/triggers/%s" % quote(name, safe=""))


def secret(name):
    """The value that a secret has now; one that the function was deployed with."""
    return _ask("GET", "/secrets/%s" % quote(name, safe=""), at_root=True)["value"]


def _ask(method, path, body=None, content_type="application/json", at_root=False):
    base = "" if at_root else "/v1/namespaces/%s" % os.environ["KOINE_NAMESPACE"]
    headers = {"Authorization": "Bearer %s" % os.environ["KOINE_TOKEN"]}
    if body is not None:
        headers["Content-Type"] = content_type
    connection = HTTPConnection(urlsplit(os.environ["KOINE_API"]).netloc, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, base + path, None if body is None else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        content = answer.read()
        is_json = "json" in answer.headers.get("Content-Type", "")
        value = json.loads(content) if is_json and content else content
        if answer.status >= 400 or answer.headers.get("x-koine-error"):
            raise KoineError(answer.status, value.get("error", {}) if isinstance(value, dict) else {})
        return value
    finally:
        connection.close()
