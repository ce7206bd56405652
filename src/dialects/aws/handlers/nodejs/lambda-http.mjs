/**
 * API Gateway's payload format 2.0: an HTTP request as an event, and a handler's result as an HTTP answer.
 *
 * @typedef {import("../../../../../bootstrap/nodejs/call.mjs").Call} Call
 * @typedef {import("../../../../../bootstrap/nodejs/call.mjs").HttpHead} HttpHead
 * @typedef {import("../../../../../bootstrap/nodejs/load.mjs").Instance} Instance
 */

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/** Bodies of these types are text in an event; all others are in base64, forms included: as API Gateway has it. */
const TEXT_TYPE = /^(text\/|application\/(json|javascript|xml|[\w.-]+\+(json|xml))\b)/i;
const ACCOUNT = "000000000000";
const API = "koine";

/**
 * @param {HttpHead} head
 * @param {Buffer} body
 */
export function httpEvent(head, body) {
  const questionAt = head.url.indexOf("?");
  const rawPath = questionAt < 0 ? head.url : head.url.slice(0, questionAt);
  const rawQueryString = questionAt < 0 ? "" : head.url.slice(questionAt + 1);
  const { headers, cookies } = joinHeaders(head.headers);
  const domainName = headers["host"] ?? head.origin.replace(/^\w+:\/\//, "");
  const nowMs = Date.now();
  const query = parseQuery(rawQueryString);
  const isBase64Encoded = body.length > 0 && !isText(headers, body);
  return {
    version: "2.0",
    routeKey: "$default",
    rawPath,
    rawQueryString,
    ...(cookies.length === 0 ? {} : { cookies }),
    headers,
    ...(query === null ? {} : { queryStringParameters: query }),
    requestContext: {
      accountId: ACCOUNT,
      apiId: API,
      domainName,
      domainPrefix: domainName.split(".")[0] ?? "",
      http: {
        method: head.method,
        path: rawPath,
        protocol: "HTTP/1.1",
        sourceIp: head.remoteAddress,
        userAgent: headers["user-agent"] ?? "",
      },
      requestId: head.id,
      routeKey: "$default",
      stage: "$default",
      time: clfTime(nowMs),
      timeEpoch: nowMs,
      ...requestContextOf(head),
    },
    ...(body.length === 0 ? {} : { body: body.toString(isBase64Encoded ? "base64" : "utf8") }),
    isBase64Encoded,
  };
}

/**
 * What the dialect knows of a request to an address of its own: whose API it is, and who asks.
 * @param {HttpHead} head
 * @returns {Record<string, unknown> | undefined}
 */
function requestContextOf({ context }) {
  const lambda = /** @type {{ requestContext?: Record<string, unknown> } | undefined} */ (context?.["lambda"]);
  return lambda?.requestContext;
}

/**
 * @param {Call} call
 * @param {unknown} result
 * @param {Instance} instance
 */
export function sendHttpResult(call, result, instance) {
  const { status, headers, body } = httpAnswer(result, instance);
  call.respond(status, headers);
  if (body.length === 0) call.end();
  else call.end(body);
}

/**
 * @param {unknown} result
 * @param {Pick<Instance, "invalidResponse">} instance
 * @returns {{ status: number, headers: string[], body: Buffer | string }}
 */
export function httpAnswer(result, instance) {
  if (typeof result !== "object" || result === null || !("statusCode" in result)) {
    // A result without a status is the body of a successful JSON answer; text stays as it is.
    const headers = ["content-type", "application/json"];
    return { status: 200, headers, body: typeof result === "string" ? result : stringify(result, instance) };
  }
  const answer = /** @type {Record<string, unknown>} */ (result);
  const status = Number(answer["statusCode"]);
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw instance.invalidResponse(`statusCode ${String(answer["statusCode"])} is not one of 200 to 599`);
  }
  const body = bodyOf(answer["body"], answer["isBase64Encoded"] === true, instance);
  return { status, headers: answerHeaders(answer), body };
}

/**
 * Headers of an answer, or of a streamed answer's metadata.
 * @param {Record<string, unknown>} answer
 * @returns {string[]} names and values in turn
 */
