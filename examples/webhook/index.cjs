const { createHmac, timingSafeEqual } = require("node:crypto");

/** Called with API Gateway's payload 2.0, as on AWS Lambda. */
exports.handler = async (event) => {
  if (event.requestContext?.http?.method !== "POST") return answer(405, { error: "POST a webhook" }, { allow: "POST" });
  const body = Buffer.from(event.body ?? "", event.isBase64Encoded ? "base64" : "utf8");
  if (!isSigned(body, event.headers["x-hub-signature-256"], process.env.WEBHOOK_SECRET)) {
    return answer(401, { error: "x-hub-signature-256 does not match the body and WEBHOOK_SECRET" });
  }
  const payload = parse(body, event.headers["content-type"] ?? "");
  if (payload === null) return answer(400, { error: "the signature is right, but the body is not a JSON object" });
  const type = event.headers["x-github-event"] ?? "";
  const delivery = event.headers["x-github-delivery"] ?? "";
  const summary = summarise(type, payload);
  console.log(`delivery ${delivery}: ${summary ?? `nothing to do for event '${type}'`}`);
  // GitHub shows an error for anything but 2xx; an event that is of no interest is no error.
  return summary === null ? answer(202, { ignored: type }) : answer(200, { event: type, delivery, summary });
};

/** Compares in constant time: how long a wrong signature takes to refuse must not tell how much of it is right. */
function isSigned(body, signature, secret) {
  const expected = Buffer.from(`sha256=${createHmac("sha256", secret).update(body).digest("hex")}`);
  const given = Buffer.from(signature ?? "");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

/** GitHub sends JSON, or a form with the JSON in its field `payload`; the signature is of the body as it is. Null: neither. */
function parse(body, contentType) {
  const text = body.toString("utf8");
  const isForm = contentType.startsWith("application/x-www-form-urlencoded");
  try {
    const payload = JSON.parse(isForm ? (new URLSearchParams(text).get("payload") ?? "") : text);
    return typeof payload === "object" && !Array.isArray(payload) ? payload : null;
  } catch {
    return null;
  }
}

/** One line about an event; null for types that this function does not care about. */
function summarise(type, payload) {
  const repository = payload.repository?.full_name ?? "?";
  const sender = payload.sender?.login ?? "?";
  switch (type) {
    case "ping":
      return `pong: ${payload.zen ?? ""}`;
    case "push": {
      const count = payload.commits?.length ?? 0;
      return `${sender} pushed ${count} ${count === 1 ? "commit" : "commits"} to ${repository} ${payload.ref ?? ""}`.trimEnd();
    }
    case "issues":
    case "pull_request": {
      const subject = payload.issue ?? payload.pull_request;
      return `${sender} ${payload.action ?? "touched"} ${repository}#${subject?.number ?? "?"}: ${subject?.title ?? ""}`;
    }
    default:
      return null;
  }
}

function answer(statusCode, body, headers = {}) {
  return { statusCode, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) };
}
