import { fileURLToPath } from "node:url";
import type { Platform } from "../../platform/platform.ts";
import type { CallDialect, Dialect, GatewayRequest, HandlerAdapters } from "../dialect.ts";
import { apiRoutes, type PlatformFacts } from "./api.ts";
import { Calls, type CallsPlatform } from "./calls.ts";
import { Hooks } from "./hooks.ts";
import { describeApi } from "./openapi.ts";
import { Router } from "./router.ts";

/** Koine's own handler models, in the order in which they are tried. */
export const nativeAdapters: HandlerAdapters = {
  folder: fileURLToPath(new URL("handlers", import.meta.url)),
  models: { nodejs: ["web"], python: ["asgi", "wsgi"] },
};

/** Calls of functions alone, for engines that have nothing else. */
export function createNativeCalls(
  platform: CallsPlatform,
  elsewhere: (request: GatewayRequest) => boolean,
): CallDialect {
  return new Calls(platform, elsewhere);
}

/** Koine's own way of speaking: functions at `/fn/…`, management at `/v1/…`. */
export function createNativeDialect(platform: Platform, facts: PlatformFacts): Dialect {
  const calls = new Calls(platform);
  const routes = apiRoutes(platform, calls, facts);
  const router = new Router(routes, platform.parts.supervise);
  const hooks = new Hooks(platform);
  return {
    name: "native",
    adapters: nativeAdapters,
    handleForeign: (request) => hooks.handle(request),
    handle: (request) => calls.handle(request) || router.handle(request),
    openapi: () => describeApi(routes, facts.version),
  };
}
