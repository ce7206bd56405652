/** What happened, in the CloudEvents 1.0 envelope (https://github.com/cloudevents/spec). */
export interface CloudEvent {
  readonly specversion: "1.0";
  readonly id: string;
  /** URI reference of what emitted it. Together with `id` it names the event: the same two, the same event. */
  readonly source: string;
  readonly type: string;
  /** RFC 3339. */
  readonly time?: string;
  readonly subject?: string;
  readonly datacontenttype?: string;
  readonly dataschema?: string;
  /** A JSON value; bytes that are neither JSON nor text are a Buffer. */
  readonly data?: unknown;
  /** Extension attributes: lower-case letters and digits, string, number or boolean values. `partitionkey` orders events that share it. */
  readonly extensions?: Readonly<Record<string, string | number | boolean>>;
}

/** The extension that says which events must stay in order among each other. */
export const PARTITION_KEY = "partitionkey";
