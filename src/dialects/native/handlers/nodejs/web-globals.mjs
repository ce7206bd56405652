import { makeAttached } from "./attached.mjs";
import {
  emptyList,
  flatOf,
  listOf,
  makeHeadersPrototype,
  pairsOf,
  placeOf,
  readHeaders,
  wrapList,
} from "./web-headers.mjs";

/**
 * `Request`, `Response` and `Headers` that cost next to nothing until something is asked of them that only the real ones can do.
 *
 * A light object holds plain values; the first use of anything beyond those makes the real object, and from then on every member is
 * the real one's. Node's own classes are loaded then, not before: that takes 25 ms and 8 MB, which most functions never need.
 * From then on the light ones inherit from them, and both count as instances of either, so `instanceof`, `class extends`, static
 * methods and properties work in either direction. `fetch` is replaced by one that understands both.
 *
 * Known caveats: code that looks into a Request or Response without going through these classes (a copy of undici from npm, a cache
 * storage) does not know the light ones.
 */

/**
 * @typedef {import("./web-headers.mjs").HeaderList} HeaderList
 *
 * @typedef {object} Globals
 * @property {typeof Request} Request
 * @property {typeof Response} Response
 * @property {typeof Headers} Headers
 * @property {typeof fetch} fetch
 *
 * @typedef {object} LightResponse
 * @property {number} status
 * @property {HeaderList} list
 * @property {string | Buffer | ReadableStream | null} body
 * @property {Headers | null} headers once they were asked for
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
 * @typedef {RequestParts & { bodyUsed: boolean, light: Headers | null, list: HeaderList | null, native: Request | null }} LightRequest
 */

const COPIED_BYTES_MAX = 65_536;
const NAMES = /** @type {const} */ (["Request", "Response", "Headers", "fetch"]);
const GETTERS = {
  Response: ["type", "url", "redirected", "status", "ok", "statusText", "headers", "body", "bodyUsed"],
  Request: [
    "method",
    "url",
    "headers",
    "destination",
    "referrer",
    "referrerPolicy",
    "mode",
    "credentials",
    "cache",
    "redirect",
  ].concat([
    "integrity",
    "keepalive",
    "isReloadNavigation",
    "isHistoryNavigation",
    "signal",
    "duplex",
    "body",
    "bodyUsed",
  ]),
};
const realOf = { Response: realResponse, Request: realRequest };
const METHODS = ["clone", "blob", "arrayBuffer", "text", "json", "formData", "bytes"];

/** Where Node keeps its own classes. The globals load them at the first look, and are gone once others take their place. */
const UNDICI = "internal/deps/undici/undici";
const { Readable } = process.getBuiltinModule("node:stream");
const loadsLater = process.getBuiltinModule("node:module").isBuiltin(UNDICI);
const ownFetch = globalThis.fetch;
/** @type {ReturnType<typeof makeAttached<LightResponse>>} */
const responses = makeAttached();
/** @type {ReturnType<typeof makeAttached<LightRequest>>} */
const requests = makeAttached();
/** @type {Globals | null} */
let natives = null;
let installed = false;

const prototypes = {
  Response: makePrototype("Response"),
  Request: makePrototype("Request"),
  Headers: makeHeadersPrototype(() => theNatives().Headers),
};
quicken(prototypes.Response, responses, {
  status: ({ status }) => status,
  ok: ({ status }) => status < 300,
  statusText: () => "",
});
quicken(prototypes.Request, requests, {
  method: ({ method }) => method,
  url: ({ url }) => new URL(url).href,
  signal: ({ signal }) => signal(),
  bodyUsed: ({ bodyUsed }) => bodyUsed,
});
quickenHeaders();
quickenBody(prototypes.Request);
export const lights = makeLights();

/** A Response's plain values, or null when only the object itself can tell. @param {object} response */
export function lightResponse(response) {
  const values = responses.get(response);
  if (values === undefined || values.native !== null) return null;
  return { status: values.status, headers: flatOf(values.list), body: values.body };
}

