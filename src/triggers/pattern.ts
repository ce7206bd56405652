import { BlockList, isIP } from "node:net";
import { KoineError } from "../core/errors.ts";
import type { CloudEvent } from "../core/event.ts";
import { limits } from "../core/limits.ts";

/** Whether an event is one of those that a pattern means. */
export type EventFilter = (event: CloudEvent) => boolean;

type Matcher = (value: unknown) => boolean;
/** Looks at the object that holds the field. */
type FieldMatcher = (object: Readonly<Record<string, unknown>>) => boolean;

/**
 * Compiles a pattern in the language of EventBridge rules. Its fields are those of the event: attributes and extensions at the top, the payload under
 * `data`; all that are named must match. A leaf is an array, of which one entry must match: a JSON scalar for equality, or one of
 *
 *   { "prefix": "a" }  { "suffix": "z" }  { "equals-ignore-case": "x" }  { "wildcard": "a*z" }  { "cidr": "10.0.0.0/8" }  { "exists": true }
 *   { "numeric": [">", 0, "<=", 10] }  { "anything-but": scalar, list, or one of prefix, suffix, equals-ignore-case, wildcard }
 *
 * `prefix` and `suffix` also take `{ "equals-ignore-case": "x" }`. `"$or": [pattern, …]` matches when one of its patterns does. Of a field that
 * holds an array one element must match. Only `{ "exists": false }` matches what is not there. In a wildcard `\*` and `\\` stand for themselves.
 * @throws KoineError `invalid-pattern` that names the place
 */
export function compilePattern(pattern: unknown): EventFilter {
  const bytes = Buffer.byteLength(JSON.stringify(pattern) ?? "");
  if (bytes > limits.patternBytesMax) throw wrong("the pattern", `is longer than ${limits.patternBytesMax} bytes`);
  const matches = compileObject(pattern, []);
  return (event) => matches(fieldsOf(event));
}

/** The event as patterns see it. */
function fieldsOf({ extensions, ...attributes }: CloudEvent): Readonly<Record<string, unknown>> {
  return { ...extensions, ...attributes };
}

function compileObject(pattern: unknown, path: readonly string[]): FieldMatcher {
  if (!isObject(pattern)) throw wrong(at(path), "must be an object");
  const names = Object.keys(pattern);
  if (names.length === 0) throw wrong(at(path), "must name at least one field");
  if (path.length > limits.patternDepthMax) throw wrong(at(path), `is deeper than ${limits.patternDepthMax} fields`);
  const all = names.map((name) => compileField(name, pattern[name], [...path, name]));
  return (object) => all.every((matches) => matches(object));
}

function compileField(name: string, pattern: unknown, path: readonly string[]): FieldMatcher {
  if (name === "$or") return compileOr(pattern, path);
  if (Array.isArray(pattern)) {
    if (pattern.length === 0) throw wrong(at(path), "must hold at least one value");
    const any = pattern.map((entry: unknown) => compileEntry(entry, path));
    return (object) => {
      const value = Object.hasOwn(object, name) ? object[name] : undefined;
      return any.some((matches) => matches(value));
    };
  }
  if (!isObject(pattern)) throw wrong(at(path), "must be an array of values, or an object of fields");
  const inner = compileObject(pattern, path);
  return (object) => {
    const value = Object.hasOwn(object, name) ? object[name] : undefined;
    // A field that is not there is an object without fields: `exists: false` below it holds.
    if (value === undefined) return inner({});
    if (Array.isArray(value)) return value.some((element: unknown) => isObject(element) && inner(element));
    return isObject(value) && inner(value);
  };
}

function compileOr(pattern: unknown, path: readonly string[]): FieldMatcher {
  if (!Array.isArray(pattern) || pattern.length < 2) throw wrong(at(path), "must be an array of at least two patterns");
  const any = pattern.map((one: unknown, index) => compileObject(one, [...path, String(index)]));
  return (object) => any.some((matches) => matches(object));
}

