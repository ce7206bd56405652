import { StringDecoder } from "node:string_decoder";

/** Lines of a byte stream, without their ends; the last one too when it has no end. */
export async function* lines(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  for await (const chunk of stream) {
    rest += decoder.write(chunk);
    const complete = rest.split("\n");
    rest = complete.pop() ?? "";
    for (const line of complete) yield line.endsWith("\r") ? line.slice(0, -1) : line;
  }
  rest += decoder.end();
  if (rest !== "") yield rest;
}

export interface ServerSentEvent {
  readonly event: string;
  readonly id: string | null;
  readonly text: string;
}

/** Server-sent events of a byte stream; comments, which keep the connection alive, are left out. */
export async function* serverSentEvents(stream: AsyncIterable<Buffer>): AsyncGenerator<ServerSentEvent> {
  let event = "message";
  let id: string | null = null;
  let text: string[] = [];
  for await (const line of lines(stream)) {
    if (line === "") {
      if (text.length > 0) yield { event, id, text: text.join("\n") };
      event = "message";
      text = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "id") id = value;
    else if (field === "data") text.push(value);
  }
}
