import { createHash, timingSafeEqual } from "node:crypto";
import { Book } from "./book.ts";
import { renderPage } from "./page.ts";
import { eventStream } from "./events.ts";

/** What the platform tells a handler beside the request; this is the part that is used here. */
interface Context {
  /** Where the function is reached: `/fn/guestbook`. Links need it, since the request's own path begins after it. */
  readonly basePath: string;
}

interface Submission {
  readonly name: string;
  readonly message: string;
}

const NAME_LENGTH_MAX = 60;
const MESSAGE_LENGTH_MAX = 500;
const BODY_BYTES_MAX = 16 * 1024;
const FOLLOWERS_MAX = 500;

/** Lives as long as the instance; koine.json lets one instance serve all calls, so that they see the same book. */
const book = new Book();

export default {
  async fetch(request: Request, context: Context): Promise<Response> {
    const { pathname } = new URL(request.url);
    const { method } = request;
    if (pathname === "/") {
      return method === "GET" ? renderPage(book.entries, context.basePath) : wrongMethod("GET");
    }
    if (pathname === "/entries") {
      if (method === "GET") return Response.json(book.entries);
      return method === "POST" ? await sign(request, context) : wrongMethod("GET, POST");
    }
    if (pathname === "/events") {
      if (method !== "GET") return wrongMethod("GET");
      if (book.followers >= FOLLOWERS_MAX) return refuse(503, "too many pages follow the book already");
      return eventStream(book, request);
    }
    const id = /^\/entries\/(\d{1,15})$/.exec(pathname)?.[1];
    if (id === undefined) return refuse(404, `there is nothing at ${pathname}`);
    return method === "DELETE" ? remove(request, Number(id)) : wrongMethod("DELETE");
  },
};

async function sign(request: Request, { basePath }: Context): Promise<Response> {
  const body = await readText(request, BODY_BYTES_MAX);
  if (body === null) return refuse(413, `an entry may have ${BODY_BYTES_MAX} bytes`);
  const isForm = request.headers.get("content-type")?.startsWith("application/x-www-form-urlencoded") === true;
  const submission = isForm ? parseForm(body) : parseJson(body);
  if (submission === null) return refuse(400, 'send a form, or JSON such as {"name":"Ada","message":"Hello"}');
  const name = submission.name.trim();
  const message = submission.message.trim();
  if (name === "" || name.length > NAME_LENGTH_MAX) return refuse(400, `name needs 1 to ${NAME_LENGTH_MAX} characters`);
  if (message === "" || message.length > MESSAGE_LENGTH_MAX) {
    return refuse(400, `message needs 1 to ${MESSAGE_LENGTH_MAX} characters`);
  }
  const entry = book.add(name, message);
  console.log(`entry ${entry.id} by ${JSON.stringify(name)}`);
  // After a form, 303 lets the browser show the page, and reload it without signing again.
  if (isForm) return new Response(null, { status: 303, headers: { location: `${basePath}/` } });
  return Response.json(entry, { status: 201, headers: { location: `${basePath}/entries/${entry.id}` } });
}

function remove(request: Request, id: number): Response {
  if (!isAdmin(request.headers.get("x-admin-token") ?? "")) return refuse(401, "x-admin-token must be GUESTBOOK_ADMIN");
  return book.remove(id) ? new Response(null, { status: 204 }) : refuse(404, `there is no entry ${id}`);
}

/** In constant time: digests have one length, whatever was sent. */
function isAdmin(token: string): boolean {
  const expected = process.env["GUESTBOOK_ADMIN"] ?? "";
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return expected !== "" && timingSafeEqual(digest(token), digest(expected));
}

function parseForm(body: string): Submission {
  const fields = new URLSearchParams(body);
  return { name: fields.get("name") ?? "", message: fields.get("message") ?? "" };
}

function parseJson(body: string): Submission | null {
  try {
    const { name, message } = JSON.parse(body) as Record<string, unknown>;
    return typeof name === "string" && typeof message === "string" ? { name, message } : null;
  } catch {
    return null;
  }
}

/** Null: there are more than `bytesMax`. */
async function readText(request: Request, bytesMax: number): Promise<string | null> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.length;
    if (bytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function wrongMethod(allow: string): Response {
  return refuse(405, `use ${allow}`, { allow });
}

function refuse(status: number, error: string, headers: Record<string, string> = {}): Response {
  return Response.json({ error }, { status, headers });
}
