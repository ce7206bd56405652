import { makeAttached } from "./attached.mjs";

/**
 * `Headers` as plain values, until something is asked that only Node's own can do: loading that takes 25 ms and 8 MB.
 *
 * @typedef {object} HeaderList
 * @property {string[]} flat names in lower case and values in turn, each name once but for `set-cookie`
 * @property {Headers | null} native Node's own object, once there is one: it holds the truth from then on
 */

const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Printable ASCII without white space at either end: what needs no normalising. */
const VALUE = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/;
const SEVERAL = "set-cookie";

/** @type {ReturnType<typeof makeAttached<HeaderList>>} */
const lists = makeAttached();

/** @returns {HeaderList} */
export function emptyList() {
  return { flat: [], native: null };
}

/**
 * @param {HeaderList} list
 * @param {object} prototype
 * @returns {Headers}
 */
export function wrapList(list, prototype) {
  const headers = Object.create(prototype);
  lists.set(headers, list);
  return headers;
}

/**
 * The values of `new Headers(init)`; null when it takes Node's own to read them, be it to refuse them.
 *
 * @param {unknown} init
 * @returns {HeaderList | null}
 */
export function readHeaders(init) {
  const list = emptyList();
  if (init === undefined) return list;
  if (typeof init !== "object" || init === null) return null;
  const known = lists.get(init);
  if (known !== undefined) {
    if (known.native !== null) return null;
    list.flat.push(...known.flat);
    return list;
  }
  if (Array.isArray(init)) {
    for (const pair of init) {
      if (!Array.isArray(pair) || pair.length !== 2 || !appendTo(list, pair[0], pair[1])) return null;
    }
    return list;
  }
  if (Object.getPrototypeOf(init) !== Object.prototype || Symbol.iterator in init) return null;
  for (const key of Reflect.ownKeys(init)) {
    const found = Object.getOwnPropertyDescriptor(init, key);
    if (found === undefined || !found.enumerable) continue;
    if (typeof key === "symbol" || !("value" in found) || !appendTo(list, key, found.value)) return null;
  }
  return list;
}

/**
 * The header fields of a request as they came. Parsed by the platform, they need no check.
 *
 * @param {readonly string[]} flat names and values in turn
 */
export function listOf(flat) {
  const list = emptyList();
  for (let index = 0; index < flat.length; index += 2) {
    const name = flat[index] ?? "";
    combine(list.flat, name.toLowerCase(), flat[index + 1] ?? "");
  }
  return list;
}

/** @param {HeaderList} list @returns {readonly string[]} names and values in turn */
export function flatOf(list) {
  if (list.native === null) return list.flat;
  /** @type {string[]} */
  const flat = [];
  for (const [name, value] of list.native) flat.push(name, value);
  return flat;
}

/** @param {readonly string[]} flat @returns {[string, string][]} */
export function pairsOf(flat) {
  /** @type {[string, string][]} */
  const pairs = [];
  for (let index = 0; index < flat.length; index += 2) pairs.push([flat[index] ?? "", flat[index + 1] ?? ""]);
  return pairs;
}

/**
 * @param {HeaderList} list
 * @param {unknown} name
 * @param {unknown} value
 * @returns {boolean} false when only Node's own can tell what is meant, or what is wrong
 */
function appendTo(list, name, value) {
  if (!isPlain(name, value)) return false;
  combine(list.flat, /** @type {string} */ (name).toLowerCase(), /** @type {string} */ (value));
  return true;
}

/** @param {unknown} name @param {unknown} value */
function isPlain(name, value) {
  if (typeof name !== "string" || typeof value !== "string" || !NAME.test(name)) return false;
  return value === "" || VALUE.test(value);
}

/**
 * @param {string[]} flat
 * @param {string} name in lower case
 * @param {string} value
 */
function combine(flat, name, value) {
  const at = name === SEVERAL ? -1 : placeOf(flat, name);
  if (at < 0) flat.push(name, value);
  else flat[at + 1] = `${flat[at + 1]}${name === "cookie" ? "; " : ", "}${value}`;
}

/** @param {readonly string[]} flat @param {string} name in lower case */
export function placeOf(flat, name) {
  for (let index = 0; index < flat.length; index += 2) if (flat[index] === name) return index;
  return -1;
}

/** @param {string[]} flat @param {string} name in lower case */
function removeFrom(flat, name) {
  for (let at = placeOf(flat, name); at >= 0; at = placeOf(flat, name)) flat.splice(at, 2);
}