/** One entry of a leaf, for a value that may be an array or not there at all. */
function compileEntry(entry: unknown, path: readonly string[]): Matcher {
  if (isObject(entry) && "exists" in entry) {
    const wanted = only(entry, "exists", path);
    if (typeof wanted !== "boolean") throw wrong(`${at(path)}: exists`, "must be true or false");
    return (value) => (value !== undefined) === wanted;
  }
  const matches = compileScalar(entry, path);
  return (value) => {
    if (value === undefined) return false;
    return Array.isArray(value) ? value.some((element) => matches(element)) : matches(value);
  };
}

function compileScalar(entry: unknown, path: readonly string[]): Matcher {
  if (isScalar(entry)) return (value) => value === entry;
  if (!isObject(entry))
    throw wrong(at(path), 'may hold texts, numbers, true, false, null and matchers such as { "prefix": "a" }');
  const [name = ""] = Object.keys(entry);
  const operand = only(entry, name, path);
  switch (name) {
    case "prefix":
    case "suffix":
    case "equals-ignore-case":
    case "wildcard":
      return compileText(name, operand, path);
    case "numeric":
      return compileNumeric(operand, path);
    case "cidr":
      return compileCidr(operand, path);
    case "anything-but":
      return compileAnythingBut(operand, path);
    default:
      throw wrong(
        at(path),
        `has no matcher '${name}'; there are prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, cidr, exists`,
      );
  }
}

function compileAnythingBut(operand: unknown, path: readonly string[]): Matcher {
  const where = [...path, "anything-but"];
  if (isObject(operand)) {
    const [name = ""] = Object.keys(operand);
    const inner = only(operand, name, where);
    const choices = Array.isArray(inner) ? inner : [inner];
    if (name !== "prefix" && name !== "suffix" && name !== "equals-ignore-case" && name !== "wildcard")
      throw wrong(at(where), "may hold values, prefix, suffix, equals-ignore-case or wildcard");
    if (choices.length === 0) throw wrong(at(where), "must hold at least one value");
    const none = choices.map((choice) => compileText(name, choice, where));
    return (value) => !none.some((matches) => matches(value));
  }
  const values: readonly unknown[] = Array.isArray(operand) ? operand : [operand];
  if (values.length === 0 || !values.every(isScalar)) throw wrong(at(where), "must be a value or an array of values");
  return (value) => !values.some((other) => other === value);
}

function compileText(
  kind: "prefix" | "suffix" | "equals-ignore-case" | "wildcard",
  operand: unknown,
  path: readonly string[],
): Matcher {
  const ignoreCase = isObject(operand) && (kind === "prefix" || kind === "suffix");
  const given = ignoreCase ? only(operand, "equals-ignore-case", path) : operand;
  if (typeof given !== "string") throw wrong(`${at(path)}: ${kind}`, "must be a text");
  const text = ignoreCase || kind === "equals-ignore-case" ? given.toLowerCase() : given;
  const prepared = (value: string): string => (ignoreCase ? value.toLowerCase() : value);
  switch (kind) {
    case "prefix":
      return (value) => typeof value === "string" && prepared(value).startsWith(text);
    case "suffix":
      return (value) => typeof value === "string" && prepared(value).endsWith(text);
    case "equals-ignore-case":
      return (value) => typeof value === "string" && value.toLowerCase() === text;
    case "wildcard": {
      const pieces = wildcardPieces(text, path);
      return (value) => typeof value === "string" && matchesPieces(value, pieces);
    }
    default:
      return kind satisfies never;
  }
}

