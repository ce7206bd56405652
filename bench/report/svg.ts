/** A line chart as a text of SVG that stands alone: no script, no fonts, readable on light and on dark ground. */
export interface LineChart {
  readonly title: string;
  /** What was measured on what. */
  readonly caption: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
}

export interface Axis {
  readonly label: string;
  readonly scale: "linear" | "log";
  /** Writes a value at a tick. */
  readonly format: (value: number) => string;
}

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** Steps stay level until the next point: for counts. */
  readonly shape?: "line" | "steps";
  readonly dashed?: boolean;
  /** Number of its colour; series of one colour belong together. */
  readonly colour: number;
}

const WIDTH = 760;
const HEIGHT = 420;
const PLOT = { left: 72, right: 24, top: 76, bottom: 56 };
const TICKS = 5;
/** Far enough apart for those who see red and green alike, and of middling lightness for both grounds. */
const COLOURS = ["#2f80d0", "#d9730d", "#2c9a6b", "#a65bd4"];
const STYLE = `text{font:13px system-ui,sans-serif;fill:#3c4450}.t{font-size:16px;font-weight:600}.m{fill:#68717d}
.g{stroke:#8a93a0;stroke-opacity:.28}.a{stroke:#8a93a0}.s{fill:none;stroke-width:2;stroke-linejoin:round}
@media (prefers-color-scheme:dark){text{fill:#d5dae1}.m{fill:#98a2b0}}`;

export function lineChart(chart: LineChart): string {
  const points = chart.series.flatMap((series) => series.points);
  const x = project(
    chart.x,
    points.map(([value]) => value),
    { from: PLOT.left, to: WIDTH - PLOT.right },
  );
  const y = project(
    chart.y,
    points.map(([, value]) => value),
    { from: HEIGHT - PLOT.bottom, to: PLOT.top },
  );
  const title = escape(chart.title);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${title}">`,
    `<style>${STYLE}</style>`,
    `<text class="t" x="${PLOT.left}" y="24">${title}</text>`,
    `<text class="m" x="${PLOT.left}" y="44">${escape(chart.caption)}</text>`,
    ...y.ticks.flatMap((value) => [
      `<line class="g" x1="${PLOT.left}" x2="${WIDTH - PLOT.right}" y1="${y.at(value)}" y2="${y.at(value)}"/>`,
      `<text class="m" x="${PLOT.left - 8}" y="${y.at(value) + 4}" text-anchor="end">${escape(chart.y.format(value))}</text>`,
    ]),
    ...x.ticks.map(
      (value) =>
        `<text class="m" x="${x.at(value)}" y="${HEIGHT - PLOT.bottom + 20}" text-anchor="middle">${escape(chart.x.format(value))}</text>`,
    ),
    `<line class="a" x1="${PLOT.left}" x2="${WIDTH - PLOT.right}" y1="${HEIGHT - PLOT.bottom}" y2="${HEIGHT - PLOT.bottom}"/>`,
    `<text class="m" x="${(PLOT.left + WIDTH - PLOT.right) / 2}" y="${HEIGHT - 14}" text-anchor="middle">${escape(chart.x.label)}</text>`,
    `<text class="m" x="16" y="${(PLOT.top + HEIGHT - PLOT.bottom) / 2}" text-anchor="middle" transform="rotate(-90 16 ${(PLOT.top + HEIGHT - PLOT.bottom) / 2})">${escape(chart.y.label)}</text>`,
    ...chart.series.map((series) => path(series, x, y)),
    ...legend(chart.series),
    "</svg>\n",
  ].join("\n");
}

interface Projection {
  readonly ticks: readonly number[];
  /** The pixel of a value. */
  at(value: number): number;
}

function project(axis: Axis, values: readonly number[], { from, to }: { from: number; to: number }): Projection {
  const finite = values.filter((value) => Number.isFinite(value) && (axis.scale === "linear" || value > 0));
  const most = finite.reduce((max, value) => Math.max(max, value), axis.scale === "log" ? 1e-9 : 0);
  const least = finite.reduce((min, value) => Math.min(min, value), most);
  const ticks = axis.scale === "log" ? logTicks(least, most) : linearTicks(most);
  const measure = axis.scale === "log" ? Math.log10 : (value: number): number => value;
  const [low, high] = [measure(ticks[0] ?? 0), measure(ticks.at(-1) ?? 1)];
  const span = high - low || 1;
  return {
    ticks,
    at: (value) => Math.round((from + ((measure(value) - low) / span) * (to - from)) * 10) / 10,
  };
}

/** From zero, in steps of 1, 2 or 5 times a power of ten. */
function linearTicks(most: number): readonly number[] {
  const rough = (most || 1) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10) * power;
  return Array.from({ length: Math.ceil((most || 1) / step) + 1 }, (_, index) => index * step);
}

/** 1, 2, 5, 10, … around all values; powers of ten only where these would be many. */
function logTicks(least: number, most: number): readonly number[] {
  const ticks: number[] = [];
  const decades = Math.log10(most / least);
  const factors = decades > 2 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++)
    ticks.push(...factors.map((factor) => factor * 10 ** power));
  const first = Math.max(
    0,
    ticks.findLastIndex((tick) => tick <= least),
  );
  const last = ticks.findIndex((tick) => tick >= most);
  return ticks.slice(first, last < 0 ? undefined : Math.max(last, first + 1) + 1);
}

function path(series: Series, x: Projection, y: Projection): string {
  const commands = series.points.map(([valueX, valueY], index) => {
    const [px, py] = [x.at(valueX), y.at(valueY)];
    if (index === 0) return `M${px} ${py}`;
    return series.shape === "steps" ? `H${px}V${py}` : `L${px} ${py}`;
  });
  const dash = series.dashed === true ? ' stroke-dasharray="6 4"' : "";
  return `<path class="s" stroke="${colour(series)}"${dash} d="${commands.join("")}"/>`;
}

function legend(series: readonly Series[]): readonly string[] {
  let left = PLOT.left;
  return series.flatMap((one) => {
    const at = left;
    left += 44 + one.name.length * 7.2;
    const dash = one.dashed === true ? ' stroke-dasharray="6 4"' : "";
    return [
      `<line class="s" stroke="${colour(one)}"${dash} x1="${at}" x2="${at + 22}" y1="60" y2="60"/>`,
      `<text x="${at + 28}" y="64">${escape(one.name)}</text>`,
    ];
  });
}

function colour(series: Series): string {
  return COLOURS[series.colour % COLOURS.length] ?? "#888";
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
