/** What happened, in the CloudEvents 1.0 envelope (https://github.com/cloudevents/spec). */
export interface CloudEvent {
  readonly specversion: "1.0";
  readonly id: string;
  /** URI reference of what emitted it. */
  readonly source: string;
  readonly type: string;
  /** RFC 3339. */
  readonly time?: string;
  readonly subject?: string;
  readonly datacontenttype?: string;
  readonly data?: unknown;
  /** Extension attributes: lower-case letters and digits, string, number or boolean values. */
  readonly extensions?: Readonly<Record<string, string | number | boolean>>;
}
