import { installWebGlobals, lightResponse, lights, makeRequest, rehearseWebGlobals } from "./web-globals.mjs";

const { Readable } = process.getBuiltinModule("node:stream");

/**
 * Handler model `web`: `export default { fetch(request, context) }`, a default function `(request, context) → Response`, or a named
 * export of either form. See docs/handler-models.md.
 *
 * @typedef {import("../../../../../bootstrap/nodejs/call.mjs").Call} Call
 * @typedef {import("../../../../../bootstrap/nodejs/load.mjs").Instance} Instance
 * @typedef {(request: Request, context: WebContext) => unknown} WebHandler
 */
export const model = "web";

/**
 * Puts the light classes in place before module-level code picks them up, except for what is a Lambda function by its name.
 *
 * @param {Instance} instance
 * @param {{ explicit: boolean }} options
 */
export function prepare(instance, { explicit }) {
  if (explicit || instance.exportName !== "handler") installWebGlobals();
}

/**
 * @param {Record<string, unknown>} exports
 * @param {string | null} exportName
 * @param {{ explicit: boolean }} options
 * @returns {WebHandler | null}
 */
export function select(exports, exportName, { explicit }) {
  if (exportName === null) return callable(exports["default"]) ?? (explicit ? callable(exports["handler"]) : null);
  // By its name alone `handler` is a Lambda function; whoever means a web handler says so by the model.
  if (exportName === "handler" && !explicit) return null;
  const [first, ...rest] = exportName in exports ? [exportName] : exportName.split(".");
  /** @type {unknown} */
  let owner;
  let value = exports[first ?? ""];
  for (const name of rest) {
    owner = value;
    value = /** @type {Record<string, unknown> | null | undefined} */ (value)?.[name];
  }
  return callable(value, owner);
}

/**
 * @param {unknown} value
 * @param {unknown} [owner]
 * @returns {WebHandler | null}
 */
function callable(value, owner) {
  if (typeof value === "object" && value !== null && "fetch" in value && typeof value.fetch === "function") {
    return value.fetch.bind(value);
  }
  if (typeof value !== "function") return null;
  // A function with a `fetch` of its own is an application object of a framework.
  if ("fetch" in value && typeof value.fetch === "function") return value.fetch.bind(value);
  return owner === undefined ? /** @type {WebHandler} */ (value) : value.bind(owner);
}

/**
 * @param {WebHandler} handler
 * @param {Instance} instance
 */
export function adapt(handler, instance) {
  installWebGlobals();
  return server(handler, instance);
}

/**
 * @param {WebHandler} handler
 * @param {Instance} instance
 */
function server(handler, instance) {
  return async (/** @type {Call} */ call) => {
    const context = new WebContext(call, instance);
    const { head } = call;
    const isEvent = head.kind === "event" && head.contentType.startsWith("application/cloudevents+json");
    const parts = isEvent
      ? await cloudEventParts(call)
      : head.kind === "http"
        ? httpParts(call, head)
        : eventParts(call, head);
    const request = makeRequest(parts);
    const returned = handler(request, context);
    const response = isThenable(returned) ? await returned : returned;
    const light = typeof response === "object" && response !== null ? lightResponse(response) : null;
    if (light === null) await sendResponse(call, checked(response, instance));
    else if (typeof light.body === "object" && light.body !== null && "getReader" in light.body) {
      await sendStream(call, light.body, light);
    } else {
      call.respond(light.status, light.headers);
      if (light.body === null) call.end();
      else call.end(light.body);
    }
    const waiting = WebContext.waitingOf(context);
    if (waiting.length > 0) await settled(waiting, call);
  };
}

/** @param {Instance} instance @param {() => Call} makeCall */
export async function rehearse(instance, makeCall) {
  const { Response, Headers } = lights;
  /** @type {WebHandler[]} */
  const handlers = [
    () => new Response("ok", { headers: { "x-a": "b" } }),
    async (request) => Response.json([await request.json(), request.method, request.url, request.headers.get("host")]),
    async (request) => {
      const headers = new Headers([["x-a", await request.text()]]);
      return new Response(Buffer.from("ok"), { status: 201, headers });
    },
  ];
  rehearseWebGlobals();
  for (const handler of handlers) {
    const selected = select({ default: handler }, null, { explicit: false });
    if (selected !== null) await server(selected, instance)(makeCall());
  }
}

/** What a web handler is told beside the request. */
class WebContext {
  #call;
  #instance;
  /** @type {Promise<unknown>[]} */
  #waiting = [];

  /** @param {WebContext} context */
  static waitingOf(context) {
    return context.#waiting;
  }

  /**
   * @param {Call} call
   * @param {Instance} instance
   */
  constructor(call, instance) {
    this.#call = call;
    this.#instance = instance;
  }

  /** Also the activation id. */
  get requestId() {
    return this.#call.head.id;
  }

