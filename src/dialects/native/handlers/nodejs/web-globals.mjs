/**
 * `Request` and `Response` that cost next to nothing until something is asked of them that only the real ones can do.
 *
 * Both share the prototype of Node's own classes, so `instanceof`, `class extends`, static methods and properties work in either
 * direction. A light object holds plain values; the first use of anything beyond those makes the real object, and from then on every
 * member is the real one's. `Request`, `Response` and `fetch` are replaced by functions that understand both.
 *
 * Known caveats: code that looks into a Request or Response without going through these functions (a copy of undici from npm, a cache
 * storage) does not know the light ones.
 */

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Printable ASCII without white space at either end: what needs no normalising. */
const VALUE = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/;
const COPIED_BYTES_MAX = 65_536;

/** @type {WeakMap<object, LightResponse>} */
const responses = new WeakMap();
/** @type {WeakMap<object, LightRequest>} */
const requests = new WeakMap();
/** Node's own and what replaces them; made when first needed, because loading Node's own takes some 30 ms. @type {Classes | null} */
let classes = null;

/**
 * @typedef {object} Globals
 * @property {typeof Request} Request
 * @property {typeof Response} Response
 * @property {typeof fetch} fetch
 *
 * @typedef {{ native: Globals, light: Globals }} Classes
 *
 * @typedef {object} LightResponse
 * @property {number} status
 * @property {string[]} headers names in lower case and values in turn
 * @property {string | Buffer | null} body
 * @property {Response | null} native once it was needed
 *
 * @typedef {object} RequestParts
 * @property {string} method
 * @property {string} url
 * @property {readonly string[]} headers names and values in turn
 * @property {() => AbortSignal} signal
 * @property {() => Promise<Buffer>} readAll
 * @property {() => AsyncIterable<Buffer>} stream
 *
 * @typedef {RequestParts & { bodyUsed: boolean, light: Headers | null, native: Request | null }} LightRequest
 */

/** A Response's plain values, or null when only the object itself can tell. @param {object} response */
export function lightResponse(response) {
  const values = responses.get(response);
  return values === undefined || values.native !== null ? null : values;
}

/** @param {RequestParts} parts @returns {Request} */
export function makeRequest(parts) {
  const request = Object.create(theClasses().native.Request.prototype);
  requests.set(request, { ...parts, bodyUsed: false, light: null, native: null });
  return request;
}

/** Puts the light classes in place; doing so again changes nothing. */
export function installWebGlobals() {
  put(theClasses().light);
}

/** Puts Node's own back: for a rehearsal, whose process may become one that has no need of the light ones. */
export function removeWebGlobals() {
  put(theClasses().native);
}

/** @param {Globals} globals */
function put(globals) {
  for (const [name, value] of Object.entries(globals)) define(globalThis, name, value);
}

function theClasses() {
  if (classes === null) {
    const native = { Request: globalThis.Request, Response: globalThis.Response, fetch: globalThis.fetch };
    classes = { native, light: makeLight(native) };
    teachMembers(native);
  }
  return classes;
}

/** Makes the members of Node's prototypes work on light objects too. @param {Globals} native */
function teachMembers(native) {
  forwardMembers(native.Response.prototype, realResponse);
  forwardMembers(native.Request.prototype, realRequest);
  quicken(native.Response.prototype, responses, {
    status: ({ status }) => status,
    ok: ({ status }) => status < 300,
  });
  quicken(native.Request.prototype, requests, {
    method: ({ method }) => method,
    url: ({ url }) => new URL(url).href,
    headers: lightHeaders,
    signal: ({ signal }) => signal(),
    bodyUsed: ({ bodyUsed }) => bodyUsed,
  });
  quickenBody(native.Request.prototype);
}

/**
 * @param {object} prototype
 * @param {(object: object) => object} realOf
 */
function forwardMembers(prototype, realOf) {
  for (const key of Reflect.ownKeys(prototype)) {
    const found = Object.getOwnPropertyDescriptor(prototype, key);
    if (found === undefined || key === "constructor" || !found.configurable) continue;
    const { get, value } = found;
    if (get !== undefined) {
      Object.defineProperty(prototype, key, {
        ...found,
        get() {
          return get.call(realOf(this));
        },
      });
    } else if (typeof value === "function") {
      const member = /** @type {(this: object, ...given: unknown[]) => unknown} */ (
        function (...given) {
          return value.apply(realOf(this), given);
        }
      );
      Object.defineProperty(member, "name", { value: value.name });
      Object.defineProperty(prototype, key, { ...found, value: member });
    }
  }
}

/**
 * Answers some getters from the plain values.
 *
 * @template {{ native: object | null }} Light
 * @param {object} prototype
 * @param {WeakMap<object, Light>} lights
 * @param {Record<string, (values: Light) => unknown>} getters
 */
