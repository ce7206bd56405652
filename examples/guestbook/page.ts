import { randomBytes } from "node:crypto";
import type { Entry } from "./book.ts";

/** The page with the form; new entries appear by themselves. */
export function renderPage(entries: readonly Entry[], basePath: string): Response {
  const nonce = randomBytes(16).toString("base64");
  const items = entries.map(
    ({ id, name, message }) => `<li id="entry-${id}"><b>${escapeHtml(name)}</b> ${escapeHtml(message)}</li>`,
  );
  // What comes between the page and its stream is not missed: the stream begins after the last entry of the page.
  const lastId = entries.at(-1)?.id ?? 0;
  const html = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Guestbook</title>
<style nonce="${nonce}">body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }</style>
<h1>Guestbook</h1>
<form method="post" action="${escapeHtml(basePath)}/entries">
  <input name="name" required maxlength="60" placeholder="Your name" aria-label="Your name">
  <input name="message" required maxlength="500" placeholder="Your message" aria-label="Your message">
  <button>Sign</button>
</form>
<ol id="entries" data-events="${escapeHtml(basePath)}/events?after=${lastId}">${items.join("\n")}</ol>
<script nonce="${nonce}">
  const list = document.getElementById("entries");
  const events = new EventSource(list.dataset.events);
  events.addEventListener("added", ({ data }) => {
    const { id, name, message } = JSON.parse(data);
    if (document.getElementById("entry-" + id)) return;
    const item = document.createElement("li");
    const author = document.createElement("b");
    item.id = "entry-" + id;
    author.textContent = name;
    item.append(author, " " + message);
    list.append(item);
  });
  events.addEventListener("removed", ({ data }) => document.getElementById("entry-" + JSON.parse(data).id)?.remove());
</script>
</html>
`;
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src 'nonce-${nonce}'`,
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
  return new Response(html, {
    headers: {
      "content-type": "text/html; charset=utf-8",
      "content-security-policy": policy,
      "cache-control": "no-store",
    },
  });
}

/** For text and for attributes in double or single quotes. */
function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}
