import { createHash } from "node:crypto";
import { DEFAULT_NAMESPACE } from "../../core/function.ts";

/** The account of the default namespace: what emulators use. */
export const LOCAL_ACCOUNT = "000000000000";

/** The twelve digits that stand for a namespace; the same on every platform. */
export function accountIdOf(namespace: string): string {
  if (namespace === DEFAULT_NAMESPACE) return LOCAL_ACCOUNT;
  const number = createHash("sha256").update(`account of ${namespace}`).digest().readUIntBE(0, 6) % 1_000_000_000_000;
  return String(number).padStart(12, "0");
}

/** Parts of `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`; null for text that is none. */
export function parseArn(
  text: string,
): { readonly service: string; readonly region: string; readonly accountId: string; readonly resource: string } | null {
  const [arn, partition, service, region, accountId, ...resource] = text.split(":");
  if (arn !== "arn" || !partition?.startsWith("aws") || !service || region === undefined || accountId === undefined)
    return null;
  return resource.length === 0 ? null : { service, region, accountId, resource: resource.join(":") };
}