/** @param {RequestParts} parts @returns {Request} */
export function makeRequest(parts) {
  const request = Object.create(prototypes.Request);
  requests.set(request, { ...parts, bodyUsed: false, light: null, list: null, native: null });
  return request;
}

/** Puts the light classes in place; doing so again changes nothing. */
export function installWebGlobals() {
  if (installed) return;
  installed = true;
  if (!loadsLater) theNatives();
  putLights(globalThis);
}

/** Assigned: to look at what is there, or to define it anew, would load it. @param {object} target */
function putLights(target) {
  for (const name of NAMES) Object.assign(target, { [name]: lights[name] });
}

/** Has everything ready that can be, without putting anything in place. */
export function rehearseWebGlobals() {
  if (!loadsLater) theNatives();
  putLights({});
}

/** Node's own classes, made kin of the light ones. @returns {Globals} */
function theNatives() {
  if (natives !== null) return natives;
  const undici = loadsLater ? process.getBuiltinModule(UNDICI) : globalThis;
  const { Request, Response, Headers } = /** @type {Globals} */ (undici);
  natives = { Request, Response, Headers, fetch: ownFetch };
  for (const name of /** @type {const} */ (["Request", "Response", "Headers"])) {
    const native = natives[name];
    const light = lights[name];
    if (name !== "Headers") addMembers(prototypes[name], native.prototype, realOf[name]);
    Object.setPrototypeOf(prototypes[name], native.prototype);
    Object.setPrototypeOf(light, native);
    define(native.prototype, "constructor", light);
  }
  return natives;
}

/**
 * A prototype whose members are those of Node's own, which is only loaded when one is used that is not known here.
 *
 * @param {"Request" | "Response"} name
 */
function makePrototype(name) {
  const prototype = {};
  const real = realOf[name];
  for (const key of GETTERS[name]) {
    Object.defineProperty(prototype, key, {
      configurable: true,
      enumerable: true,
      get: named(key, function () {
        return own(name, key)?.get?.call(real(this));
      }),
    });
  }
  for (const key of METHODS) {
    const member = named(key, function (...given) {
      return own(name, key)?.value.apply(real(this), given);
    });
    Object.defineProperty(prototype, key, { configurable: true, enumerable: true, writable: true, value: member });
  }
  Object.defineProperty(prototype, Symbol.toStringTag, { configurable: true, value: name });
  const inspect = Symbol.for("nodejs.util.inspect.custom");
  Object.defineProperty(prototype, inspect, {
    configurable: true,
    writable: true,
    value: named("inspect", function (...given) {
      return own(name, inspect)?.value.apply(real(this), given);
    }),
  });
  return prototype;
}

/**
 * How Node's own class has a member.
 *
 * @param {"Request" | "Response"} name
 * @param {PropertyKey} key
 */
function own(name, key) {
  return Object.getOwnPropertyDescriptor(theNatives()[name].prototype, key);
}

/** @param {string} name @param {(this: any, ...given: any[]) => any} member */
function named(name, member) {
  return Object.defineProperty(member, "name", { value: name });
}

/**
 * Adds what a newer Node has and this file does not know.
 *
 * @param {object} prototype
 * @param {object} native
 * @param {(object: object) => object} real
 */
function addMembers(prototype, native, real) {
  for (const key of Reflect.ownKeys(native)) {
    const found = Object.getOwnPropertyDescriptor(native, key);
    if (found === undefined || key === "constructor" || Object.hasOwn(prototype, key)) continue;
    const { get, value } = found;
    if (get !== undefined) {
      const getter = named(String(key), function () {
        return get.call(real(this));
      });
      Object.defineProperty(prototype, key, { ...found, get: getter });
    } else if (typeof value === "function") {
      const member = named(String(key), function (...given) {
        return value.apply(real(this), given);
      });
      Object.defineProperty(prototype, key, { ...found, value: member });
    }
  }
}

/**
 * Answers some getters from the plain values.
 *
 * @template {{ native: object | null }} Light
 * @param {object} prototype
 * @param {ReturnType<typeof makeAttached<Light>>} known
 * @param {Record<string, (values: Light) => unknown>} getters
 */
