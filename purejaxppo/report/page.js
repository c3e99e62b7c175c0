"use strict";
// Draws the charts. What a run says becomes text (textContent) and numbers, never HTML.
const page = JSON.parse(document.getElementById("data").textContent);
const DASHES = { main: [], second: [6, 3], thin: [], dots: [] };
const WIDTHS = { main: 2, second: 1.8, thin: 1, dots: 0 };
const FEW = 40; // points that are drawn as dots, too

function rowsOf(line, key) {
  const [x, y] = [page.series[line.x], page.series[line.y]];
  const low = page.series[line.low], high = page.series[line.high];
  const look = {
    key, colour: line.colour, dash: DASHES[line.style], width: WIDTHS[line.style],
  };
  return x.map((step, i) => ({ x: step, y: y[i], low: low?.[i], high: high?.[i], ...look }));
}

function datasetsOf(chart) {
  const all = chart.lines.map(rowsOf);
  const drawn = (rows) => rows.filter((row) => row.y !== null);
  return {
    lines: all.toReversed().flat(), // the first are drawn last, above the others
    bands: all.filter((_, i) => "low" in chart.lines[i]).flat(),
    dots: all.map(drawn).filter((rows, i) => isDotted(rows, chart.lines[i])).flat(),
    rules: chart.rules,
    spans: chart.spans,
  };
}

function isDotted(rows, line) {
  return line.style === "dots" || rows.length === 1 || (rows.length <= FEW && line.style !== "thin");
}

function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function addEntry(list, label, colour, style) {
  const entry = document.createElement("li"), value = document.createElement("output");
  const mark = svg("svg", { viewBox: "0 0 24 8" });
  mark.append(svg("line", {
    x1: 0, x2: 24, y1: 4, y2: 4, stroke: colour,
    "stroke-width": (WIDTHS[style] || 5) + 0.5, "stroke-dasharray": DASHES[style].join(" "),
  }));
  entry.append(mark, label, value);
  list.append(entry);
  return value;
}

// One entry per label or, with several runs, one per label and one per run. Returns the
// entry that shows the value of each line; lines that share one show none.
function fillLegend(list, lines) {
  const several = lines.some((line) => line.run);
  const unique = (key) => [...new Map(lines.toReversed().map((l) => [l[key], l])).values()].toReversed();
  const labels = unique("label");
  const single = (line) => lines.filter((l) => l.label === line.label).length === 1;
  if (!several) {
    const outputs = new Map(labels.map((l) => [l.label, addEntry(list, l.label, l.colour, l.style)]));
    return lines.map((line) => (single(line) ? outputs.get(line.label) : null));
  }
  if (labels.length > 1) labels.forEach((l) => addEntry(list, l.label, "currentColor", l.style));
  const outputs = new Map(unique("run").map((l) => [l, addEntry(list, l.run, l.colour, "main")]));
  return lines.map((line) => outputs.get(line) ?? null);
}

const format = (x) => (Math.abs(x) >= 1e4 ? Math.round(x).toLocaleString("en") : String(+x.toPrecision(4)));

function textAt(line, steps) {
  const x = page.series[line.x];
  let nearest = 0;
  for (let i = 1; i < x.length; i++) {
    if (Math.abs(x[i] - steps) < Math.abs(x[nearest] - steps)) nearest = i;
  }
  const y = page.series[line.y][nearest];
  if (y === null || y === undefined) return ["-", x[nearest]];
  if (!("low" in line)) return [format(y), x[nearest]];
  const ends = [line.low, line.high].map((s) => format(page.series[s][nearest]));
  return [`${format(y)} (${ends.join(" to ")})`, x[nearest]];
}

// The specification for the chart's horizontal axis: steps, unless it names another.
const specOf = (chart) => (chart.axis ? page.specs[chart.axis] : page.spec);

// The legend shows the values under the pointer.
function follow(view, chart, outputs, note) {
  const away = specOf(chart).params[0].value; // out of sight
  view.addEventListener("pointermove", (event) => {
    const rect = view.container().querySelector("svg").getBoundingClientRect();
    const steps = view.scale("x").invert(event.clientX - rect.left - view.origin()[0]);
    let at = steps;
    chart.lines.forEach((line, i) => {
      const [text, step] = textAt(line, steps);
      if (outputs[i]) [outputs[i].textContent, at] = [text, step];
    });
    const there = `${Math.round(at).toLocaleString("en")} steps`;
    note.textContent = ` at ${chart.axis ? `${chart.axis} ${format(at)}` : there}`;
    view.signal("cursor", at).runAsync();
  });
  view.addEventListener("pointerout", () => {
    for (const output of outputs) if (output) output.textContent = "";
    note.textContent = "";
    view.signal("cursor", away).runAsync();
  });
}

async function draw(figure) {
  if (figure.dataset.drawn) return;
  figure.dataset.drawn = "begun";
  const chart = page.charts[Number(figure.dataset.chart)];
  const outputs = fillLegend(figure.querySelector(".legend"), chart.lines);
  const note = document.createElement("small");
  figure.querySelector("h3").append(note);
  const datasets = datasetsOf(chart);
  // A layer without data has no extent, of which Vega warns.
  const shared = specOf(chart);
  const layer = shared.layer.filter(({ data }) => !data.name || datasets[data.name].length);
  const spec = { ...shared, datasets, layer };
  // `ast`: the page's policy forbids code that is made from text.
  const options = {
    mode: "vega-lite", renderer: "svg", ast: true, actions: false, tooltip: false,
    defaultStyle: false,
  };
  const { view } = await vegaEmbed(figure.querySelector(".plot"), spec, options);
  follow(view, chart, outputs, note);
  figure.dataset.drawn = "yes";
}

const inSight = (figure) => figure.closest("details:not([open])") === null;

async function drawAll() {
  for (const figure of document.querySelectorAll("figure")) {
    if (inSight(figure)) await draw(figure);
  }
}

const open = () => document.querySelectorAll("details").forEach((d) => { d.open = true; });
document.querySelectorAll("details").forEach((d) => d.addEventListener("toggle", drawAll));
addEventListener("beforeprint", open);
if (location.hash === "#all") open();
drawAll();
