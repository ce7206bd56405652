import type { Chart } from "./report/charts.ts";
import { LoadGenerator } from "./load/generator.ts";
import type { MetricRow } from "./row.ts";
import { type Koine, startKoine } from "./targets/koine.ts";
import { type Server, startBareServer } from "./targets/server.ts";

export interface BenchOptions {
  /** A short run: fewer and shorter rounds, to see that it works; its figures are for nobody else. */
  readonly quick: boolean;
  /** Length of the soak, in minutes. */
  readonly soakMinutes: number;
  /** Servers that run already, by name: measured as peers. */
  readonly peers: Readonly<Record<string, URL>>;
}

export interface PartResult {
  readonly rows: readonly MetricRow[];
  readonly charts?: readonly Chart[];
}

/** A part of the benchmark that can be asked for by name. */
export interface Part {
  readonly name: string;
  /** Whether it runs when no part is named. */
  readonly byDefault: boolean;
  run(bench: Bench): Promise<PartResult>;
}

/** What the parts share: one load process, one bare server, one platform, started when first needed. */
export class Bench implements AsyncDisposable {
  readonly options: BenchOptions;
  readonly load = new LoadGenerator();
  #bare: Promise<Server> | null = null;
  #koine: Promise<Koine> | null = null;

  constructor(options: BenchOptions) {
    this.options = options;
  }

  get quick(): boolean {
    return this.options.quick;
  }

  /** Length of a round and how many count. */
  get rounds(): { readonly ms: number; readonly count: number } {
    return this.quick ? { ms: 1_000, count: 2 } : { ms: 3_000, count: 5 };
  }

  bare(): Promise<Server> {
    return (this.#bare ??= startBareServer());
  }

  /** The platform as it is shipped. Parts that need another one start it themselves, after `rest`. */
  koine(): Promise<Koine> {
    return (this.#koine ??= startKoine());
  }

  /** Ends the shared servers, so that they disturb nothing; they start again when they are needed. */
  async rest(): Promise<void> {
    const [bare, koine] = [this.#bare, this.#koine];
    this.#bare = null;
    this.#koine = null;
    await Promise.all([bare, koine].map(async (server) => (await server)?.[Symbol.asyncDispose]()));
  }

  say(text: string): void {
    process.stderr.write(`  ${text}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.load[Symbol.dispose]();
    await this.rest();
  }
}
