import { answerHeaders } from "./lambda-http.mjs";

const { Writable } = process.getBuiltinModule("node:stream");
const { finished } = process.getBuiltinModule("node:stream/promises");

/**
 * Lambda's streamed answers: `awslambda.streamifyResponse(async (event, responseStream, context) => …)` and
 * `awslambda.HttpResponseStream.from(responseStream, { statusCode, headers, cookies })`.
 *
 * @typedef {import("../../../../../bootstrap/nodejs/call.mjs").Call} Call
 * @typedef {(event: unknown, stream: ResponseStream, context: unknown) => unknown} StreamingHandler
 */

/** Marks a streaming handler; the name is the one that Lambda's own runtime uses, so that wrappers find it. */
export const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");

export function installAwslambda() {
  if ("awslambda" in globalThis) return;
  const awslambda = {
    /** @param {StreamingHandler} handler @param {object} [options] */
    streamifyResponse: (handler, options) => {
      Object.defineProperty(handler, STREAMING, { value: "response", configurable: true });
      return options === undefined ? handler : Object.assign(handler, options);
    },
    HttpResponseStream: {
      /** @param {ResponseStream} stream @param {Record<string, unknown>} metadata */
      from: (stream, metadata) => {
        stream.setMetadata(metadata);
        return stream;
      },
    },
  };
  Object.defineProperty(globalThis, "awslambda", {
    value: awslambda,
    configurable: true,
    writable: true,
    enumerable: true,
  });
}

/**
 * Runs a streaming handler; the call is over when both the handler has settled and its stream has ended.
 *
 * @param {StreamingHandler} handler
 * @param {unknown} event
 * @param {{ call: Call, context: unknown }} options
 */
export async function runStreaming(handler, event, { call, context }) {
  const stream = new ResponseStream(call);
  const ended = finished(stream);
  ended.catch(() => {});
  await handler(event, stream, context);
  await ended;
}

class ResponseStream extends Writable {
  #call;
  /** @type {Record<string, unknown>} */
  #metadata = { headers: { "content-type": "application/octet-stream" } };

  /** @param {Call} call */
  constructor(call) {
    super();
    this.#call = call;
  }

  /** @param {Record<string, unknown>} metadata */
  setMetadata(metadata) {
    this.#metadata = metadata;
  }

  /** @param {string} type */
  setContentType(type) {
    this.#metadata = {
      ...this.#metadata,
      headers: { .../** @type {object} */ (this.#metadata["headers"]), "content-type": type },
    };
  }

  /**
   * @override
   * @param {Buffer} chunk
   * @param {BufferEncoding} _encoding
   * @param {(error?: Error | null) => void} callback
   */
  _write(chunk, _encoding, callback) {
    this.#begin();
    const blocked = this.#call.write(chunk);
    if (blocked === undefined) callback();
    else void blocked.then(() => process.nextTick(callback));
  }

  /**
   * @override
   * @param {(error?: Error | null) => void} callback
   */
  _final(callback) {
    this.#begin();
    this.#call.end();
    callback();
  }

  #begin() {
    if (this.#call.responded) return;
    const status = Number(this.#metadata["statusCode"] ?? 200);
    this.#call.respond(status, answerHeaders(this.#metadata));
  }
}
