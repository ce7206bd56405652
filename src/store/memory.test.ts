import { storeConformance } from "./conformance.ts";
import { openMemoryStore } from "./memory.ts";

storeConformance("memory", ["values", "log", "queue", "blobs"], async (context) => {
  const store = openMemoryStore();
  context.after(() => store.close());
  return store;
});
