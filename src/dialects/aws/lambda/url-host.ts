import type { GatewayRequest } from "../../dialect.ts";

const ID_LENGTH = 32;
const MARK = ".lambda-url.";
const ID = /^[a-z2-7]{32}$/;

/** The id in the host name `ID.lambda-url.REGION.…`, in lower case; null for every other host, which costs a comparison of lengths and one of places. */
export function urlIdOf({ headers }: Pick<GatewayRequest, "headers">): string | null {
  const host = headers.get("host");
  if (host === undefined || host.length <= ID_LENGTH + MARK.length) return null;
  if (host.toLowerCase().indexOf(MARK) !== ID_LENGTH) return null;
  const id = host.slice(0, ID_LENGTH).toLowerCase();
  return ID.test(id) ? id : null;
}

/** The region in such a name. */
export function urlRegionOf({ headers }: Pick<GatewayRequest, "headers">): string {
  return (headers.get("host") ?? "").slice(ID_LENGTH + MARK.length).split(/[.:]/)[0] || "us-east-1";
}

/** Whether a request is for the address of a function: everything there is the function's, whatever the path. */
export function isFunctionUrl(request: GatewayRequest): boolean {
  return urlIdOf(request) !== null;
}
