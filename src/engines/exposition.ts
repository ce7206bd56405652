interface Family {
  readonly comments: readonly string[];
  readonly samples: Map<string, number>;
}

/**
 * Adds up metrics of several processes, each in Prometheus' text format as `Telemetry.render` writes it: samples with the same name and labels become
 * one. Right for counters, histograms and for gauges that count things.
 */
export function sumExpositions(texts: readonly string[]): string {
  const families = new Map<string, Family>();
  for (const text of texts) {
    let family: Family | undefined;
    let help = "";
    for (const line of text.split("\n")) {
      if (line.startsWith("# HELP ")) help = line;
      else if (line.startsWith("# TYPE ")) {
        const name = line.split(" ")[2] ?? "";
        family = families.get(name) ?? { comments: [help, line], samples: new Map() };
        families.set(name, family);
      } else if (line !== "") {
        // A label's value may hold spaces; the figure is behind the last one.
        const at = line.lastIndexOf(" ");
        const sample = line.slice(0, at);
        family?.samples.set(sample, (family.samples.get(sample) ?? 0) + Number(line.slice(at + 1)));
      }
    }
  }
  const lines = [...families.values()].flatMap(({ comments, samples }) => [
    ...comments,
    ...[...samples].map(([sample, value]) => `${sample} ${value}`),
  ]);
  return `${lines.join("\n")}\n`;
}
