/**
 * Counters, gauges and histograms that cost an addition on the hot path, rendered in Prometheus' text format 0.0.4 when asked.
 * A labelled child is looked up once by whoever holds it, not per observation.
 */
export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(by?: number): void;
}
export interface Gauge {
  set(value: number): void;
}
export interface Histogram {
  observe(value: number): void;
}

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly children: Map<string, { readonly labels: Labels; lines(name: string, labels: string): string[] }>;
}

/** Bucket bounds for durations in seconds, from half a millisecond to a minute. */
export const DURATION_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
] as const;

export class Telemetry {
  readonly #families = new Map<string, Family>();
  readonly #collectors: (() => void)[] = [];

  counter(name: string, help: string, labels: Labels = {}): Counter {
    return this.#child(name, help, "counter", labels, () => {
      let value = 0;
      return {
        add: (by = 1) => {
          value += by;
        },
        lines: (family: string, text: string) => [`${family}${text} ${value}`],
      };
    });
  }

  gauge(name: string, help: string, labels: Labels = {}): Gauge {
    return this.#child(name, help, "gauge", labels, () => {
      let value = 0;
      return {
        set: (to: number) => {
          value = to;
        },
        lines: (family: string, text: string) => [`${family}${text} ${value}`],
      };
    });
  }

  histogram(name: string, help: string, labels: Labels = {}, bounds: readonly number[] = DURATION_BUCKETS): Histogram {
    return this.#child(name, help, "histogram", labels, () => {
      const counts = new Float64Array(bounds.length + 1);
      let sum = 0;
      return {
        observe: (value: number) => {
          sum += value;
          let index = 0;
          while (index < bounds.length && value > (bounds[index] ?? 0)) index++;
          counts[index] = (counts[index] ?? 0) + 1;
        },
        lines: (family: string, text: string) => {
          const inner = text === "" ? "" : `${text.slice(1, -1)},`;
          let total = 0;
          const lines = bounds.map((bound, index) => {
            total += counts[index] ?? 0;
            return `${family}_bucket{${inner}le="${bound}"} ${total}`;
          });
          total += counts[bounds.length] ?? 0;
          return [
            ...lines,
            `${family}_bucket{${inner}le="+Inf"} ${total}`,
            `${family}_sum${text} ${sum}`,
            `${family}_count${text} ${total}`,
          ];
        },
      };
    });
  }

  /** Registers a function that sets gauges just before they are read. */
  onCollect(collector: () => void): void {
    this.#collectors.push(collector);
  }

  /** Forgets the children that carry all of these labels, such as those of a deleted function. */
  forget(labels: Labels): void {
    const wanted = Object.entries(labels);
    for (const family of this.#families.values()) {
      for (const [key, child] of family.children) {
        if (wanted.every(([name, value]) => child.labels[name] === value)) family.children.delete(key);
      }
    }
  }

  render(): string {
    for (const collect of this.#collectors) collect();
    const lines: string[] = [];
    for (const family of this.#families.values()) {
      lines.push(`# HELP ${family.name} ${family.help}`, `# TYPE ${family.name} ${family.type}`);
      for (const [key, child] of family.children) lines.push(...child.lines(family.name, key));
    }
    return `${lines.join("\n")}\n`;
  }

  #child<Child extends { lines(name: string, labels: string): string[] }>(
    name: string,
    help: string,
    type: Family["type"],
    labels: Labels,
    make: () => Child,
  ): Child {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { name, help, type, children: new Map() };
      this.#families.set(name, family);
    }
    const key = renderLabels(labels);
    const existing = family.children.get(key);
    if (existing !== undefined) return existing as Child & { labels: Labels };
    const child = Object.assign(make(), { labels });
    family.children.set(key, child);
    return child;
  }
}

function renderLabels(labels: Labels): string {
  const entries = Object.entries(labels);
  if (entries.length === 0) return "";
  return `{${entries.map(([name, value]) => `${name}="${escapeLabel(value)}"`).join(",")}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

export type LogLevel = "debug" | "info" | "warn" | "error";

/** The platform's own log: one JSON object per line, or text for people. Never carries a secret or a payload. */
export interface Logger {
  log(level: LogLevel, message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/** Hands errors of promises that nobody awaits to one place. */
export type Supervise = (what: string, promise: Promise<unknown>) => void;
