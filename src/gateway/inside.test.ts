import assert from "node:assert/strict";
import { test } from "node:test";
import { allowanceFor } from "./inside.ts";

test("what a function asks for decides what it must be allowed", () => {
  const of = (request: string): string => {
    const [method = "", path = ""] = request.split(" ");
    return allowanceFor(method, path, "team") ?? "nothing";
  };
  const expected: Readonly<Record<string, string>> = {
    "POST /v1/namespaces/team/functions/f/invoke": "invoke",
    "GET /fn/f": "invoke",
    "PUT /ns/team/fn/f/a/b": "invoke",
    "GET /v1/namespaces/team/activations/1/result": "invoke",
    "POST /v1/namespaces/team/topics/t": "publish",
    "POST /v1/namespaces/team/triggers/t/events": "publish",
    "PUT /v1/namespaces/team/triggers/t": "schedule",
    "POST /v1/namespaces/team/triggers/t/pause": "schedule",
    "DELETE /v1/namespaces/team/topics/t": "nothing",
    "PUT /v1/namespaces/team/functions/f": "nothing",
    "GET /v1/namespaces/team/secrets": "nothing",
    "GET /v1/namespaces/team/activations": "nothing",
    "POST /v1/namespaces/other/topics/t": "nothing",
    "POST /v1/namespaces/%74eam/topics/t": "nothing",
    "POST /v1/namespaces/team/triggers/t/test": "nothing",
    "GET /v1/status": "nothing",
    "GET /metrics": "nothing",
    "POST /v1/code": "nothing",
  };
  assert.deepEqual(Object.fromEntries(Object.keys(expected).map((request) => [request, of(request)])), expected);
});