export function answerHeaders(answer) {
  /** @type {string[]} */
  const flat = [];
  let typed = false;
  const add = (/** @type {string} */ name, /** @type {unknown} */ value) => {
    const lower = name.toLowerCase();
    // The length and the coding of the transfer are the platform's business.
    if (value === undefined || value === null || lower === "content-length" || lower === "transfer-encoding") return;
    typed ||= lower === "content-type";
    flat.push(lower, String(value));
  };
  const multiple = entries(answer["multiValueHeaders"]);
  const names = new Set(multiple.map(([name]) => name.toLowerCase()));
  for (const [name, value] of entries(answer["headers"])) {
    if (names.has(name.toLowerCase())) continue;
    for (const one of Array.isArray(value) ? value : [value]) add(name, one);
  }
  for (const [name, values] of multiple)
    for (const value of Array.isArray(values) ? values : [values]) add(name, value);
  const cookies = answer["cookies"];
  if (Array.isArray(cookies)) for (const cookie of cookies) add("set-cookie", cookie);
  if (!typed) flat.push("content-type", "application/json");
  return flat;
}

/**
 * @param {unknown} body
 * @param {boolean} isBase64Encoded
 * @param {Pick<Instance, "invalidResponse">} instance
 * @returns {Buffer}
 */
function bodyOf(body, isBase64Encoded, instance) {
  if (body === undefined || body === null) return Buffer.alloc(0);
  if (typeof body === "string") return Buffer.from(body, isBase64Encoded ? "base64" : "utf8");
  if (typeof body === "number" || typeof body === "boolean") return Buffer.from(String(body));
  throw instance.invalidResponse(
    "`body` of the result is not text: use JSON.stringify, or base64 with isBase64Encoded",
  );
}

/**
 * @param {unknown} value
 * @param {Pick<Instance, "invalidResponse">} instance
 */
function stringify(value, instance) {
  try {
    return JSON.stringify(value) ?? "null";
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    throw instance.invalidResponse(`the result cannot be written as JSON: ${detail}`);
  }
}

/** @param {unknown} value @returns {[string, unknown][]} */
function entries(value) {
  return typeof value === "object" && value !== null ? Object.entries(value) : [];
}

/**
 * @param {readonly string[]} flat
 * @returns {{ headers: Record<string, string>, cookies: string[] }} names in lower case; values of one name joined by commas
 */
function joinHeaders(flat) {
  /** @type {Record<string, string>} */
  const headers = {};
  /** @type {string[]} */
  const cookies = [];
  for (let index = 0; index < flat.length; index += 2) {
    const name = (flat[index] ?? "").toLowerCase();
    const value = flat[index + 1] ?? "";
    if (name === "cookie") {
      cookies.push(...value.split(";").map((part) => part.trim()));
    } else {
      const before = Object.hasOwn(headers, name) ? headers[name] : undefined;
      Object.defineProperty(headers, name, {
        value: before === undefined ? value : `${before},${value}`,
        configurable: true,
        enumerable: true,
        writable: true,
      });
    }
  }
  return { headers, cookies: cookies.filter((cookie) => cookie !== "") };
}

/** @param {string} text @returns {Record<string, string> | null} values of one name joined by commas; null when there are none */
function parseQuery(text) {
  if (text === "") return null;
  /** @type {Map<string, string>} */
  const joined = new Map();
  for (const [name, value] of new URLSearchParams(text)) {
    const before = joined.get(name);
    joined.set(name, before === undefined ? value : `${before},${value}`);
  }
  return joined.size === 0 ? null : Object.fromEntries(joined);
}

/**
 * @param {Record<string, string>} headers
 * @param {Buffer} body
 */
function isText(headers, body) {
  const coding = headers["content-encoding"];
  if (coding !== undefined && coding !== "identity") return false;
  const type = headers["content-type"];
  return type === undefined ? isUtf8(body) : TEXT_TYPE.test(type.trim());
}

/** @param {Buffer} bytes */
function isUtf8(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** `12/Mar/2020:19:03:58 +0000` @param {number} timeMs */
function clfTime(timeMs) {
  const at = new Date(timeMs);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const day = `${two(at.getUTCDate())}/${MONTHS[at.getUTCMonth()] ?? ""}/${at.getUTCFullYear()}`;
  return `${day}:${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())} +0000`;
}
