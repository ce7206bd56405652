"""Statistics of a text in any language that Unicode knows, with Python's standard library alone."""

import base64
import json
import re
from email.message import Message

from text import measure

TEXT_BYTES_MAX = 5 * 1024 * 1024


def handler(event, context):
    """POST a text over HTTP, or invoke with {"text": "…"}."""
    if not isinstance(event, dict) or "requestContext" not in event:
        text = event.get("text") if isinstance(event, dict) else None
        if not isinstance(text, str):
            raise ValueError('the event must be {"text": "…"}')
        return measure(text)
    if event["requestContext"]["http"]["method"] != "POST":
        return answer(405, {"error": "POST a text"}, {"allow": "POST"})
    body = event.get("body") or ""
    raw = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    if len(raw) > TEXT_BYTES_MAX:
        return answer(413, {"error": f"the text is larger than {TEXT_BYTES_MAX} bytes"})
    charset = charset_of(event["headers"].get("content-type", ""))
    try:
        text = raw.decode(charset)
    except LookupError:
        return answer(415, {"error": f"there is no charset '{charset}'"})
    except UnicodeDecodeError as error:
        return answer(400, {"error": f"the body is not {charset}: {error.reason} at byte {error.start}"})
    if not text.strip():
        return answer(400, {"error": "the body is empty: POST a text"})
    return answer(200, measure(text))


def charset_of(content_type):
    header = Message()
    header["content-type"] = content_type
    charset = header.get_content_charset() or "utf-8"
    # "utf-8-sig" also takes away the mark that some editors put in front of a text.
    return "utf-8-sig" if re.fullmatch("utf-?8", charset) else charset


def answer(status, body, headers=None):
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json; charset=utf-8", **(headers or {})},
        "body": json.dumps(body, ensure_ascii=False) + "\n",
    }