function quicken(prototype, lights, getters) {
  for (const [key, quick] of Object.entries(getters)) {
    const found = Object.getOwnPropertyDescriptor(prototype, key);
    const get = found?.get;
    if (found === undefined || get === undefined) continue;
    Object.defineProperty(prototype, key, {
      ...found,
      get() {
        const values = lights.get(this);
        return values === undefined || values.native !== null ? get.call(this) : quick(values);
      },
    });
  }
}

/** Reads a light request's body straight from what arrived. @param {object} prototype */
function quickenBody(prototype) {
  /** @type {Record<string, (bytes: Buffer) => unknown>} */
  const readers = {
    text: (bytes) => withoutMark(bytes).toString("utf8"),
    json: (bytes) => JSON.parse(withoutMark(bytes).toString("utf8")),
    arrayBuffer: (bytes) => ownBytes(bytes).buffer,
    bytes: (bytes) => ownBytes(bytes),
  };
  const members = /** @type {Record<string, unknown>} */ (prototype);
  for (const [key, read] of Object.entries(readers)) {
    const slow = members[key];
    if (typeof slow !== "function") continue;
    const member = /** @type {(this: object) => unknown} */ (
      async function () {
        const values = requests.get(this);
        if (values === undefined || values.native !== null) return slow.call(this);
        if (values.bodyUsed) throw new TypeError("Body is unusable: Body has already been read");
        values.bodyUsed = values.method !== "GET" && values.method !== "HEAD";
        return read(await values.readAll());
      }
    );
    Object.defineProperty(member, "name", { value: key });
    Object.defineProperty(prototype, key, { configurable: true, enumerable: true, writable: true, value: member });
  }
}

/** @param {Globals} native @returns {Globals} */
function makeLight(native) {
  /** @type {Function} */
  const Response = function (/** @type {unknown} */ body, /** @type {ResponseInit | undefined} */ init) {
    const values = new.target === Response ? tryLight(body, init, "text/plain;charset=UTF-8") : null;
    if (values !== null) return wrap(native, values);
    return Reflect.construct(native.Response, arguments, targetOf(new.target, Response, native.Response));
  };
  imitate(Response, native.Response, 0);
  define(Response, "json", (/** @type {unknown} */ value, /** @type {ResponseInit} */ init) => {
    const text = JSON.stringify(value);
    const values = text === undefined ? null : tryLight(text, init, "application/json");
    return values === null ? native.Response.json(value, init) : wrap(native, values);
  });

  /** @type {Function} */
  const Request = function (/** @type {unknown} */ input, /** @type {unknown} */ init) {
    const given = init === undefined ? [realInput(input)] : [realInput(input), init];
    return Reflect.construct(native.Request, given, targetOf(new.target, Request, native.Request));
  };
  imitate(Request, native.Request, 1);

  const fetch = (/** @type {unknown} */ input, /** @type {RequestInit} */ init) => {
    return native.fetch(/** @type {Request} */ (realInput(input)), init);
  };
  return /** @type {Globals} */ (/** @type {unknown} */ ({ Request, Response, fetch }));
}

/**
 * The class to construct: Node's own in place of the light one; subclasses of user code stay what they are.
 *
 * @param {Function | undefined} target
 * @param {Function} light
 * @param {Function} native
 */
function targetOf(target, light, native) {
  if (target === undefined) throw new TypeError(`Class constructor ${native.name} cannot be invoked without 'new'`);
  return target === light ? native : target;
}

/**
 * @param {Function} light
 * @param {Function} native
 * @param {number} length
 */
function imitate(light, native, length) {
  Object.setPrototypeOf(light, native);
  Object.defineProperty(light, "name", { value: native.name });
  Object.defineProperty(light, "length", { value: length });
  Object.defineProperty(light, "prototype", { value: native.prototype, writable: false });
  Object.defineProperty(native.prototype, "constructor", { configurable: true, writable: true, value: light });
}

/**
 * @param {object} object
 * @param {string} key
 * @param {unknown} value
 */
function define(object, key, value) {
  Object.defineProperty(object, key, { configurable: true, writable: true, enumerable: false, value });
}

/** @param {unknown} input */
function realInput(input) {
  return typeof input === "object" && input !== null ? realRequest(input) : input;
}

/** @param {object} request */
function realRequest(request) {
  const values = requests.get(request);
  return values === undefined ? request : (values.native ??= materialiseRequest(values));
}

/** @param {object} response */
function realResponse(response) {
  const values = responses.get(response);
  return values === undefined ? response : (values.native ??= materialiseResponse(values));
}