function quicken(prototype, known, getters) {
  for (const [key, quick] of Object.entries(getters)) {
    const found = Object.getOwnPropertyDescriptor(prototype, key);
    const get = found?.get;
    if (found === undefined || get === undefined) continue;
    const getter = named(key, function () {
      const values = known.get(this);
      return values === undefined || values.native !== null ? get.call(this) : quick(values);
    });
    Object.defineProperty(prototype, key, { ...found, get: getter });
  }
}

/** The same Headers each time, before and after the real object is made. */
function quickenHeaders() {
  for (const [prototype, headersOf] of /** @type {const} */ ([
    [prototypes.Response, responseHeaders],
    [prototypes.Request, requestHeaders],
  ])) {
    const found = Object.getOwnPropertyDescriptor(prototype, "headers");
    const getter = named("headers", function () {
      return headersOf(this) ?? found?.get?.call(this);
    });
    Object.defineProperty(prototype, "headers", { ...found, get: getter });
  }
}

/** @param {object} response */
function responseHeaders(response) {
  const values = responses.get(response);
  if (values === undefined) return null;
  return (values.headers ??= wrapList(values.list, prototypes.Headers));
}

/** @param {object} request */
function requestHeaders(request) {
  const values = requests.get(request);
  if (values === undefined) return null;
  return (values.light ??= wrapList((values.list ??= listOf(values.headers)), prototypes.Headers));
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

/** @returns {Globals} */
function makeLights() {
  /** @type {Function} */
  const Response = function (/** @type {unknown} */ body, /** @type {ResponseInit | undefined} */ init) {
    const values = new.target === Response ? tryLight(body, init, "text/plain;charset=UTF-8") : null;
    if (values !== null) return wrap(values);
    return construct("Response", arguments, { target: new.target, light: Response });
  };
  imitate(Response, prototypes.Response, { name: "Response", length: 0 });
  define(Response, "json", (/** @type {unknown} */ value, /** @type {ResponseInit} */ init) => {
    const text = JSON.stringify(value);
    const values = text === undefined ? null : tryLight(text, init, "application/json");
    return values === null ? theNatives().Response.json(value, init) : wrap(values);
  });
  define(Response, "error", () => theNatives().Response.error());
  define(Response, "redirect", (/** @type {Parameters<typeof globalThis.Response.redirect>} */ ...given) =>
    theNatives().Response.redirect(...given),
  );

  /** @type {Function} */
  const Request = function (/** @type {unknown} */ input, /** @type {unknown} */ init) {
    const given = init === undefined ? [realInput(input)] : [realInput(input), init];
    return construct("Request", given, { target: new.target, light: Request });
  };
  imitate(Request, prototypes.Request, { name: "Request", length: 1 });

  /** @type {Function} */
  const Headers = function (/** @type {unknown} */ init) {
    const list = new.target === Headers ? readHeaders(init) : null;
    if (list !== null) return wrapList(list, prototypes.Headers);
    return construct("Headers", arguments, { target: new.target, light: Headers });
  };
  imitate(Headers, prototypes.Headers, { name: "Headers", length: 0 });

  const fetch = (/** @type {unknown} */ input, /** @type {RequestInit} */ init) => {
    return theNatives().fetch(/** @type {Request} */ (realInput(input)), init);
  };
  return /** @type {Globals} */ (/** @type {unknown} */ ({ Request, Response, Headers, fetch }));
}

/**
 * Makes an object of Node's own class, or of a subclass in user code.
 *
 * @param {"Request" | "Response" | "Headers"} name
 * @param {ArrayLike<unknown>} given
 * @param {{ target: Function | undefined, light: Function }} options
 */
function construct(name, given, { target, light }) {
  if (target === undefined) throw new TypeError(`Class constructor ${name} cannot be invoked without 'new'`);
  const native = theNatives()[name];
  return Reflect.construct(native, given, target === light ? native : target);
}

/**
 * @param {Function} light
 * @param {object} prototype
 * @param {{ name: "Request" | "Response" | "Headers", length: number }} properties
 */
function imitate(light, prototype, { name, length }) {
  Object.defineProperty(light, "name", { value: name });
  Object.defineProperty(light, "length", { value: length });
  Object.defineProperty(light, "prototype", { value: prototype, writable: false });
  define(prototype, "constructor", light);
  const { [Symbol.hasInstance]: isInstance } = Function.prototype;
  Object.defineProperty(light, Symbol.hasInstance, {
    configurable: true,
    value(/** @type {unknown} */ value) {
      if (isInstance.call(this, value)) return true;
      return this === light && natives !== null && isInstance.call(natives[name], value);
    },
  });
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
  return values === undefined ? request : (values.native ?? materialiseRequest(values));
}

/** @param {object} response */
function realResponse(response) {
  const values = responses.get(response);
  return values === undefined ? response : (values.native ?? materialiseResponse(values));
}

/** @param {LightResponse} values @returns {Response} */
function wrap(values) {
  const response = Object.create(prototypes.Response);
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
  const content = plainBody(body);
  if (content === undefined) return null;
  const status = init?.status ?? 200;
  if (typeof init === "object" && init !== null) {
    if (init.statusText !== undefined) return null;
  } else if (init !== undefined) {
    return null;
  }
  if (!Number.isInteger(status) || status < 200 || status > 599) return null;
  if (content !== null && (status === 204 || status === 205 || status === 304)) return null;
  const list = init?.headers === undefined ? emptyList() : readHeaders(init.headers);
  if (list === null) return null;
  if (typeof content === "string" && placeOf(list.flat, "content-type") < 0) list.flat.push("content-type", textType);
  return { status, list, body: content, headers: null, native: null };
}

/**
 * What can be sent as it is, copied where it could still change.
 *
 * @param {unknown} body
 * @returns {string | Buffer | ReadableStream | null | undefined} undefined when it is something else
 */
function plainBody(body) {
  if (body === undefined || body === null) return null;
  if (typeof body === "string") return body.isWellFormed() ? body : undefined;
  if (body instanceof Uint8Array && body.length <= COPIED_BYTES_MAX && body.buffer instanceof ArrayBuffer) {
    return Buffer.from(body);
  }
  return isStream(body) && isFresh(body) ? body : undefined;
}

/** To ask for the class would load it: where it has not been, nothing is one. @param {unknown} body @returns {body is ReadableStream} */
function isStream(body) {
  if (typeof body !== "object" || body?.constructor?.name !== "ReadableStream") return false;
  return body instanceof process.getBuiltinModule("node:stream/web").ReadableStream;
}

/** @param {ReadableStream} stream */
function isFresh(stream) {
  return !stream.locked && !Readable.isDisturbed(/** @type {never} */ (stream));
}

/** @param {LightResponse} values */
function materialiseResponse(values) {
  const { status, list, body } = values;
  const flat = flatOf(list);
  const isUsed = isStream(body) && !isFresh(body);
  const native = new (theNatives().Response)(isUsed ? new ReadableStream() : body, { status, headers: pairsOf(flat) });
  if (isUsed) void native.body?.getReader().read();
  // Text brings its type along, also where that was removed.
  if (placeOf(flat, "content-type") < 0) native.headers.delete("content-type");
  list.native = native.headers;
  values.native = native;
  return native;
}

/** @param {LightRequest} values */
function materialiseRequest(values) {
  const { method, url, signal } = values;
  const { Request: NativeRequest } = theNatives();
  const bodyless = method === "GET" || method === "HEAD";
  const list = (values.list ??= listOf(values.headers));
  const init = { method, headers: pairsOf(flatOf(list)), signal: signal() };
  const native = bodyless
    ? new NativeRequest(url, init)
    : new NativeRequest(url, { ...init, body: toStream(values), duplex: "half" });
  // A body that was read while the request was light is used up in the real one as well.
  if (values.bodyUsed) void native.body?.getReader().read();
  list.native = native.headers;
  values.native = native;
  return native;
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

/** @param {Buffer} bytes without a byte order mark, which decoding drops */
function withoutMark(bytes) {
  return bytes.length >= 3 && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

/** A copy that shares memory with nothing else: its receiver may keep, change or transfer it. @param {Buffer} bytes */
function ownBytes(bytes) {
  return Uint8Array.from(bytes);
}