/** In the order in which Node's own are listed. @param {readonly string[]} flat */
function sorted(flat) {
  return pairsOf(flat).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}

/** @type {Record<string, (list: HeaderList, ...given: any[]) => unknown>} what answers undefined is left to Node's own */
const quick = {
  append: (list, name, value) => appendTo(list, name, value) || undefined,
  set(list, name, value) {
    if (!isPlain(name, value)) return undefined;
    const lower = name.toLowerCase();
    const at = placeOf(list.flat, lower);
    if (at < 0 || lower === SEVERAL) {
      removeFrom(list.flat, lower);
      list.flat.push(lower, value);
    } else list.flat[at + 1] = value;
    return true;
  },
  delete(list, name) {
    if (!isPlain(name, "")) return undefined;
    removeFrom(list.flat, name.toLowerCase());
    return true;
  },
  get(list, name) {
    if (!isPlain(name, "") || name.toLowerCase() === SEVERAL) return undefined;
    const at = placeOf(list.flat, name.toLowerCase());
    return { value: at < 0 ? null : list.flat[at + 1] };
  },
  has: (list, name) => (isPlain(name, "") ? { value: placeOf(list.flat, name.toLowerCase()) >= 0 } : undefined),
  getSetCookie: (list) => ({ value: pairsOf(list.flat).flatMap(([name, value]) => (name === SEVERAL ? [value] : [])) }),
  keys: (list) => ({ value: values(sorted(list.flat).map(([name]) => name)) }),
  values: (list) => ({ value: values(sorted(list.flat).map(([, value]) => value)) }),
  entries: (list) => ({ value: values(sorted(list.flat)) }),
};
/** @type {<Value>(list: Value[]) => Iterator<Value>} */
const values = (list) => list.values();
const lengths = { append: 2, set: 2, delete: 1, get: 1, has: 1, getSetCookie: 0, keys: 0, values: 0, entries: 0 };

/**
 * @param {() => typeof Headers} nativeClass loads Node's own
 * @returns {object}
 */
export function makeHeadersPrototype(nativeClass) {
  const prototype = {};
  /** @param {object} headers */
  const materialise = (headers) => {
    const list = lists.get(headers);
    if (list === undefined) return headers;
    return (list.native ??= new (nativeClass())(pairsOf(list.flat)));
  };
  for (const [name, length] of Object.entries(lengths)) {
    /** @type {(this: object, ...given: unknown[]) => unknown} */
    const member = function (...given) {
      const list = lists.get(this);
      const answer = list === undefined || list.native !== null ? undefined : quick[name]?.(list, ...given);
      if (answer === true) return undefined;
      if (answer !== undefined) return /** @type {{ value: unknown }} */ (answer).value;
      const own = /** @type {Record<string, (...given: unknown[]) => unknown>} */ (
        /** @type {unknown} */ (nativeClass().prototype)
      )[name];
      return own?.apply(materialise(this), given);
    };
    Object.defineProperty(member, "name", { value: name });
    Object.defineProperty(member, "length", { value: length });
    Object.defineProperty(prototype, name, { configurable: true, enumerable: true, writable: true, value: member });
  }
  Object.defineProperty(prototype, "forEach", {
    configurable: true,
    enumerable: true,
    writable: true,
    value: function forEach(
      /** @type {(value: string, name: string, headers: object) => void} */ callback,
      /** @type {unknown} */ thisArgument,
    ) {
      if (typeof callback !== "function") nativeClass().prototype.forEach.call(materialise(this), callback);
      for (const [name, value] of /** @type {Headers} */ (this).entries())
        callback.call(thisArgument, value, name, this);
    },
  });
  const { entries } = /** @type {{ entries?: unknown }} */ (prototype);
  Object.defineProperty(prototype, Symbol.iterator, { configurable: true, writable: true, value: entries });
  Object.defineProperty(prototype, Symbol.toStringTag, { configurable: true, value: "Headers" });
  Object.defineProperty(prototype, Symbol.for("nodejs.util.inspect.custom"), {
    configurable: true,
    writable: true,
    value(
      /** @type {number} */ _depth,
      /** @type {unknown} */ options,
      /** @type {(...given: unknown[]) => string} */ inspect,
    ) {
      return inspect(materialise(this), options);
    },
  });
  return prototype;
}
