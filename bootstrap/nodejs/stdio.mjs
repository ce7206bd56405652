import {
  HELD_BYTES_MAX,
  HELD_MS_MAX,
  TAIL_BYTES_MAX,
  callEnvironment,
  contentTypeOf,
  failureOf,
} from "./stdio-call.mjs";
import { ReportedError } from "./thrown.mjs";

const { accessSync, constants, statSync } = process.getBuiltinModule("node:fs");
const { delimiter, join } = process.getBuiltinModule("node:path");

/**
 * Runs a program of the user's for each call: the body on its stdin, the answer from its stdout, the request in its environment.
 *
 * @typedef {import("./call.mjs").Call} Call
 * @typedef {import("./load.mjs").Instance} Instance
 * @typedef {{ command: readonly string[] }} Program
 */
export const model = "stdio";

/** There are no modules to choose from. */
export function select() {
  return null;
}

/**
 * @param {Program} program
 * @param {Instance} instance
 * @returns {(call: Call) => Promise<void>}
 */
export function adapt(program, instance) {
  const [name = "", ...args] = program.command;
  const file = findProgram(name);
  const { spawn } = process.getBuiltinModule("node:child_process");
  return (call) => {
    const body = call.takeBody();
    const env = { ...process.env, ...callEnvironment(call.head, body === null ? null : body.length) };
    // A process group of its own: what it leaves behind ends with it.
    const child = spawn(file, args, { cwd: instance.codePath, env, stdio: ["pipe", "pipe", "pipe"], detached: true });
    return new Run(call, child, file).finish(body);
  };
}

/** One program that runs. */
class Run {
  #call;
  #child;
  #file;
  /** @type {Buffer[]} */
  #held = [];
  #heldBytes = 0;
  #tail = "";
  /** @type {NodeJS.Timeout | null} */
  #timer = null;

  /**
   * @param {Call} call
   * @param {import("node:child_process").ChildProcessByStdio<import("node:stream").Writable, import("node:stream").Readable, import("node:stream").Readable>} child
   * @param {string} file
   */
  constructor(call, child, file) {
    this.#call = call;
    this.#child = child;
    this.#file = file;
  }

  /** @param {Buffer | null} body null: it comes in pieces */
  async finish(body) {
    const kill = () => this.#kill();
    this.#call.signal.addEventListener("abort", kill, { once: true });
    const ended = this.#ended();
    try {
      this.#send(body).catch(() => {});
      this.#readErrors();
      await this.#readOutput();
      await this.#conclude(await ended);
    } finally {
      if (this.#timer !== null) clearTimeout(this.#timer);
      this.#call.signal.removeEventListener("abort", kill);
      this.#kill();
    }
  }

  /** @returns {Promise<{ exitCode: number | null, signal: string | null, error: Error | null }>} */
  #ended() {
    return new Promise((resolve) => {
      this.#child.once("error", (error) => resolve({ exitCode: null, signal: null, error }));
      this.#child.once("exit", (exitCode, signal) => {
        // Whoever it left behind may keep its output open for ever.
        this.#kill();
        resolve({ exitCode, signal, error: null });
      });
    });
  }

  /** @param {Buffer | null} body */
  async #send(body) {
    const { stdin } = this.#child;
    // A program need not read what it is given.
    stdin.on("error", () => {});
    if (body !== null) {
      stdin.end(body);
      return;
    }
    for await (const part of this.#call) {
      if (!stdin.write(part) && stdin.writable) {
        await new Promise((resolve) => {
          stdin.once("drain", resolve);
          stdin.once("close", resolve);
        });
      }
    }
    stdin.end();
  }

  #readErrors() {
    const { stderr } = this.#child;
    stderr.on("error", () => {});
    stderr.on("data", (chunk) => {
      this.#tail = (this.#tail + chunk.toString("latin1")).slice(-TAIL_BYTES_MAX);
      process.stderr.write(chunk);
    });
  }

  async #readOutput() {
    const { stdout } = this.#child;
    stdout.on("error", () => {});
    for await (const chunk of stdout) {
      if (this.#call.responded) {
        await this.#call.write(chunk);
        continue;
      }
      this.#held.push(chunk);
      this.#heldBytes += chunk.length;
      this.#timer ??= setTimeout(() => void this.#begin(), HELD_MS_MAX);
      if (this.#heldBytes >= HELD_BYTES_MAX) await this.#begin();
    }
  }

  /** @param {{ exitCode: number | null, signal: string | null, error: Error | null }} end */
  async #conclude(end) {
    if (end.error !== null) throw failed(`${this.#file} cannot be run: ${reason(end.error)}`);
    const failure = failureOf(end, Buffer.from(this.#tail, "latin1").toString("utf8"));
    if (failure !== null) throw failed(failure);
    if (!this.#call.responded) await this.#begin();
    this.#call.end();
  }

  /** Sends what was held back. */
  #begin() {
    if (this.#call.responded) return undefined;
    const first = Buffer.concat(this.#held.splice(0));
    this.#call.respond(200, ["content-type", contentTypeOf(process.env["content_type"], first)]);
    return first.length > 0 ? this.#call.write(first) : undefined;
  }

  #kill() {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // It has ended, and all whom it started.
    }
  }
}

/**
 * @param {string} name a path, or a name to look up
 * @throws {ReportedError}
 */
function findProgram(name) {
  const paths = name.includes("/")
    ? [name]
    : (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, name));
  const found = paths.filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile() === true);
  const runnable = found.find((path) => mayRun(path));
  if (runnable !== undefined) return runnable;
  const message = found[0] === undefined ? `there is no program ${name}` : `${found[0]} cannot be executed: chmod +x`;
  throw new ReportedError({ code: "handler-not-found", message });
}

/** @param {string} path */
function mayRun(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} message */
function failed(message) {
  return new ReportedError({ code: "handler-failed", message });
}

/** @param {Error} error */
function reason(error) {
  const code = "code" in error ? error.code : undefined;
  if (code === "ENOEXEC") return "it has no '#!' line, or was built for another machine";
  if (code === "ENOENT") return "the interpreter in its '#!' line is not there, or a library that it needs";
  return error.message;
}
