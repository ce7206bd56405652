import assert from "node:assert/strict";
import { test } from "node:test";
import { HEAD_BYTES_MAX, HeadReader } from "./reader.ts";

const read = (text: string): string => new HeadReader().read(Buffer.from(text, "latin1"), 0);
const HOST = "Host: localhost\r\n";

test("a common request is read: method, target, headers as sent, and where its body begins", () => {
  const reader = new HeadReader();
  const text =
    'POST /a/b?c=%20&d=[] HTTP/1.1\r\nHost: a:80\r\nX-Y:  z \t\r\ncontent-LENGTH: 12\r\nConnection: CLOSE\r\n\r\n{"a":1}';
  assert.equal(reader.read(Buffer.from(`rest${text}`), 4), "odd");
  const plain = text.replace("[]", "e");
  assert.equal(reader.read(Buffer.from(`rest${plain}`), 4), "request");
  const { method, target, fields, length } = reader.head;
  assert.deepEqual([method, target, fields.bodyLength, fields.closes], ["POST", "/a/b?c=%20&d=e", 12, true]);
  assert.equal(plain.slice(length), '{"a":1}');
  assert.deepEqual(fields.headers.raw, ["Host", "a:80", "X-Y", "z", "content-LENGTH", "12", "Connection", "CLOSE"]);
  assert.equal(fields.headers.get("x-y"), "z");
});

test("the same header lines are understood once, others anew", () => {
  const reader = new HeadReader();
  const fieldsOf = (text: string) => {
    assert.equal(reader.read(Buffer.from(text), 0), "request");
    return reader.head.fields;
  };
  const first = fieldsOf(`GET /a HTTP/1.1\r\n${HOST}Cookie: a=1\r\n\r\n`);
  assert.equal(fieldsOf(`PUT /b?c HTTP/1.1\r\n${HOST}Cookie: a=1\r\n\r\nmore`), first);
  const other = fieldsOf(`GET /a HTTP/1.1\r\n${HOST}Cookie: a=2\r\n\r\n`);
  assert.notEqual(other, first);
  assert.equal(other.headers.get("cookie"), "a=2");
});

test("a head is complete with its empty line, and until then anything that may become one is waited for", () => {
  const whole = `GET /fn/hello HTTP/1.1\r\n${HOST}A: b\r\n\r\n`;
  for (let length = 1; length < whole.length; length++)
    assert.equal(read(whole.slice(0, length)), "incomplete", whole.slice(0, length));
  assert.equal(read(whole), "request");
});

test("what can never become a common request is left to others at once", () => {
  const beginnings = [
    "\x16\x03\x01",
    "\r\n",
    " GET",
    "get / HTTP/1.1",
    "GET / HTTP/1.1\n",
    "GET /\rx",
    "GET / HTTP/1.1\r\nA: b\nC: d",
    "GET /\x00",
  ];
  for (const text of beginnings) assert.equal(read(text), "odd", JSON.stringify(text));
  assert.equal(read(`GET /${"x".repeat(HEAD_BYTES_MAX)}`), "odd");
  assert.equal(read(`GET / HTTP/1.1\r\n${HOST}A: ${"x".repeat(HEAD_BYTES_MAX)}\r\n\r\n`), "odd");
});

test("request lines that are not exactly as RFC 9112 has them, or rare, are odd", () => {
  const lines = [
    "GET  / HTTP/1.1",
    "GET / HTTP/1.1 ",
    "GET /  HTTP/1.1",
    "GET\t/ HTTP/1.1",
    "GET / HTTP/1.0",
    "GET / HTTP/2.0",
    "GET / http/1.1",
    "GET /",
    "GET HTTP/1.1",
    "GET  HTTP/1.1",
    "Get / HTTP/1.1",
    "GETT / HTTP/1.1",
    "CONNECT a:80 HTTP/1.1",
    "TRACE / HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET http://a/ HTTP/1.1",
    "GET a HTTP/1.1",
    "GET /a#b HTTP/1.1",
    'GET /" HTTP/1.1',
    "GET /\\ HTTP/1.1",
    "GET /{} HTTP/1.1",
    "GET /%zz HTTP/1.1",
    "GET /a%2 HTTP/1.1",
    "GET /\x7f HTTP/1.1",
    "GET /\xe9 HTTP/1.1",
  ];
  for (const line of lines) assert.equal(read(`${line}\r\n${HOST}\r\n`), "odd", line);
});

test("header lines that could be read in two ways are odd, and so is what changes the framing or the protocol", () => {
  const lines = [
    "A : b",
    "A\t: b",
    ": b",
    "A",
    "A b: c",
    "\xe9: b",
    "A: b\r\n c",
    "A: b\r\n\tc",
    "A: b\x00",
    "A: b\x7f",
    "A: b\rB: c",
    "A: b\nB: c",
    "Host: other",
    "Content-Length: 1\r\nContent-Length: 1",
    "Content-Length: +1",
    "Content-Length: -1",
    "Content-Length: 01",
    "Content-Length: 1.0",
    "Content-Length: 0x1",
    "Content-Length: 1, 1",
    "Content-Length:",
    "Content-Length: 9999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Content-Length: 1\r\nTransfer-Encoding: chunked",
    "Expect: 100-continue",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Connection: close, x",
    "Connection:",
    "Proxy-Connection: close",
    "HTTP2-Settings: a",
  ];
  for (const line of lines) assert.equal(read(`GET / HTTP/1.1\r\n${HOST}${line}\r\n\r\n`), "odd", line);
  for (const host of ["", "a b", "a/b", "a@b", "a,b", "[::1", "a:b", "a:123456", "\xe9"])
    assert.equal(read(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`), "odd", host);
  for (const host of ["a", "a:", "a:80", "1.2.3.4", "[::1]", "[::1]:80", "a_b.c-d"])
    assert.equal(read(`GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`), "request", host);
  assert.equal(read("GET / HTTP/1.1\r\n\r\n"), "odd");
});

test("values keep what is white space to Unicode only", () => {
  const reader = new HeadReader();
  assert.equal(reader.read(Buffer.from(`GET / HTTP/1.1\r\n${HOST}A: \t\xa0b\xa0 \r\n\r\n`, "latin1"), 0), "request");
  assert.equal(reader.head.fields.headers.get("a"), "\xa0b\xa0");
});
