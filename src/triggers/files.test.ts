import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { sourceConformance } from "./conformance.ts";
import { createFilesKind } from "./files.ts";

sourceConformance({
  name: "files",
  kind: createFilesKind([tmpdir()]),
  async open() {
    const folder = await mkdtemp(join(tmpdir(), "koine-files-"));
    return {
      settings: { folder, settleMs: 20, scanMs: 1_000 },
      unreachable: { folder: join(folder, "missing"), settleMs: 20 },
      async publish(texts) {
        // The order of files is that of their times of change, which have milliseconds and better.
        for (const text of texts) await writeFile(join(folder, `${text}.txt`), text);
      },
      textOf: (event) => {
        const { path } = event.data as { readonly path: string };
        return event.type === "koine.file.created" ? basename(path, ".txt") : null;
      },
      [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
    };
  },
  wrongSettings: [
    [{}, /folder/],
    [{ folder: "relative" }, /absolute path/],
    [{ folder: "/tmp", settleMs: -1 }, /settleMs/],
    [{ folder: "/tmp", suffixes: "csv" }, /suffixes/],
  ],
});
