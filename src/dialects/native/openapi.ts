import { z } from "zod";
import { errorTable } from "../../core/errors.ts";
import type { Route } from "./router.ts";

/** The OpenAPI 3.1 description of the management API, from the routes and the schemas that validate. */
export function describeApi(routes: readonly Route[], version: string): Readonly<Record<string, unknown>> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const operations = (paths[route.path] ??= {});
    operations[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Koine",
      version,
      description:
        "The management API. Functions themselves are called at /fn/NAME and /ns/NS/fn/NAME with any method.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    paths,
    components: { securitySchemes: { token: { type: "http", scheme: "bearer" } }, schemas: { Error: errorSchema() } },
    security: [{ token: [] }, {}],
  };
}

function operation(route: Route): Record<string, unknown> {
  const parameters = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: "path",
    required: true,
    schema: { type: "string" },
  }));
  const query = jsonSchema(route.query);
  const required = new Set(Array.isArray(query["required"]) ? query["required"] : []);
  const properties = (query["properties"] ?? {}) as Record<string, unknown>;
  const inQuery = Object.entries(properties).map(([name, schema]) => ({
    name,
    in: "query",
    required: required.has(name),
    schema,
  }));
  const content = route.body === null ? undefined : { "application/json": { schema: jsonSchema(route.body) } };
  return {
    summary: route.summary,
    operationId: operationId(route),
    parameters: [...parameters, ...inQuery],
    ...(content === undefined ? {} : { requestBody: { required: true, content } }),
    responses: {
      default: {
        description: "An error.",
        content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
      },
      "2XX": { description: route.answers },
    },
  };
}

function operationId(route: Route): string {
  const words = route.path
    .replaceAll(/[{}]/g, "")
    .split("/")
    .filter((word) => word !== "" && word !== "v1");
  return [route.method.toLowerCase(), ...words].join("-");
}

function jsonSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input" });
  return rest;
}

function errorSchema(): Record<string, unknown> {
  const text = { type: "string" };
  const error = {
    type: "object",
    required: ["code", "fault", "message", "hint", "requestId"],
    properties: {
      code: { enum: Object.keys(errorTable) },
      fault: { enum: ["caller", "function", "platform"] },
      message: text,
      hint: text,
      requestId: text,
      cause: { type: "object", properties: { type: text, message: text, stack: text } },
      values: { type: "object" },
    },
  };
  return { type: "object", required: ["error"], properties: { error } };
}
