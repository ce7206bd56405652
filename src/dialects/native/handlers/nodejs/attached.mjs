/** Constructs what it is given, so that a class that extends it adds its private field to that. */
const Same = /** @type {new (object: object) => object} */ (
  /** @type {unknown} */ (
    function (/** @type {object} */ object) {
      return object;
    }
  )
);

/**
 * Values attached to objects, seen by nobody else: what a WeakMap is for, without its cost to the garbage collector, which is paid again for
 * every object that is new.
 *
 * @template Value
 * @returns {{ get(object: unknown): Value | undefined, set(object: object, value: Value): void }} `set` works once for an object
 */
export function makeAttached() {
  class Attached extends Same {
    /** @type {Value} */
    #value;

    /**
     * @param {object} object
     * @param {Value} value
     */
    constructor(object, value) {
      super(object);
      this.#value = value;
    }

    /** @param {unknown} object @returns {Value | undefined} */
    static get(object) {
      return typeof object === "object" && object !== null && #value in object ? object.#value : undefined;
    }
  }
  return { get: Attached.get, set: (object, value) => void new Attached(object, value) };
}
