/**
 * What a program that is run for one invocation is told, and what its end means. Shared by the bootstrap, which runs programs in sandboxes
 * of processes, and by the engine, which runs them in images.
 *
 * @typedef {import("./call.mjs").Head} Head
 */

/** A short answer waits for the program's exit code, so that a failure can still be told: up to so many bytes, for so long, in milliseconds. */
export const HELD_BYTES_MAX = 16_384;
export const HELD_MS_MAX = 100;
/** How much of what a program wrote to stderr stands in its error. */
export const TAIL_BYTES_MAX = 2_000;

/**
 * @param {Head} head
 * @param {number | null} lengthBytes of the body; null: it comes in pieces
 * @returns {Record<string, string>}
 */
export function callEnvironment(head, lengthBytes) {
  const common = {
    KOINE_INVOCATION_ID: head.id,
    KOINE_DEADLINE_MS: String(head.deadlineMs),
    KOINE_ATTEMPT: String(head.attempt),
  };
  const length = lengthBytes === null ? "" : String(lengthBytes);
  if (head.kind === "event") {
    return { ...common, CONTENT_TYPE: head.contentType, CONTENT_LENGTH: length, Http_Content_Type: head.contentType };
  }
  /** @type {Record<string, string>} */
  const headers = {};
  for (let index = 0; index + 1 < head.headers.length; index += 2) {
    const name = `Http_${(head.headers[index] ?? "").replaceAll(/[^A-Za-z0-9]/g, "_").replaceAll(/(?<=^|_)[a-z]/g, (letter) => letter.toUpperCase())}`;
    const value = head.headers[index + 1] ?? "";
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  const queryAt = head.url.indexOf("?");
  const path = queryAt < 0 ? head.url : head.url.slice(0, queryAt);
  const query = queryAt < 0 ? "" : head.url.slice(queryAt + 1);
  return {
    ...headers,
    ...common,
    Http_Method: head.method,
    Http_Path: path,
    Http_Query: query,
    Http_Content_Length: length,
    Http_ContentLength: length,
    REQUEST_METHOD: head.method,
    PATH_INFO: path,
    QUERY_STRING: query,
    SCRIPT_NAME: head.basePath,
    CONTENT_TYPE: headers["Http_Content_Type"] ?? "",
    CONTENT_LENGTH: length,
    REMOTE_ADDR: head.remoteAddress,
  };
}

/**
 * The type of an answer: what the function's environment says, else text unless it cannot be.
 *
 * @param {string | undefined} configured the variable `content_type`
 * @param {Uint8Array} first
 */
export function contentTypeOf(configured, first) {
  if (configured !== undefined && configured !== "" && !/[\r\n]/.test(configured)) return configured;
  return first.includes(0) ? "application/octet-stream" : "text/plain; charset=utf-8";
}

/**
 * Why a program has failed; null: it has not.
 *
 * @param {{ exitCode: number | null, signal: string | null }} end
 * @param {string} tail of stderr
 */
export function failureOf({ exitCode, signal }, tail) {
  if (exitCode === 0) return null;
  const how = exitCode === null ? `ended by ${signal ?? "a signal"}` : `exit status ${exitCode}`;
  const said = tail.trim();
  return said === "" ? how : `${how}: ${said}`;
}
