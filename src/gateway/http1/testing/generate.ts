/** Requests for fuzzing: common ones, odd ones, and ones that were damaged on purpose; the same seed gives the same bytes. */
export class RequestGenerator {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = mulberry32(seed);
  }

  /** What one client sends on one connection, cut into the pieces in which it arrives. */
  connection(): readonly Buffer[] {
    const count = this.#chance(0.6) ? 1 : 2 + this.#below(3);
    const parts = Array.from({ length: count }, () => this.#request());
    let bytes: Buffer = Buffer.concat(parts);
    if (this.#chance(0.35)) bytes = this.#damaged(bytes);
    return this.#cut(bytes);
  }

  #request(): Buffer {
    const body = this.#body();
    const framing = this.#framing(body);
    const lines = [this.#requestLine(body.length > 0), ...this.#headers(framing.lines)];
    const end = this.#chance(0.98) ? "\r\n" : this.#of(["\n", "\r", "\r\r\n", "\n\r\n", ""]);
    return Buffer.concat([Buffer.from(lines.join(end) + end + end, "latin1"), framing.body]);
  }

  #requestLine(hasBody: boolean): string {
    const method = this.#chance(0.9)
      ? this.#of(hasBody ? ["POST", "PUT", "PATCH", "DELETE", "GET"] : COMMON_METHODS)
      : this.#of(ODD_METHODS);
    const target = this.#chance(0.8) ? this.#of(COMMON_TARGETS) : this.#of(ODD_TARGETS);
    const version = this.#chance(0.93) ? "HTTP/1.1" : this.#of(ODD_VERSIONS);
    const space = (): string => (this.#chance(0.99) ? " " : this.#of(["  ", "\t", "", "\v", "\x00"]));
    return `${this.#chance(0.98) ? "" : this.#of(["\r\n", "\n", " ", "\r\n\r\n"])}${method}${space()}${target}${space()}${version}`;
  }

  #headers(framing: readonly string[]): string[] {
    const host = this.#chance(0.93) ? ["Host: localhost:4000"] : this.#of(ODD_HOSTS);
    const others = Array.from({ length: this.#below(4) }, () =>
      this.#chance(0.85) ? this.#of(COMMON_HEADERS) : this.#of(ODD_HEADERS),
    );
    const lines = [...host, ...framing, ...others];
    if (this.#chance(0.3)) lines.sort(() => this.#random() - 0.5);
    return lines;
  }

  #body(): Buffer {
    if (this.#chance(0.5)) return Buffer.alloc(0);
    const text = this.#of([
      "{}",
      "a=b",
      "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
      "0\r\n\r\n",
      "x".repeat(this.#below(3_000)),
    ]);
    return Buffer.from(text);
  }

  #framing(body: Buffer): { readonly lines: readonly string[]; readonly body: Buffer } {
    const length = `Content-Length: ${body.length}`;
    if (this.#chance(0.75)) return { lines: body.length === 0 && this.#chance(0.7) ? [] : [length], body };
    const chunked = Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from("\r\n0\r\n\r\n")]);
    if (this.#chance(0.4))
      return { lines: ["Transfer-Encoding: chunked"], body: body.length === 0 ? Buffer.from("0\r\n\r\n") : chunked };
    if (this.#chance(0.5)) return { lines: [this.#oddLength(body.length)].flat(), body };
    const encoding = this.#of(ODD_ENCODINGS);
    return { lines: this.#chance(0.5) ? [encoding] : [length, encoding], body: this.#chance(0.5) ? chunked : body };
  }

  #oddLength(length: number): string | string[] {
    return this.#of<string | string[]>([
      `Content-Length: ${length} `,
      `Content-Length:${length}`,
      `Content-Length:\t${length}\t`,
      `Content-Length: +${length}`,
      `Content-Length: -${length}`,
      `Content-Length: 0${length}`,
      `Content-Length: 0x${length.toString(16)}`,
      `Content-Length: ${length}, ${length}`,
      `Content-Length: ${length};`,
      `Content-Length: ${length}.0`,
      `Content-Length: ${length} ${length}`,
      "Content-Length: ",
      "Content-Length: 99999999999999999999",
      `Content-Length: ${length + 1}`,
      `Content-Length : ${length}`,
      `Content\u00adLength: ${length}`,
      ` Content-Length: ${length}`,
      `content-length: ${length}`,
      [`Content-Length: ${length}`, `Content-Length: ${length}`],
      [`Content-Length: ${length}`, `Content-Length: ${length + 5}`],
      [`Content-Length: 0`, `Content-Length: ${length}`],
      [`X: y`, `\tContent-Length: ${length}`],
    ]);
  }

  /** A few changes anywhere: bytes that matter to a parser are put in, others are lost, doubled or turned. */
  #damaged(bytes: Buffer): Buffer {
    let damaged = bytes;
    const changes = 1 + this.#below(3);
    for (let change = 0; change < changes; change++) {
      const at = this.#below(damaged.length + 1);
      const to = Math.min(damaged.length, at + 1 + this.#below(4));
      const before = damaged.subarray(0, at);
      const after = damaged.subarray(at);
      const kind = this.#below(12) % 5;
      if (kind === 0) damaged = Buffer.concat([before, Buffer.from(this.#of(TELLING), "latin1"), after]);
      else if (kind === 1) damaged = Buffer.concat([before, damaged.subarray(to)]);
      else if (kind === 2) damaged = Buffer.concat([before, damaged.subarray(at, to), after]);
      else if (kind === 3) damaged = Buffer.concat([before, Buffer.from([this.#below(256)]), damaged.subarray(at + 1)]);
      else damaged = before;
    }
    return damaged;
  }

  #cut(bytes: Buffer): readonly Buffer[] {
    const pieces: Buffer[] = [];
    const cuts = this.#chance(0.6) ? 0 : 1 + this.#below(4);
    const places = Array.from({ length: cuts }, () => this.#below(bytes.length + 1)).toSorted((a, b) => a - b);
    let from = 0;
    for (const to of [...places, bytes.length]) {
      if (to > from) pieces.push(Buffer.from(bytes.subarray(from, to)));
      from = to;
    }
    return pieces;
  }

  #below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  #chance(share: number): boolean {
    return this.#random() < share;
  }

  #of<Choice>(choices: readonly Choice[]): Choice {
    const choice = choices[this.#below(choices.length)];
    if (choice === undefined) throw new Error("nothing to choose from");
    return choice;
  }
}

const COMMON_METHODS = ["GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "DELETE"];
const ODD_METHODS = ["get", "PROPFIND", "TRACE", "CONNECT", "PRI", "M-SEARCH", "GE", "GETT", "G\0T", "(GET)", "QUERY"];
const COMMON_TARGETS = [
  "/",
  "/fn/hello",
  "/fn/a?b=c",
  "/a%20b",
  "/?",
  "/a//b/../c",
  "/~u/;p=1/@x:y",
  "/a?b=/c?d&e='(f)*!$,",
];
const ODD_TARGETS = [
  "*",
  "http://localhost/a",
  "http://other/a",
  "localhost:80",
  "a",
  "//x",
  "/a#b",
  '/"',
  "/<a>",
  "/{}|\\^`[]",
  "/%",
  "/%zz",
  "/a%2",
  "/\xe9",
  "/a b",
  "/\x7f",
  "/a\tb",
  "/\x00",
  `/${"x".repeat(9_000)}`,
];
const ODD_VERSIONS = [
  "HTTP/1.0",
  "HTTP/1.2",
  "HTTP/2.0",
  "HTTP/0.9",
  "http/1.1",
  "HTTP/1.1 ",
  "HTTP/1.",
  "HTTP/11",
  "HTTP/01.1",
  "",
  "ICE/1.0",
  "HTTP/1.1x",
];
const ODD_HOSTS = [
  [],
  ["Host: a", "Host: b"],
  ["Host: a", "host: a"],
  ["Host:"],
  ["Host: a b"],
  ["Host: a,b"],
  ["Host: a@b"],
  ["Host: a/b"],
  ["Host: [::1]:80"],
  ["Host: [::1"],
  ["Host: a:b"],
  ["Host: \xe9"],
  ["Host : a"],
  [" Host: a"],
  ["X: y", " Host: a"],
];
const COMMON_HEADERS = [
  "Accept: */*",
  "User-Agent: curl/8.0",
  "Content-Type: application/json",
  "Connection: keep-alive",
  "Connection: close",
  "Authorization: Bearer abc",
  "Cookie: a=b; c=d",
  "X-Empty:",
  "X-Spaces: \t a  b \t ",
  "Accept: text/html",
  "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
];
const ODD_HEADERS = [
  "Connection: Upgrade",
  "Connection: close, keep-alive",
  "Connection: ",
  "Connection: x",
  "Proxy-Connection: close",
  "Upgrade: websocket",
  "Upgrade: h2c",
  "HTTP2-Settings: AAMAAABkAAQAAP__",
  "Expect: 100-continue",
  "Expect: 200-ok",
  "TE: trailers",
  "Trailer: X",
  "Keep-Alive: timeout=5",
  "X: a\r\n b",
  "X: a\r\n\tb",
  "X: a\nY: b",
  "X: a\rY: b",
  "X: \x00",
  "X: \x01",
  "X: \x7f",
  "X: \xe9\xff",
  "X: \xa0y\xa0",
  "X : y",
  "X\t: y",
  ": y",
  "X",
  "X y: z",
  "\u00e9: y",
  "(X): y",
  "X_y: z",
  "X:\x0by",
  `X: ${"y".repeat(9_000)}`,
  `X: ${"y".repeat(40_000)}`,
];
const ODD_ENCODINGS = [
  "Transfer-Encoding: Chunked",
  "Transfer-Encoding: chunked ",
  "Transfer-Encoding:chunked",
  "Transfer-Encoding: gzip",
  "Transfer-Encoding: gzip, chunked",
  "Transfer-Encoding: chunked, gzip",
  "Transfer-Encoding: chunked, chunked",
  "Transfer-Encoding: identity",
  "Transfer-Encoding: xchunked",
  "Transfer-Encoding:\tchunked",
  "Transfer-Encoding: \x0bchunked",
  "Transfer-Encoding : chunked",
  " Transfer-Encoding: chunked",
  "Transfer_Encoding: chunked",
  "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
  "X: y\r\n Transfer-Encoding: chunked",
  "Transfer-Encoding",
  "Transfer-Encoding:",
];
const TELLING = [
  "\r\n",
  "\n",
  "\r",
  "\0",
  " ",
  "\t",
  ":",
  "\r\n\r\n",
  "\n\n",
  "\r\n ",
  "0",
  "Content-Length: 3\r\n",
  "Transfer-Encoding: chunked\r\n",
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/** A small generator of random numbers, well known and public domain; good enough to choose. */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
