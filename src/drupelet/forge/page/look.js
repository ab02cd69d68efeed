"use strict";
/* What the pages' charts share: colours of the page's own style sheet, light and dark, and a chart of intervals. */
const data = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const LIGHT = ["#b0134a", "#1f6f8b", "#8a5a00", "#5a3ea6", "#1c6a3c", "#6a5460"];
const DARK = ["#ff86ac", "#6cc4e0", "#f3bd63", "#c0adff", "#84d69f", "#bba7b2"];
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

function look() {
  const own = getComputedStyle(document.documentElement);
  const of = (name) => own.getPropertyValue(name).trim();
  return { ink: of("--ink"), soft: of("--soft"), line: of("--line"), paper: of("--paper"), bad: of("--bad"), hues: dark.matches ? DARK : LIGHT };
}

function axis(c, title, more) {
  return Object.assign({ title: { text: title, font: { size: 13 } }, gridcolor: c.line, linecolor: c.line, zeroline: false, automargin: true, tickfont: { size: 12 } }, more);
}

function draw(id, traces, layout) {
  const place = document.getElementById(id);
  if (!place) return;
  const c = look();
  Plotly.react(place, traces, Object.assign({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: c.ink, family: getComputedStyle(document.body).fontFamily },
    margin: { t: 16, r: 24, b: 48, l: 56 }, hoverlabel: { bgcolor: c.paper, bordercolor: c.line, font: { color: c.ink } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
  }, layout), { displayModeBar: false, responsive: true });
}

/* Rows of names, one mark with its interval for each curve: [middle, low, high], or null where there is none. */
function intervals(c, id, chart, title, { says, line = null, range = null, type = "linear" }) {
  const many = chart.curves.length, place = document.getElementById(id);
  if (!place) return;
  place.style.height = `${Math.max(14, 7 + chart.names.length * (1.2 + 0.9 * many))}rem`;
  const traces = chart.curves.map((curve, i) => {
    const rows = chart.names.map((_, j) => j).filter((j) => curve.rows[j]);
    const at = (j) => chart.names.length - 1 - j + (many > 1 ? 0.3 - 0.6 * i / (many - 1) : 0);
    const hue = c.hues[i % c.hues.length];
    return {
      x: rows.map((j) => curve.rows[j][0]), y: rows.map(at), name: curve.name, mode: "markers", text: rows.map((j) => chart.names[j]),
      error_x: { type: "data", symmetric: false, array: rows.map((j) => curve.rows[j][2] - curve.rows[j][0]), arrayminus: rows.map((j) => curve.rows[j][0] - curve.rows[j][1]), color: hue, thickness: 1.5, width: 4 },
      marker: { size: 9, color: hue, symbol: SHAPES[i % SHAPES.length] }, hovertemplate: `%{text}: %{x:.1f}${says}<extra>${curve.name}</extra>`,
    };
  });
  const shapes = line === null ? [] : [{ type: "line", x0: line, x1: line, yref: "paper", y0: 0, y1: 1, line: { color: c.ink, width: 1.5 } }];
  draw(id, traces, {
    shapes, showlegend: true, xaxis: axis(c, title, Object.assign({ type }, range ? { range } : {})),
    yaxis: axis(c, "", { tickvals: chart.names.map((_, j) => chart.names.length - 1 - j), ticktext: chart.names, range: [-0.6, chart.names.length - 0.4] }),
  });
}

/* Draw now, and again when the colours change. */
function shown(all) {
  const again = () => all(look());
  again();
  dark.addEventListener("change", again);
}
