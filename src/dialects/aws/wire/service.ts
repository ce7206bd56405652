import type { z } from "zod";
import type { GatewayRequest } from "../../dialect.ts";

/** Who is asking, by the key that signed the request. */
export interface Principal {
  /** `arn:aws:iam::000000000000:root`, `…:user/NAME`, `arn:aws:sts::…:assumed-role/ROLE/SESSION`. */
  readonly arn: string;
  /** Twelve digits; stands for a namespace. */
  readonly accountId: string;
  readonly namespace: string;
  /** As GetCallerIdentity tells: the user's or role's own id. */
  readonly userId: string;
  /** Null: the request was not signed, which only some resources allow. */
  readonly accessKeyId: string | null;
  /** Whether the key is one for a while, and the policy that narrows what it may; null: a key that lasts, or none. */
  readonly session: { readonly policy: string | null } | null;
}

/** What an operation is run with. */
export interface CallContext {
  readonly principal: Principal;
  readonly region: string;
  readonly requestId: string;
  readonly nowMs: number;
  /** For what the protocol's own shapes do not cover: raw payloads, headers, streams. */
  readonly request: GatewayRequest;
  /** The whole body as received. */
  readonly body: Buffer;
  /** Aborted when the client leaves. */
  readonly signal: AbortSignal;
}

/** What an operation answers; `null`: it has answered, or will answer, on the request's response itself. */
export type OperationAnswer = {
  /** 200 when absent. */
  readonly status?: number;
  /** A structure in the terms of the service's protocol; null: an empty body. */
  readonly body: Readonly<Record<string, unknown>> | null;
  readonly headers?: readonly string[];
} | null;

/** One operation of a service's API. */
export interface Operation {
  readonly name: string;
  /** What policies allow or deny: `lambda:CreateFunction`. Null: anybody may (GetCallerIdentity). */
  readonly action: string | null;
  /** Parses path, query and body members together, as the SDKs name them. */
  readonly input: z.ZodType;
  /** The resource that policies are evaluated on; `*` where it has none. */
  resource(input: unknown, context: Pick<CallContext, "principal" | "region">): string;
  run(input: unknown, context: CallContext): Promise<OperationAnswer>;
}

/** How a service's requests are told apart and written: `rest-json` by method and path, the others by name. Times in answers are Dates. */
export type ServiceProtocol = "rest-json" | "json" | "query" | "cbor";

export interface Routed {
  readonly operation: string;
  readonly parameters: Readonly<Record<string, string>>;
}

/** One service of the dialect: a folder beside this one, and one line in `aws.ts`. */
export interface Service {
  /** As it stands in credential scopes: `lambda`, `sqs`, `iam`, `sts`, `logs`, `monitoring`. */
  readonly name: string;
  readonly protocols: readonly ServiceProtocol[];
  /** In front of the operation in `X-Amz-Target`: `Logs_20140328`; null where there is no JSON protocol. */
  readonly target: string | null;
  /** `Version` of the query protocol, which also names the XML namespace; null where there is none. */
  readonly queryVersion: string | null;
  /** XML namespace of answers in the query protocol. */
  readonly xmlNamespace: string | null;
  readonly operations: ReadonlyMap<string, Operation>;
  /** For `rest-json`: the operation of a method, path and query, with what the path says (percent-decoded). Null: there is none. */
  route(method: string, path: string, query: URLSearchParams): Routed | null;
  /** Names of errors where they differ by protocol, as SQS's do: code of the query protocol by code of JSON. */
  readonly queryErrors?: Readonly<Record<string, string>>;
  /** What a form means in the terms of the operations, where the query protocol has other shapes than JSON. */
  fromForm?(form: Readonly<Record<string, unknown>>, path: string): Readonly<Record<string, unknown>>;
  /** The structure that is written as XML, where it is not the one that the operation answers. */
  toXml?(operation: string, body: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>;
}

/** Ties an operation's code to its schema. */
export function operation<Input extends z.ZodType>(
  name: string,
  description: {
    readonly action: string | null;
    readonly input: Input;
    readonly resource?: (input: z.output<Input>, context: Pick<CallContext, "principal" | "region">) => string;
  },
  run: (input: z.output<Input>, context: CallContext) => Promise<OperationAnswer>,
): Operation {
  const { action, input, resource = () => "*" } = description;
  return {
    name,
    action,
    input,
    resource: (given, context) => resource(given as z.output<Input>, context),
    run: (given, context) => run(given as z.output<Input>, context),
  };
}

/**
 * Routes of a `rest-json` service by `METHOD /path/{Parameter}?Query=Value`; the first that fits, so that one with a query stands before the one without.
 * A query without a value needs the name only.
 */
export function routesOf(routes: Readonly<Record<string, string>>): Service["route"] {
  const compiled = Object.entries(routes).map(([address, operationName]) => {
    const [method = "", target = ""] = address.split(" ");
    const [path = "", query = ""] = target.split("?");
    return {
      method,
      operation: operationName,
      segments: path.split("/").slice(1),
      query: [...new URLSearchParams(query)],
    };
  });
  const find: Service["route"] = (method, path, query) => {
    const segments = path.replace(/\/+$/, "").split("/").slice(1);
    for (const route of compiled) {
      if (route.method !== method || route.segments.length !== segments.length) continue;
      if (!route.query.every(([name, value]) => (value === "" ? query.has(name) : query.get(name) === value))) continue;
      const parameters = matched(route.segments, segments);
      if (parameters !== null) return { operation: route.operation, parameters };
    }
    return null;
  };
  // Clients ask at the same few addresses again and again.
  const recent = new Map<string, Routed | null>();
  return (method, path, query) => {
    if (query.size > 0) return find(method, path, query);
    const address = `${method} ${path}`;
    const known = recent.get(address);
    if (known !== undefined) return known;
    const found = find(method, path, query);
    if (recent.size >= RECENT_MAX) recent.clear();
    recent.set(address, found);
    return found;
  };
}

const RECENT_MAX = 1_000;

function matched(wanted: readonly string[], given: readonly string[]): Record<string, string> | null {
  const parameters: Record<string, string> = {};
  for (const [index, segment] of wanted.entries()) {
    const text = given[index] ?? "";
    if (!segment.startsWith("{")) {
      if (segment !== text) return null;
      continue;
    }
    if (text === "") return null;
    try {
      parameters[segment.slice(1, -1)] = decodeURIComponent(text);
    } catch {
      return null;
    }
  }
  return parameters;
}
