/** The query protocol has other shapes than JSON: lists of names and values instead of maps, and other names for lists. */

type Fields = Readonly<Record<string, unknown>>;

/** Lists by their name in forms, and their name in JSON. */
const LISTS: Readonly<Record<string, string>> = {
  AttributeName: "AttributeNames",
  MessageAttributeName: "MessageAttributeNames",
  MessageSystemAttributeName: "MessageSystemAttributeNames",
  TagKey: "TagKeys",
  ActionName: "Actions",
  AWSAccountId: "AWSAccountIds",
  SendMessageBatchRequestEntry: "Entries",
  DeleteMessageBatchRequestEntry: "Entries",
  ChangeMessageVisibilityBatchRequestEntry: "Entries",
};

/** Lists of names and values that are maps in JSON, with the names of their two members. */
const MAPS: Readonly<Record<string, readonly [string, string, string]>> = {
  Attribute: ["Attributes", "Name", "Value"],
  MessageAttribute: ["MessageAttributes", "Name", "Value"],
  MessageSystemAttribute: ["MessageSystemAttributes", "Name", "Value"],
  Tag: ["Tags", "Key", "Value"],
};

/** A form in the terms of JSON. The queue may stand in the path instead of among the parameters. */
export function fromForm(form: Fields, path: string): Fields {
  const fields: Record<string, unknown> = path.length > 1 ? { QueueUrl: path } : {};
  for (const [name, value] of Object.entries(form)) {
    const map = MAPS[name];
    const list = LISTS[name];
    if (map !== undefined) fields[map[0]] = mapOf(value, map);
    else if (list !== undefined)
      fields[list] = listOf(value).map((entry) => (isFields(entry) ? fromForm(entry, "") : entry));
    else fields[name] = value;
  }
  return fields;
}

function mapOf(value: unknown, [, key, of]: readonly [string, string, string]): Record<string, unknown> {
  return Object.fromEntries(
    listOf(value).flatMap((entry) =>
      isFields(entry) && typeof entry[key] === "string" ? [[entry[key], entry[of]]] : [],
    ),
  );
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [value];
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What an operation answers, in the terms of XML. */
export function toXml(operation: string, body: Fields): Fields {
  const written: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(body)) {
    if (name === "Attributes" || name === "MessageAttributes") written[`${name.slice(0, -1)}*`] = pairs(value, "Name");
    else if (name === "Tags") written["Tag*"] = pairs(value, "Key");
    else if (name === "QueueUrls" || name === "queueUrls") written["QueueUrl*"] = value;
    else if (name === "Messages")
      written["Message*"] = listOf(value).map((each) => (isFields(each) ? toXml(operation, each) : each));
    else if (name === "Successful") written[`${operation}ResultEntry*`] = value;
    else if (name === "Failed") written["BatchResultErrorEntry*"] = value;
    else written[name] = value;
  }
  return written;
}

function pairs(value: unknown, key: string): readonly Fields[] {
  return isFields(value) ? Object.entries(value).map(([name, each]) => ({ [key]: name, Value: each })) : [];
}
