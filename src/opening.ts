import { deserialize, serialize } from "node:v8";
import type { Config } from "./config.ts";

/** What the process of a further engine is told first. */
export interface Opening {
  readonly config: Config;
  /** Its number; the first engine is 1. */
  readonly engine: number;
}

/** As text, since a configuration may hold what JSON cannot say. */
export function packOpening({ config, engine }: Opening): string {
  // The environment may be the process's own, which is no plain object.
  const plain: Opening = { config: { ...config, environment: { ...config.environment } }, engine };
  return serialize(plain).toString("base64");
}

export function unpackOpening(text: string): Opening {
  return deserialize(Buffer.from(text, "base64")) as Opening;
}
