import { AwsError } from "../wire/error.ts";

/** Whether one message fits a filter pattern. */
export type Matcher = (message: string) => boolean;

const PATTERN_LENGTH_MAX = 1_024;

/**
 * Reads CloudWatch's filter pattern syntax: terms (`ERROR -"not this" ?either ?or`), regular expressions (`%4\d\d%`), JSON (`{ $.level = "error" && $.ms > 5 }`),
 * and space-delimited fields (`[ip, user, status = 4*, ...]`).
 * @throws AwsError `InvalidParameterException`
 */
export function parsePattern(text: string | undefined): Matcher {
  const pattern = (text ?? "").trim();
  if (pattern.length > PATTERN_LENGTH_MAX) throw invalid("it is longer than 1024 characters");
  if (pattern === "") return () => true;
  if (pattern.startsWith("{")) return jsonMatcher(pattern);
  if (pattern.startsWith("[")) return fieldsMatcher(pattern);
  return termsMatcher(pattern);
}

function termsMatcher(pattern: string): Matcher {
  const required: Matcher[] = [];
  const excluded: Matcher[] = [];
  const optional: Matcher[] = [];
  for (const [, sign = "", quoted, regex, plain = ""] of pattern.matchAll(
    /([-?]?)(?:"((?:[^"\\]|\\.)*)"|%([^%]+)%|(\S+))/g,
  )) {
    const term = regex === undefined ? contains(quoted === undefined ? plain : unquoted(quoted)) : regexMatcher(regex);
    if (sign === "-") excluded.push(term);
    else if (sign === "?") optional.push(term);
    else required.push(term);
  }
  // Terms with a question mark count only where there are no others.
  const some = required.length === 0 ? optional : [];
  return (message) =>
    required.every((matches) => matches(message)) &&
    !excluded.some((matches) => matches(message)) &&
    (some.length === 0 || some.some((matches) => matches(message)));
}

function contains(term: string): Matcher {
  return (message) => message.includes(term);
}

