import { z } from "zod";
import type { RouteDecision, TriggerRequest } from "../trigger.ts";

const PATH =
  /^(?:\/(?:[A-Za-z0-9._~!$&'()*,;=:@-]|%[0-9A-Fa-f]{2})*|\/\{[A-Za-z_][A-Za-z0-9_]*\})+(?:\/\{[A-Za-z_][A-Za-z0-9_]*\+\})?$/;
const HOST = /^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$/;

const cors = z
  .strictObject({
    origins: z.array(z.string().max(256)).min(1).meta({ description: 'Like "https://app.example.com", or "*".' }),
    headers: z.array(z.string().max(64)).default([]).meta({ description: "Request headers beside the simple ones." }),
    exposed: z.array(z.string().max(64)).default([]).meta({ description: "Answer headers that pages may read." }),
    credentials: z.boolean().default(false),
    maxAgeSeconds: z.int().min(0).max(86_400).default(600),
  })
  .refine(({ origins, credentials }) => !(credentials && origins.includes("*")), {
    error: 'cannot allow credentials to "*"',
  })
  .meta({ description: "Which pages of other sites may send requests." });

/** The settings by which requests find their way, and pages of other sites may come. */
export const routeFields = {
  path: z
    .string()
    .max(1_024)
    .regex(PATH, "must be a path such as /hooks/{id}/items")
    .refine((path) => new Set(names(path)).size === names(path).length, "must not have a parameter twice")
    .meta({
      description: "Begins with /hooks/ unless there is a host; {name} is one segment, {name+} at the end the rest.",
    }),
  host: z
    .string()
    .max(253)
    .toLowerCase()
    .regex(HOST, "must be a host name, or *. and a host name")
    .optional()
    .meta({ description: "Only requests to this host." }),
  cors: cors.optional(),
} as const;

/** What routes without a host must hold to, or they could take the platform's own paths. */
export function checkPath(
  { path, host }: { readonly path: string; readonly host?: string | undefined },
  context: z.core.$RefinementCtx,
): void {
  if (host === undefined && !/^\/hooks\/./.test(path))
    context.addIssue({ code: "custom", path: ["path"], message: "must begin with /hooks/ when there is no host" });
}

type Cors = z.output<typeof cors>;

/** The answer to a preflight; null when the request is none. */
export function preflight(
  request: TriggerRequest,
  rules: Cors | undefined,
  methods: readonly string[],
): RouteDecision | null {
  if (request.method !== "OPTIONS" || request.header("access-control-request-method") === undefined) return null;
  const allowed = corsHeaders(request, rules);
  const headers =
    rules === undefined || allowed.length === 0
      ? []
      : [
          ...allowed,
          "Access-Control-Allow-Methods",
          methods.length === 0 ? "*" : methods.join(", "),
          ...(rules.headers.length === 0 ? [] : ["Access-Control-Allow-Headers", rules.headers.join(", ")]),
          "Access-Control-Max-Age",
          String(rules.maxAgeSeconds),
        ];
  return { kind: "answer", answer: { status: 204, headers, body: "" } };
}

/** What an answer must say so that the page that asked may see it. */
export function corsHeaders(request: TriggerRequest, rules: Cors | undefined): readonly string[] {
  const origin = request.header("origin");
  if (rules === undefined || origin === undefined) return [];
  const any = rules.origins.includes("*");
  if (!any && !rules.origins.includes(origin)) return ["Vary", "Origin"];
  return [
    "Access-Control-Allow-Origin",
    any ? "*" : origin,
    ...(any ? [] : ["Vary", "Origin"]),
    ...(rules.credentials ? ["Access-Control-Allow-Credentials", "true"] : []),
    ...(rules.exposed.length === 0 ? [] : ["Access-Control-Expose-Headers", rules.exposed.join(", ")]),
  ];
}

function names(path: string): readonly string[] {
  return [...path.matchAll(/\{([^}+]+)\+?\}/g)].map(([, name = ""]) => name);
}