/** The texts between the stars. */
function wildcardPieces(text: string, path: readonly string[]): readonly string[] {
  const pieces: string[] = [];
  let piece = "";
  for (let index = 0; index < text.length; index++) {
    const char = text.charAt(index);
    if (char === "*") {
      if (text.charAt(index + 1) === "*") throw wrong(`${at(path)}: wildcard`, "must not hold two stars in a row");
      pieces.push(piece);
      piece = "";
    } else if (char === "\\") {
      const next = text.charAt(++index);
      if (next !== "*" && next !== "\\")
        throw wrong(`${at(path)}: wildcard`, "may hold a backslash only before * and \\");
      piece += next;
    } else piece += char;
  }
  return [...pieces, piece];
}

/** In time linear to the value's length per piece: the first fit of a piece is as good as any later one. */
function matchesPieces(value: string, pieces: readonly string[]): boolean {
  const first = pieces[0] ?? "";
  const last = pieces.at(-1) ?? "";
  if (pieces.length === 1) return value === first;
  if (value.length < first.length + last.length || !value.startsWith(first) || !value.endsWith(last)) return false;
  const end = value.length - last.length;
  let from = first.length;
  for (const piece of pieces.slice(1, -1)) {
    const found = value.indexOf(piece, from);
    if (found < 0 || found + piece.length > end) return false;
    from = found + piece.length;
  }
  return true;
}

const COMPARISONS: Readonly<Record<string, (value: number, bound: number) => boolean>> = {
  "=": (value, bound) => value === bound,
  "<": (value, bound) => value < bound,
  "<=": (value, bound) => value <= bound,
  ">": (value, bound) => value > bound,
  ">=": (value, bound) => value >= bound,
};

function compileNumeric(operand: unknown, path: readonly string[]): Matcher {
  const where = `${at(path)}: numeric`;
  const usage = 'must be like [">", 0] or [">=", 0, "<", 10]';
  if (!Array.isArray(operand) || (operand.length !== 2 && operand.length !== 4)) throw wrong(where, usage);
  const all: ((value: number) => boolean)[] = [];
  for (let index = 0; index < operand.length; index += 2) {
    const sign: unknown = operand[index];
    const bound: unknown = operand[index + 1];
    const compare = typeof sign === "string" && Object.hasOwn(COMPARISONS, sign) ? COMPARISONS[sign] : undefined;
    if (compare === undefined || typeof bound !== "number") throw wrong(where, usage);
    all.push((value) => compare(value, bound));
  }
  return (value) => typeof value === "number" && all.every((holds) => holds(value));
}

function compileCidr(operand: unknown, path: readonly string[]): Matcher {
  const where = `${at(path)}: cidr`;
  const usage = "must be like 10.0.0.0/8 or 2001:db8::/32";
  if (typeof operand !== "string") throw wrong(where, usage);
  const [network = "", length = "", ...rest] = operand.split("/");
  const family = isIP(network);
  const bits = /^[0-9]{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (family === 0 || rest.length > 0 || !(bits <= (family === 4 ? 32 : 128))) throw wrong(where, usage);
  const list = new BlockList();
  list.addSubnet(network, bits, family === 4 ? "ipv4" : "ipv6");
  return (value) => {
    // Of the same family only: a block list would take every IPv4 address for one of `::/0`.
    return typeof value === "string" && isIP(value) === family && list.check(value, family === 4 ? "ipv4" : "ipv6");
  };
}

/** The operand of a matcher, which must be the object's only field. */
function only(entry: Readonly<Record<string, unknown>>, name: string, path: readonly string[]): unknown {
  const names = Object.keys(entry);
  if (names.length !== 1 || names[0] !== name)
    throw wrong(at(path), `has a matcher with the fields '${names.join("', '")}'; exactly one is possible`);
  return entry[name];
}

function isScalar(value: unknown): value is string | number | boolean | null {
  return value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !Buffer.isBuffer(value);
}

function at(path: readonly string[]): string {
  return path.length === 0 ? "the pattern" : `'${path.join(".")}'`;
}

function wrong(where: string, detail: string): KoineError {
  return new KoineError("invalid-pattern", { detail: `${where} ${detail}` });
}
