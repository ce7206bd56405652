import type { Book, Change } from "./book.ts";

/** Proxies close connections on which nothing comes for a while. */
const HEARTBEAT_MS = 15_000;
/** A page that has not read so many events is gone or asleep; it will ask for what it missed when it is back. */
const UNREAD_EVENTS_MAX = 100;

/** Changes of the book as server-sent events; whoever says `?after=ID`, or `Last-Event-ID` as browsers do, first gets what came since. */
export function eventStream(book: Book, request: Request): Response {
  const after = request.headers.get("last-event-id") ?? new URL(request.url).searchParams.get("after");
  const lastSeen = after === null ? Number.POSITIVE_INFINITY : Number(after);
  let stop = (): void => {};
  const stream = new ReadableStream<string>(
    {
      start(controller) {
        const unfollow = book.follow((change) => {
          if ((controller.desiredSize ?? 0) > 0) return controller.enqueue(format(change));
          stop();
          controller.close();
        });
        const heartbeat = setInterval(() => controller.enqueue(":\n\n"), HEARTBEAT_MS);
        stop = () => {
          clearInterval(heartbeat);
          unfollow();
        };
        // Without a first byte a client would not know that it is connected until something happens.
        controller.enqueue(": following\n\n");
        for (const entry of book.entries) if (entry.id > lastSeen) controller.enqueue(format({ kind: "added", entry }));
      },
      cancel: () => stop(),
    },
    { highWaterMark: UNREAD_EVENTS_MAX },
  );
  const headers = { "content-type": "text/event-stream", "cache-control": "no-store" };
  return new Response(stream.pipeThrough(new TextEncoderStream()), { headers });
}

function format(change: Change): string {
  switch (change.kind) {
    case "added":
      return `id: ${change.entry.id}\nevent: added\ndata: ${JSON.stringify(change.entry)}\n\n`;
    case "removed":
      return `event: removed\ndata: ${JSON.stringify({ id: change.id })}\n\n`;
  }
}
