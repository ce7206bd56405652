const TOP_VALUES = 5;
const SHOWN_LENGTH_MAX = 100;
/** Values that are counted at a time; a column with more of them gets approximate counts, in the same memory. */
const COUNTED_MAX = 1_000;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/** What is known of a column's values so far, in memory that does not grow with their number. */
export class Column {
  #name;
  #count = 0;
  #empty = 0;
  #numbers = 0;
  #mean = 0;
  #numberMin = Infinity;
  #numberMax = -Infinity;
  #textMin = null;
  #textMax = null;
  #frequent = new FrequentValues(COUNTED_MAX);

  constructor(name) {
    this.#name = name;
  }

  add(value) {
    const text = value.trim();
    if (text === "") {
      this.#empty++;
      return;
    }
    this.#count++;
    // Beyond what is shown, values are as good as equal here, and a copy does not keep the whole piece of input alive.
    const shown = text.length > SHOWN_LENGTH_MAX ? `${cut(text)}…` : text;
    this.#frequent.add(shown);
    if (NUMBER.test(text) && Number.isFinite(Number(text))) this.#addNumber(Number(text));
    if (this.#textMin === null || shown < this.#textMin) this.#textMin = copy(shown);
    if (this.#textMax === null || shown > this.#textMax) this.#textMax = copy(shown);
  }

  /** `min` and `max` are numbers where all values are numbers, else texts; `mean` is of the values that are numbers. */
  summary() {
    const isNumeric = this.#numbers > 0 && this.#numbers === this.#count;
    return {
      name: this.#name,
      type: isNumeric ? "number" : this.#numbers > 0 ? "mixed" : this.#count > 0 ? "text" : "empty",
      count: this.#count,
      empty: this.#empty,
      min: isNumeric ? this.#numberMin : this.#textMin,
      max: isNumeric ? this.#numberMax : this.#textMax,
      mean: this.#numbers > 0 ? this.#mean : null,
      ...this.#frequent.summary(),
    };
  }

  #addNumber(number) {
    this.#numbers++;
    // Unlike a sum, a running mean stays exact enough for any number of values.
    this.#mean += (number - this.#mean) / this.#numbers;
    this.#numberMin = Math.min(this.#numberMin, number);
    this.#numberMax = Math.max(this.#numberMax, number);
  }
}

/**
 * The most frequent of any number of values: exact until there are more than twice `countedMax` different ones, then Misra and Gries's
 * approximation, in which a count may be too low by `countErrorMax` and a value that is rarer than that may be missing.
 */
class FrequentValues {
  #countedMax;
  #counts = new Map();
  #errorMax = 0;

  constructor(countedMax) {
    this.#countedMax = countedMax;
  }

  add(value) {
    const count = this.#counts.get(value);
    if (count !== undefined) {
      this.#counts.set(value, count + 1);
      return;
    }
    this.#counts.set(copy(value), 1);
    if (this.#counts.size > 2 * this.#countedMax) this.#forgetRare();
  }

  summary() {
    const exact = this.#errorMax === 0;
    // What was counted less often than the error may be no more frequent than a value that was forgotten.
    const top = [...this.#counts]
      .filter(([, count]) => count > this.#errorMax)
      .sort(([, a], [, b]) => b - a)
      .slice(0, TOP_VALUES);
    return {
      distinct: exact ? this.#counts.size : null,
      topValues: top.map(([value, count]) => ({ value, count })),
      countErrorMax: this.#errorMax,
    };
  }

  /** Takes from every count that of the most frequent value to be forgotten, which keeps the error the same for all. */
  #forgetRare() {
    const threshold = [...this.#counts.values()].sort((a, b) => b - a)[this.#countedMax];
    this.#errorMax += threshold;
    for (const [value, count] of this.#counts) {
      if (count > threshold) this.#counts.set(value, count - threshold);
      else this.#counts.delete(value);
    }
  }
}

/** Not within a character that JavaScript keeps in two halves. */
function cut(text) {
  return text.slice(0, SHOWN_LENGTH_MAX).replace(/[\ud800-\udbff]$/, "");
}

/** A text of its own: a slice would keep alive the piece of input that it was cut from. */
function copy(text) {
  return Buffer.from(text).toString();
}
