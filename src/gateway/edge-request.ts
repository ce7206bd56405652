import type { Caller } from "../core/invocation.ts";
import type { GatewayRequest } from "../dialects/dialect.ts";

/** A request as a front end hands it over: nobody knows yet who asks. */
export interface EdgeRequest extends GatewayRequest {
  caller: Caller | null;
}
