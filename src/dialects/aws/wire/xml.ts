/** What an answer of the query protocol says. Lists become `<member>` elements unless the key names another: `{ "Tags:entry": […] }`; `null` and `undefined` are left out. */
export type XmlValue =
  | string
  | number
  | boolean
  | Date
  | null
  | undefined
  | readonly XmlValue[]
  | { readonly [name: string]: XmlValue };

/** The elements of a structure. A key ending in `*` is a flat list: its elements stand beside each other without one around them. */
export function writeXml(structure: Readonly<Record<string, XmlValue>>): string {
  return Object.entries(structure)
    .map(([key, value]) => field(key, value))
    .join("");
}

function field(key: string, value: XmlValue): string {
  if (value === null || value === undefined) return "";
  if (key.endsWith("*")) {
    const name = key.slice(0, -1);
    return (isList(value) ? value : [value]).map((item) => element(name, contentOf(item, "member"))).join("");
  }
  const [name = key, item = "member"] = key.split(":");
  return element(name, contentOf(value, item));
}

function contentOf(value: XmlValue, item: string): string {
  if (value === null || value === undefined) return "";
  if (isList(value)) return value.map((each) => element(item, contentOf(each, "member"))).join("");
  if (value instanceof Date) return value.toISOString().replace(/\.\d+Z$/, "Z");
  if (typeof value === "object") return writeXml(value);
  return escapeXml(String(value));
}

function isList(value: XmlValue): value is readonly XmlValue[] {
  return Array.isArray(value);
}

function element(name: string, content: string): string {
  return `<${name}>${content}</${name}>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "\r": "&#xD;",
};

export function escapeXml(text: string): string {
  return (
    text
      .replaceAll(/[&<>"\r]/g, (character) => ENTITIES[character] ?? character)
      // oxlint-disable-next-line no-control-regex -- characters that XML 1.0 cannot hold
      .replaceAll(/[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/g, "\uFFFD")
  );
}
