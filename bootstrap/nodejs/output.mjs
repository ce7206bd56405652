const { Writable } = process.getBuiltinModule("node:stream");

/**
 * What is written through `console`, `process.stdout` and `process.stderr` becomes LOG frames of the invocation that wrote it. What
 * goes to the descriptors 1 and 2 directly (child processes, native code) is not touched.
 */

/** @typedef {(source: 1 | 2, bytes: Buffer) => void} OnOutput */

class LogOutput extends Writable {
  /** @readonly @type {1 | 2} */
  fd;
  #onOutput;

  /**
   * @param {1 | 2} source
   * @param {OnOutput} onOutput
   */
  constructor(source, onOutput) {
    // Strings are encoded here, in the context of whoever wrote them.
    super({ decodeStrings: false, emitClose: false });
    this.fd = source;
    this.#onOutput = onOutput;
  }

  /**
   * @override
   * @param {string | Buffer} chunk
   * @param {BufferEncoding} encoding
   * @param {(error?: Error | null) => void} callback
   */
  _write(chunk, encoding, callback) {
    this.#onOutput(this.fd, typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk);
    callback();
  }

  /**
   * Like Node's own standard streams, these cannot be ended: later output would be lost.
   * @override
   * @param {any[]} chunk
   */
  // oxlint-disable-next-line typescript/no-explicit-any
  end(...chunk) {
    if (typeof chunk[0] === "string" || chunk[0] instanceof Uint8Array) this.write(chunk[0]);
    const callback = chunk.find((part) => typeof part === "function");
    if (callback !== undefined) process.nextTick(callback);
    return this;
  }

  /** @override */
  destroy() {
    return this;
  }
}

/** @param {OnOutput} onOutput */
export function captureOutput(onOutput) {
  for (const [name, source] of /** @type {const} */ ([
    ["stdout", 1],
    ["stderr", 2],
  ])) {
    const value = new LogOutput(source, onOutput);
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => value });
  }
}
