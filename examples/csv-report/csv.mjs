const FIELD_LENGTH_MAX = 1024 * 1024;
const FIELDS_MAX = 1_000;

/** What would take more memory than a row may; a quote that is never closed swallows the rest of a file. */
export class TooLargeError extends Error {}

/**
 * Reads CSV as RFC 4180 has it, from pieces of any length: fields in quotes may hold delimiters, line breaks and doubled quotes; rows end
 * with CRLF, LF or CR; empty lines are skipped. Rows go to `onRow({ fields, line, problem })`, where `line` is the one the row
 * begins on, counted from 1, and `problem` is null or says what is wrong with its quotes.
 */
export class CsvParser {
  #delimiter;
  #special;
  #onRow;
  /** `start` of a field, `plain`, `quoted`, or `closed`: after a quote that ends the field or is the first of two. */
  #state = "start";
  #field = "";
  #fields = [];
  #problem = null;
  #line = 1;
  #rowLine = 1;
  #afterCarriageReturn = false;

  constructor({ delimiter = ",", onRow }) {
    this.#delimiter = delimiter;
    this.#special = new RegExp(`[${delimiter}"\\r\\n]`, "g");
    this.#onRow = onRow;
  }

  write(text) {
    let at = 0;
    while (at < text.length) {
      const end = this.#state === "quoted" ? text.indexOf('"', at) : this.#nextSpecial(text, at);
      const stop = end < 0 ? text.length : end;
      if (stop > at) this.#take(text.slice(at, stop));
      if (stop < text.length) this.#takeSpecial(text[stop]);
      at = stop + 1;
    }
  }

  /** Ends the last row when no line break did. */
  end() {
    if (this.#state === "quoted") this.#problem = "a quote is not closed";
    this.#endRow();
  }

  #nextSpecial(text, from) {
    this.#special.lastIndex = from;
    return this.#special.exec(text)?.index ?? -1;
  }

  /** Text without anything special in it. */
  #take(text) {
    this.#afterCarriageReturn = false;
    if (this.#state === "quoted") this.#countLines(text);
    else if (this.#state === "closed") this.#problem ??= "text follows a closing quote";
    if (this.#state !== "quoted") this.#state = "plain";
    this.#field += text;
    if (this.#field.length > FIELD_LENGTH_MAX) {
      throw new TooLargeError(
        `line ${this.#rowLine}: a field is longer than ${FIELD_LENGTH_MAX} characters; is a quote not closed?`,
      );
    }
  }

  #takeSpecial(character) {
    const followsCarriageReturn = this.#afterCarriageReturn;
    this.#afterCarriageReturn = false;
    if (character === '"') this.#quote();
    else if (character === this.#delimiter) this.#endField();
    else if (character === "\n" && followsCarriageReturn) {
      // The second half of a CRLF, perhaps in another piece: the row has ended already.
    } else {
      this.#afterCarriageReturn = character === "\r";
      this.#endRow();
      this.#line++;
      this.#rowLine = this.#line;
    }
  }

  #quote() {
    switch (this.#state) {
      case "start":
        this.#state = "quoted";
        break;
      case "quoted":
        this.#state = "closed";
        break;
      case "closed":
        this.#field += '"';
        this.#state = "quoted";
        break;
      default:
        this.#field += '"';
        this.#problem ??= "a quote stands inside a field that does not begin with one";
    }
  }

  #endField() {
    if (this.#fields.length === FIELDS_MAX)
      throw new TooLargeError(`line ${this.#rowLine}: more than ${FIELDS_MAX} fields`);
    this.#fields.push(this.#field);
    this.#field = "";
    this.#state = "start";
  }

  #endRow() {
    const isEmpty = this.#state === "start" && this.#fields.length === 0;
    if (!isEmpty) {
      this.#endField();
      this.#onRow({ fields: this.#fields, line: this.#rowLine, problem: this.#problem });
    }
    this.#fields = [];
    this.#state = "start";
    this.#problem = null;
  }

  /** Line breaks inside quotes; a CRLF that two pieces share counts once, by its LF. */
  #countLines(text) {
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) this.#line++;
  }
}