/** Only what CloudWatch allows of regular expressions: no groups, no back references, so that none takes exponential time. */
function regexMatcher(source: string): Matcher {
  if (!/^(?:\\[\^$.[\]{}()*+?|\\/dswDSW-]|[\w\s.,:;=<>@#&!~'"`/-]|[$^*+?|]|\{\d+(?:,\d*)?\}|\[[^\]]+\])+$/.test(source))
    throw invalid(`'%${source}%' is not a regular expression that is supported`);
  if ((source.match(/[*+{]/g) ?? []).length > REPETITIONS_MAX) throw invalid(`'%${source}%' repeats too often`);
  try {
    const expression = new RegExp(source);
    return (message) => expression.test(message.slice(0, REGEX_LENGTH_MAX));
  } catch {
    throw invalid(`'%${source}%' is not a regular expression`);
  }
}

const REPETITIONS_MAX = 2;
/** Of a longer message only the beginning is looked at, because two repetitions can take quadratic time. */
const REGEX_LENGTH_MAX = 4_096;

// Space-delimited fields

function fieldsMatcher(pattern: string): Matcher {
  if (!pattern.endsWith("]")) throw invalid("a ']' is missing at its end");
  const columns = splitOutside(pattern.slice(1, -1), ",").map((column) => column.trim());
  const rest = columns.indexOf("...");
  const tests = columns.map((column) => (column === "..." ? null : columnTest(column)));
  return (message) => {
    const fields = fieldsOf(message);
    if (rest < 0 ? fields.length !== columns.length : fields.length < columns.length - 1) return false;
    const skipped = fields.length - columns.length;
    return tests.every((test, index) => {
      if (test === null) return true;
      return test(fields[rest >= 0 && index > rest ? index + skipped : index] ?? "");
    });
  };
}

/** Words, and what stands in quotes or brackets as one. */
function fieldsOf(message: string): readonly string[] {
  return [...message.matchAll(/"([^"]*)"|\[([^\]]*)\]|(\S+)/g)].map(
    ([, quoted, bracketed, word]) => quoted ?? bracketed ?? word ?? "",
  );
}

function columnTest(column: string): Matcher {
  if (!/[=<>]/.test(column)) return () => true;
  const alternatives = splitOutside(column, "||").map((alternative) =>
    splitOutside(alternative, "&&").map((condition) => {
      const [, operator = "", value = ""] = /^[\w\s]*?(!=|>=|<=|=|>|<)\s*(.+)$/.exec(condition.trim()) ?? [];
      if (operator === "") throw invalid(`'${condition.trim()}' is not a condition`);
      return comparison(operator, value.trim());
    }),
  );
  return (field) => alternatives.some((conditions) => conditions.every((matches) => matches(field)));
}

function comparison(operator: string, wanted: string): (given: string | number | boolean | null) => boolean {
  if (operator === "=" || operator === "!=") {
    const equals = equality(wanted);
    return operator === "=" ? equals : (given) => !equals(given);
  }
  const limit = Number(wanted);
  if (Number.isNaN(limit)) throw invalid(`'${wanted}' is not a number`);
  const tests: Record<string, (given: number) => boolean> = {
    ">": (given) => given > limit,
    "<": (given) => given < limit,
    ">=": (given) => given >= limit,
    "<=": (given) => given <= limit,
  };
  const test = tests[operator];
  return (given) => typeof given !== "boolean" && given !== null && given !== "" && test?.(Number(given)) === true;
}

function equality(wanted: string): (given: string | number | boolean | null) => boolean {
  if (/^%.+%$/.test(wanted)) {
    const matches = regexMatcher(wanted.slice(1, -1));
    return (given) => typeof given === "string" && matches(given);
  }
  const isQuoted = /^".*"$/s.test(wanted);
  const text = isQuoted ? unquoted(wanted.slice(1, -1)) : wanted;
  const number = isQuoted || text === "" ? Number.NaN : Number(text);
  const like = text.includes("*") ? text.split("*") : null;
  return (given) => {
    if (typeof given === "number") return like === null ? given === number : isLike(String(given), like);
    if (typeof given !== "string") return String(given) === text;
    if (!Number.isNaN(number) && given.trim() !== "" && Number(given) === number) return true;
    return like === null ? given === text : isLike(given, like);
  };
}

/** @param parts what stands between asterisks */
function isLike(given: string, parts: readonly string[]): boolean {
  const first = parts[0] ?? "";
  const last = parts.at(-1) ?? "";
  if (!given.startsWith(first) || !given.endsWith(last) || given.length < first.length + last.length) return false;
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = given.indexOf(part, at);
    if (found < 0 || found + part.length > given.length - last.length) return false;
    at = found + part.length;
  }
  return true;
}

// JSON

type Node = (document: unknown) => boolean;

function jsonMatcher(pattern: string): Matcher {
  if (!pattern.endsWith("}")) throw invalid("a '}' is missing at its end");
  const node = new JsonPattern(pattern.slice(1, -1)).parse();
  return (message) => {
    const begin = message.indexOf("{");
    if (begin < 0) return false;
    try {
      return node(JSON.parse(message.slice(begin)));
    } catch {
      return false;
    }
  };
}

const TOKEN = /\s*(&&|\|\||[()]|!=|>=|<=|=|>|<|"(?:[^"\\]|\\.)*"|%[^%]+%|[^\s()&|=<>!]+)/y;

/** Conditions joined by `&&`, `||` and brackets; the former binds closer. */
class JsonPattern {
  readonly #tokens: readonly string[];
  #at = 0;

  constructor(text: string) {
    const tokens: string[] = [];
    TOKEN.lastIndex = 0;
    const trimmed = text.trimEnd();
    while (TOKEN.lastIndex < trimmed.length) {
      const from = TOKEN.lastIndex;
      const [, token] = TOKEN.exec(trimmed) ?? [];
      if (token === undefined) throw invalid(`it cannot be read at '${trimmed.slice(from, from + 20)}'`);
      tokens.push(token);
    }
    this.#tokens = tokens;
  }

  parse(): Node {
    const node = this.#either();
    if (this.#at < this.#tokens.length) throw invalid(`'${this.#tokens[this.#at] ?? ""}' is not expected`);
    return node;
  }

  #either(): Node {
    const nodes = [this.#all()];
    while (this.#take("||")) nodes.push(this.#all());
    return nodes.length === 1 ? (nodes[0] ?? (() => false)) : (document) => nodes.some((node) => node(document));
  }

  #all(): Node {
    const nodes = [this.#one()];
    while (this.#take("&&")) nodes.push(this.#one());
    return (document) => nodes.every((node) => node(document));
  }

  #one(): Node {
    if (this.#take("(")) {
      const node = this.#either();
      if (!this.#take(")")) throw invalid("a ')' is missing");
      return node;
    }
    const selector = this.#next("a selector such as $.level");
    const path = selectorOf(selector);
    const operator = this.#next("an operator");
    if (operator === "IS") return this.#is(path);
    if (operator === "NOT" && this.#take("EXISTS")) return (document) => valuesAt(document, path).length === 0;
    if (operator === "EXISTS") return (document) => valuesAt(document, path).length > 0;
    if (!["=", "!=", ">", "<", ">=", "<="].includes(operator)) throw invalid(`'${operator}' is not an operator`);
    const compare = comparison(operator, this.#next("a value"));
    return (document) =>
      valuesAt(document, path).some((value) =>
        typeof value === "object" && value !== null ? false : compare(value as string),
      );
  }

  #is(path: readonly string[]): Node {
    const wanted = this.#next("TRUE, FALSE or NULL").toUpperCase();
    const value = { TRUE: true, FALSE: false, NULL: null }[wanted];
    if (value === undefined) throw invalid(`'IS ${wanted}' is not TRUE, FALSE or NULL`);
    return (document) => valuesAt(document, path).includes(value);
  }

  #take(token: string): boolean {
    if (this.#tokens[this.#at] !== token) return false;
    this.#at++;
    return true;
  }

  #next(what: string): string {
    const token = this.#tokens[this.#at++];
    if (token === undefined) throw invalid(`${what} is missing`);
    return token;
  }
}

/** `$.a.b[0]["c.d"].*` as its steps. */
function selectorOf(selector: string): readonly string[] {
  if (!selector.startsWith("$")) throw invalid(`'${selector}' is not a selector: it begins with '$.'`);
  return [...selector.slice(1).matchAll(/\.([^.[\]]+)|\[(\d+|\*)\]|\["((?:[^"\\]|\\.)*)"\]/g)].map(
    ([, name, index, quoted]) => name ?? index ?? quoted ?? "",
  );
}

function valuesAt(document: unknown, path: readonly string[]): readonly unknown[] {
  let found: unknown[] = [document];
  for (const step of path) {
    found = found.flatMap((value) => {
      if (typeof value !== "object" || value === null) return [];
      if (step === "*") return Object.values(value);
      return Object.hasOwn(value, step) ? [(value as Record<string, unknown>)[step]] : [];
    });
  }
  return found;
}

function splitOutside(text: string, separator: string): readonly string[] {
  const parts: string[] = [];
  let quoted = false;
  let from = 0;
  for (let index = 0; index < text.length; index++) {
    if (text[index] === '"') quoted = !quoted;
    if (quoted || !text.startsWith(separator, index)) continue;
    parts.push(text.slice(from, index));
    from = index + separator.length;
    index = from - 1;
  }
  return [...parts, text.slice(from)];
}

function unquoted(text: string): string {
  return text.replaceAll(/\\(.)/g, "$1");
}

function invalid(detail: string): AwsError {
  return new AwsError("InvalidParameterException", `Invalid filter pattern: ${detail}`);
}
