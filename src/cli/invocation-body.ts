import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { extname, resolve } from "node:path";
import { Readable } from "node:stream";
import type { CliIo } from "./io.ts";

export interface InvocationBody {
  readonly body: Buffer | Readable;
  /** Undefined: nothing to say, as there is no body or the caller said it. */
  readonly contentType: string | undefined;
}

/** How much of a file or of stdin is looked at to tell what it is, in bytes. */
const SNIFF_BYTES = 1024 * 1024;
const TYPES: Readonly<Record<string, string>> = {
  ".json": "application/json",
  ".txt": "text/plain; charset=utf-8",
  ".csv": "text/csv; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".xml": "application/xml",
  ".jpg": "image/jpeg",
  ".jpeg": "image/jpeg",
  ".png": "image/png",
  ".webp": "image/webp",
  ".pdf": "application/pdf",
  ".zip": "application/zip",
};

/**
 * What `-d` means: text as it is, `@file`, or `-` for stdin; files and stdin are streamed. Unless the caller says the content type it is
 * recognised: by the file's extension, else JSON when it parses, else text, else bytes.
 */
export async function readInvocationBody(
  io: CliIo,
  source: string | undefined,
  options: { readonly typeIsSaid: boolean },
): Promise<InvocationBody> {
  if (source === undefined) return { body: Buffer.alloc(0), contentType: undefined };
  if (source !== "-" && !source.startsWith("@")) {
    const body = Buffer.from(source);
    return { body, contentType: options.typeIsSaid ? undefined : typeOf(body, true) };
  }
  const path = source === "-" ? null : resolve(io.cwd, source.slice(1));
  // Opened first, so that a missing file is an error before anything is sent.
  const stream = path === null ? io.stdin : createReadStream(path, { fd: await open(path) });
  if (options.typeIsSaid) return { body: stream, contentType: undefined };
  const known = path === null ? undefined : TYPES[extname(path).toLowerCase()];
  if (known !== undefined) return { body: stream, contentType: known };
  return await sniffed(stream);
}

async function sniffed(stream: Readable): Promise<InvocationBody> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const iterator: AsyncIterator<Buffer> = stream[Symbol.asyncIterator]();
  let step = await iterator.next();
  while (step.done !== true) {
    chunks.push(Buffer.from(step.value));
    bytes += step.value.byteLength;
    if (bytes > SNIFF_BYTES) break;
    step = await iterator.next();
  }
  const start = Buffer.concat(chunks);
  if (step.done === true) return { body: start, contentType: typeOf(start, true) };
  const rest = (async function* () {
    yield start;
    yield* { [Symbol.asyncIterator]: () => iterator };
  })();
  return { body: Readable.from(rest, { objectMode: false }), contentType: typeOf(start, false) };
}

function typeOf(bytes: Buffer, complete: boolean): string | undefined {
  if (bytes.byteLength === 0) return undefined;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: !complete });
  } catch {
    return "application/octet-stream";
  }
  if (!complete) return /^\s*[[{]/.test(text) ? "application/json" : "text/plain; charset=utf-8";
  try {
    JSON.parse(text);
    return "application/json";
  } catch {
    return "text/plain; charset=utf-8";
  }
}
