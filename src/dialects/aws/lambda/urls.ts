import type { Values } from "../../../store/store.ts";
import type { FunctionName } from "./names.ts";
import type { FunctionUrl } from "./records.ts";

/** What an address leads to. */
export interface UrlTarget {
  readonly namespace: string;
  readonly name: string;
  /** `$LATEST` or an alias. */
  readonly qualifier: string;
  readonly url: FunctionUrl;
}

const COLLECTION = "aws.lambda.urls";
const PAGE = 1_000;

/** Functions by the id in the host name of their address: in memory, because every request to any such host looks here. */
export class FunctionUrls {
  readonly #values: Values;
  readonly #targets: Map<string, UrlTarget>;

  private constructor(values: Values, targets: ReadonlyMap<string, UrlTarget>) {
    this.#values = values;
    this.#targets = new Map(targets);
  }

  static async open(values: Values): Promise<FunctionUrls> {
    const targets = new Map<string, UrlTarget>();
    for (let after: string | undefined; ;) {
      const page = await values.list(COLLECTION, { limit: PAGE, ...(after === undefined ? {} : { after }) });
      for (const { key, value } of page) targets.set(key, value as UrlTarget);
      after = page.at(-1)?.key;
      if (page.length < PAGE) return new FunctionUrls(values, targets);
    }
  }

  find(urlId: string): UrlTarget | null {
    return this.#targets.get(urlId) ?? null;
  }

  async put(
    { namespace, name }: Pick<FunctionName, "namespace" | "name">,
    qualifier: string,
    url: FunctionUrl,
  ): Promise<void> {
    const target: UrlTarget = { namespace, name, qualifier, url };
    await this.#values.commit([{ collection: COLLECTION, key: url.urlId, value: target, expect: "any" }]);
    this.#targets.set(url.urlId, target);
  }

  async remove(urlId: string): Promise<void> {
    await this.#values.commit([{ collection: COLLECTION, key: urlId, value: null, expect: "any" }]);
    this.#targets.delete(urlId);
  }
}
