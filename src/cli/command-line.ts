import { usageFailure } from "./failure.ts";

/** What only a shell can do: pipes, redirections, several commands, patterns, substitutions. */
const SHELL_ONLY = /[|&;<>()`*?[\]{}~#!]|\$\(|\n/;

/**
 * A command line as a program and its arguments, by the quoting rules of a shell. `$NAME` stays for the platform to fill in (`$$` is a dollar
 * sign); what only a shell understands is left to one, which must then be inside.
 * @throws CliFailure `usage` for quotes that do not end, or nothing at all
 */
export function parseCommandLine(text: string): readonly string[] {
  const words: string[] = [];
  let word: string | null = null;
  let plain = "";
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    if (char === "'" || char === '"') {
      const end = endOfQuotes(text, at);
      const inner = text.slice(at + 1, end);
      word = (word ?? "") + (char === "'" ? literal(inner) : unescaped(inner));
      at = end;
    } else if (char === "\\") {
      at++;
      word = (word ?? "") + literal(text.charAt(at));
    } else if (/\s/.test(char)) {
      if (word !== null) words.push(word);
      word = null;
    } else {
      word = (word ?? "") + char;
      plain += char;
    }
  }
  if (word !== null) words.push(word);
  if (words.length === 0) throw usageFailure("The command is empty", "Write --command './server --port $PORT'.");
  // Braces around a variable's name are no pattern.
  return SHELL_ONLY.test(plain.replaceAll(/\$\{\w+\}/g, "")) ? ["/bin/sh", "-c", literal(text)] : words;
}

function endOfQuotes(text: string, begin: number): number {
  const quote = text.charAt(begin);
  for (let at = begin + 1; at < text.length; at++) {
    if (text.charAt(at) === "\\" && quote === '"') at++;
    else if (text.charAt(at) === quote) return at;
  }
  throw usageFailure(`A quote in the command does not end: ${text}`, `Add ${quote} where it does.`);
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(["\\$`])/g, (_, char: string) => literal(char));
}

/** Text of which nothing is filled in. */
function literal(text: string): string {
  return text.replaceAll("$", "$$$$");
}
