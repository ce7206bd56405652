/**
 * What `import … from "koine"` gives a function that is deployed with `--allow`: it asks the platform over a loopback port of its own sandbox, with a
 * token that ends with its instance. See docs/triggers.md.
 *
 * @typedef {{ async?: boolean, qualifier?: string, signal?: AbortSignal }} InvokeOptions
 * @typedef {{ type?: string, subject?: string, source?: string, id?: string, contentType?: string, signal?: AbortSignal }} PublishOptions
 */

/** An answer of the platform that is an error; `code` is its own, such as `forbidden`. */
export class KoineError extends Error {
  /** @param {number} status @param {{ code?: string, message?: string, hint?: string }} error */
  constructor(status, { code = "unexpected-answer", message = `The platform answered ${status}`, hint = "" }) {
    super(hint === "" ? message : `${message}. ${hint}`);
    this.name = "KoineError";
    this.status = status;
    this.code = code;
  }
}

/**
 * Hands a payload to a function of the same namespace and answers its result; with `async` its activation's id as soon as the call is on disk.
 *
 * @param {string} name NAME or PACKAGE/NAME
 * @param {unknown} [payload] a JSON value
 * @param {InvokeOptions} [options]
 * @returns {Promise<any>}
 */
export async function invoke(name, payload = {}, { async: later = false, qualifier, signal } = {}) {
  const query = new URLSearchParams({
    ...(later ? { mode: "async" } : {}),
    ...(qualifier === undefined ? {} : { qualifier }),
  });
  const answer = await ask("POST", `/functions/${encodeURIComponent(name)}/invoke?${query}`, { json: payload, signal });
  return later ? answer.activationId : answer;
}

/**
 * Publishes an event to a topic; it is on disk for every subscription when this resolves.
 *
 * @param {string} topic
 * @param {unknown} data a JSON value
 * @param {PublishOptions} [options]
 * @returns {Promise<{ subscriptions: number, activationIds: string[] }>}
 */
export async function publish(topic, data, { type, subject, source, id, signal } = {}) {
  const event = {
    specversion: "1.0",
    id: id ?? crypto.randomUUID(),
    source: source ?? `/topics/${topic}`,
    type: type ?? "koine.topic.message",
    time: new Date().toISOString(),
    datacontenttype: "application/json",
    ...(subject === undefined ? {} : { subject }),
    data,
  };
  const contentType = "application/cloudevents+json";
  return await ask("POST", `/topics/${encodeURIComponent(topic)}`, { json: event, contentType, signal });
}

/**
 * Makes or replaces a schedule: `schedule("remind-17", { function: "remind", at: "2030-01-31T09:00:00Z", data: { id: 17 } })`.
 *
 * @param {string} name
 * @param {{ function: string, cron?: string, rate?: string, at?: string, timezone?: string, data?: unknown, overlap?: string, catchUp?: string, jitterMs?: number }} rule
 * @returns {Promise<unknown>}
 */
export async function schedule(name, { function: target, ...settings }) {
  return await ask("PUT", `/triggers/${encodeURIComponent(name)}`, {
    json: { kind: "schedule", function: target, settings },
  });
}

/** @param {string} name */
export async function unschedule(name) {
  await ask("DELETE", `/triggers/${encodeURIComponent(name)}`, {});
}

/**
 * The value that a secret has now; one that the function was deployed with.
 *
 * @param {string} name
 * @returns {Promise<string>}
 */
export async function secret(name) {
  const { value } = await ask("GET", `/secrets/${encodeURIComponent(name)}`, { atRoot: true });
  return value;
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{ json?: unknown, contentType?: string, signal?: AbortSignal | undefined, atRoot?: boolean }} request
 * @returns {Promise<any>}
 */
async function ask(method, path, { json, contentType = "application/json", signal, atRoot = false }) {
  const { KOINE_API: api, KOINE_TOKEN: token, KOINE_NAMESPACE: namespace } = process.env;
  if (api === undefined)
    throw new KoineError(0, {
      code: "forbidden",
      message: "This function may not ask the platform",
      hint: "Deploy it with --allow.",
    });
  const answer = await fetch(api + (atRoot ? path : `/v1/namespaces/${namespace}${path}`), {
    method,
    headers: { authorization: `Bearer ${token}`, ...(json === undefined ? {} : { "content-type": contentType }) },
    ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    ...(signal === undefined ? {} : { signal }),
  });
  const text = await answer.text();
  const isJson = /[/+]json\b/.test(answer.headers.get("content-type") ?? "");
  const content = isJson && text !== "" ? JSON.parse(text) : text;
  if (answer.headers.get("x-koine-error") !== null || !answer.ok)
    throw new KoineError(answer.status, content?.error ?? {});
  return content;
}
