import { appendFileSync } from "node:fs";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import type { AddressInfo } from "node:net";

/** Takes the notes of functions that cannot reach the file: a line per note, and a byte back when it is written. */
export class Recorder {
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  private constructor(file: string) {
    this.#server = createServer((socket) => {
      this.#open.add(socket);
      socket.on("error", () => {}).on("close", () => void this.#open.delete(socket));
      let begun = "";
      socket.setEncoding("utf8").on("data", (text: string) => {
        const lines = (begun + text).split("\n");
        begun = lines.pop() ?? "";
        for (const line of lines) appendFileSync(file, `${line}\n`);
        socket.write(".".repeat(lines.length));
      });
    });
  }

  static async open(file: string): Promise<Recorder> {
    const recorder = new Recorder(file);
    recorder.#server.listen(0, "127.0.0.1");
    await once(recorder.#server, "listening");
    return recorder;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Resolves when everything was read of those that have ended: nothing of theirs may be noted later. */
  async quiet(): Promise<void> {
    await Promise.all([...this.#open].map((socket) => once(socket, "close")));
  }

  close(): void {
    for (const socket of this.#open) socket.destroy();
    this.#server.close();
  }
}