  get activationId() {
    return this.#call.head.id;
  }

  get functionName() {
    return this.#instance.function.name;
  }

  get namespace() {
    return this.#instance.function.namespace;
  }

  get version() {
    return this.#instance.function.version;
  }

  /** 1 for the first. */
  get attempt() {
    return this.#call.head.attempt;
  }

  /** When the platform gives up on this call. */
  get deadline() {
    return new Date(this.#call.head.deadlineMs);
  }

  /** Path below which the function is reached, such as `/fn/hello`. */
  get basePath() {
    return this.#call.head.kind === "http" ? this.#call.head.basePath : "";
  }

  get remoteAddress() {
    return this.#call.head.kind === "http" ? this.#call.head.remoteAddress : "";
  }

  /** Fires when the client is gone. */
  get signal() {
    return this.#call.signal;
  }

  get env() {
    return process.env;
  }

  remainingMs() {
    return this.#call.remainingMs();
  }

  /**
   * Keeps the instance at work for this call until the promise settles, while the answer goes out already; at most to the deadline.
   * @param {Promise<unknown>} promise
   */
  waitUntil(promise) {
    this.#waiting.push(Promise.resolve(promise));
  }
}

/**
 * @param {Call} call
 * @param {import("../../../../../bootstrap/nodejs/call.mjs").HttpHead} head
 */
function httpParts(call, head) {
  return { method: head.method, url: head.origin + head.url, headers: head.headers, ...bodyParts(call) };
}

/**
 * @param {Call} call
 * @param {import("../../../../../bootstrap/nodejs/call.mjs").EventHead} head
 */
function eventParts(call, head) {
  const headers = ["content-type", head.contentType];
  return { method: "POST", url: "http://localhost/", headers, ...bodyParts(call) };
}

/**
 * An event of a trigger: attributes as headers, its data as the body.
 *
 * @param {Call} call
 */
async function cloudEventParts(call) {
  // Loaded when there is one: most calls are none.
  const { toBinaryMode } = await import("./cloud-event.mjs");
  const { headers, body } = toBinaryMode(await call.readAll());
  const stream = async function* () {
    yield body;
  };
  return {
    method: "POST",
    url: "http://localhost/",
    headers,
    signal: () => call.signal,
    readAll: async () => body,
    stream,
  };
}

/** @param {Call} call */
function bodyParts(call) {
  return { signal: () => call.signal, readAll: () => call.readAll(), stream: () => call };
}

/**
 * @param {unknown} response
 * @param {Instance} instance
 * @returns {Response}
 */
function checked(response, instance) {
  // Not `instanceof` alone: polyfills and other copies of undici answer with classes of their own.
  if (
    typeof response === "object" &&
    response !== null &&
    "status" in response &&
    "headers" in response &&
    "body" in response
  ) {
    return /** @type {Response} */ (response);
  }
  const what = response === null ? "null" : response === undefined ? "nothing" : `a value of type ${typeof response}`;
  throw instance.invalidResponse(
    `the handler returned ${what}, not a Response: return new Response(text) or Response.json(value)`,
  );
}

/**
 * @param {Call} call
 * @param {Response} response
 */
async function sendResponse(call, response) {
  const { status, body } = response;
  const headers = [];
  for (const [name, value] of response.headers) headers.push(name, value);
  if (response.bodyUsed) throw usedAlready();
  if (body !== null) return await sendStream(call, body, { status, headers });
  call.respond(status, headers);
  return call.end();
}

/**
 * @param {Call} call
 * @param {ReadableStream<Uint8Array>} body
 * @param {{ status: number, headers: readonly string[] }} head
 */
async function sendStream(call, body, { status, headers }) {
  if (Readable.isDisturbed(/** @type {never} */ (body))) throw usedAlready();
  const reader = body.getReader();
  call.respond(status, headers);
  const onAbort = () => void reader.cancel(call.signal.reason).catch(() => {});
  call.signal.addEventListener("abort", onAbort, { once: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      await call.write(value);
    }
  } finally {
    call.signal.removeEventListener("abort", onAbort);
  }
  return call.end();
}

function usedAlready() {
  return new TypeError("The Response's body has been used already");
}

/**
 * @param {Promise<unknown>[]} waiting may grow while it is awaited
 * @param {Call} call
 */
async function settled(waiting, call) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const deadline = new Promise((resolve) => {
    timer = setTimeout(resolve, Math.min(call.remainingMs(), 2_147_483_647), "deadline");
  });
  while (waiting.length > 0) {
    const results = await Promise.race([Promise.allSettled(waiting.splice(0)), deadline]);
    if (typeof results === "string" || !Array.isArray(results)) break;
    for (const result of results) if (result.status === "rejected") console.error("waitUntil:", result.reason);
  }
  clearTimeout(timer);
}

/** @param {unknown} value @returns {value is PromiseLike<unknown>} */
function isThenable(value) {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
