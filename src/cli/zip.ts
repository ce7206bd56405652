import { createReadStream, type ReadStream } from "node:fs";
import { PassThrough, type Readable } from "node:stream";
import { ZipFile } from "yazl";
import { invalidEntry } from "../core/code-package.ts";
import type { PackSource } from "./pack.ts";

/** Local time, because the format has no time zone: the archive of equal trees is equal everywhere. */
const MODIFIED = new Date(1980, 0, 1);
/** Packing is waited for; beyond this level it takes twice as long and saves a twentieth. */
const COMPRESSION_LEVEL = 4;

/** A zip archive of these sources, made while it is read. A source that changes or fails meanwhile ends the stream with an error. */
export function zipPackage(sources: readonly PackSource[]): Readable {
  const zip = new ZipFile();
  const output = new PassThrough();
  let reading: ReadStream | null = null;
  const fail = (thrown: unknown): void => {
    output.destroy(thrown instanceof Error ? thrown : new Error(String(thrown)));
  };
  output.on("close", () => reading?.destroy());
  zip.on("error", fail);
  zip.outputStream.on("error", fail);
  const always = { mtime: MODIFIED, forceDosTimestamp: true };
  for (const source of sources) {
    switch (source.kind) {
      case "link":
        zip.addBuffer(Buffer.from(source.target), source.path, { ...always, mode: 0o120777, compress: false });
        break;
      case "file": {
        const mode = source.executable ? 0o100755 : 0o100644;
        const settings = { ...always, mode, size: source.bytes, compressionLevel: COMPRESSION_LEVEL };
        zip.addReadStreamLazy(source.path, settings, (callback) => {
          reading = createReadStream(source.onDisk);
          reading.on("error", (thrown) => fail(invalidEntry(source.path, "it cannot be read any more", thrown)));
          callback(null, reading);
        });
        break;
      }
      default:
        source satisfies never;
    }
  }
  zip.end();
  zip.outputStream.pipe(output);
  return output;
}
