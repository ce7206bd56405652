import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { storeConformance } from "./conformance.ts";
import { openSqliteStore } from "./sqlite.ts";

storeConformance("sqlite", ["values", "log", "queue"], async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "koine-sqlite-"));
  const store = await openSqliteStore({ directory });
  context.after(async () => {
    await store.close();
    await rm(directory, { recursive: true });
  });
  return store;
});