/** @param {Globals} native @param {LightResponse} values @returns {Response} */
function wrap(native, values) {
  const response = Object.create(native.Response.prototype);
  responses.set(response, values);
  return response;
}

/**
 * The plain values of `new Response(body, init)`; null when the arguments need the real constructor, be it to refuse them.
 *
 * @param {unknown} body
 * @param {ResponseInit | undefined} init
 * @param {string} textType
 * @returns {LightResponse | null}
 */
function tryLight(body, init, textType) {
  const content = copyBody(body);
  if (content === undefined) return null;
  const status = init?.status ?? 200;
  if (typeof init === "object" && init !== null) {
    if (init.statusText !== undefined) return null;
  } else if (init !== undefined) {
    return null;
  }
  if (!Number.isInteger(status) || status < 200 || status > 599) return null;
  if (content !== null && (status === 204 || status === 205 || status === 304)) return null;
  const headers = copyHeaders(init?.headers);
  if (headers === null) return null;
  if (typeof content === "string" && !hasName(headers, "content-type")) headers.push("content-type", textType);
  return { status, headers, body: content, native: null };
}

/** @param {string[]} headers @param {string} name */
function hasName(headers, name) {
  for (let index = 0; index < headers.length; index += 2) if (headers[index] === name) return true;
  return false;
}

/** @param {unknown} body @returns {string | Buffer | null | undefined} undefined when it is something else */
function copyBody(body) {
  if (body === undefined || body === null) return null;
  if (typeof body === "string") return body.isWellFormed() ? body : undefined;
  if (body instanceof Uint8Array && body.length <= COPIED_BYTES_MAX && body.buffer instanceof ArrayBuffer) {
    return Buffer.from(body);
  }
  return undefined;
}

/** @param {unknown} headers @returns {string[] | null} */
function copyHeaders(headers) {
  if (headers === undefined) return [];
  if (typeof headers !== "object" || headers === null) return null;
  if (headers instanceof Headers) {
    /** @type {string[]} */
    const copied = [];
    for (const [name, value] of headers) copied.push(name, value);
    return copied;
  }
  if (Object.getPrototypeOf(headers) !== Object.prototype) return null;
  /** @type {string[]} */
  const copied = [];
  for (const name of Object.keys(headers)) {
    const value = /** @type {Record<string, unknown>} */ (headers)[name];
    if (typeof value !== "string" || !NAME.test(name) || !VALUE.test(value)) return null;
    const lower = name.toLowerCase();
    if (hasName(copied, lower)) return null;
    copied.push(lower, value);
  }
  return copied;
}

/** @param {LightResponse} values */
function materialiseResponse({ status, headers, body }) {
  const { Response: NativeResponse } = theClasses().native;
  return new NativeResponse(body, { status, headers: pairs(headers) });
}

/** @param {LightRequest} values */
function materialiseRequest(values) {
  const { method, url, signal } = values;
  const { Request: NativeRequest } = theClasses().native;
  const bodyless = method === "GET" || method === "HEAD";
  const init = { method, headers: values.light ?? pairs(values.headers), signal: signal() };
  if (bodyless) return new NativeRequest(url, init);
  const request = new NativeRequest(url, { ...init, body: toStream(values), duplex: "half" });
  // A body that was read while the request was light is used up in the real one as well.
  if (values.bodyUsed) void request.body?.getReader().read();
  return request;
}

/** @param {LightRequest} values @returns {ReadableStream<Uint8Array>} */
function toStream(values) {
  if (values.bodyUsed) return new ReadableStream();
  /** @type {AsyncIterator<Buffer> | null} */
  let parts = null;
  return new ReadableStream(
    {
      type: "bytes",
      async pull(controller) {
        parts ??= values.stream()[Symbol.asyncIterator]();
        const { done, value } = await parts.next();
        if (done) {
          controller.close();
          controller.byobRequest?.respond(0);
        } else {
          controller.enqueue(ownBytes(value));
        }
      },
      async cancel() {
        await parts?.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

/** @param {LightRequest} values */
function lightHeaders(values) {
  values.light ??= new Headers(pairs(values.headers));
  return values.light;
}

/** @param {readonly string[]} flat @returns {[string, string][]} */
function pairs(flat) {
  /** @type {[string, string][]} */
  const result = [];
  for (let index = 0; index < flat.length; index += 2) result.push([flat[index] ?? "", flat[index + 1] ?? ""]);
  return result;
}

/** @param {Buffer} bytes without a byte order mark, which decoding drops */
function withoutMark(bytes) {
  return bytes.length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

/** A copy that shares memory with nothing else: its receiver may keep, change or transfer it. @param {Buffer} bytes */
function ownBytes(bytes) {
  return Uint8Array.from(bytes);
}
