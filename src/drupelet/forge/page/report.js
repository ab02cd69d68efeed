"use strict";
/* The charts of an evaluation's report. */
function quality(c) {
  const q = data.quality;
  if (!q) return;
  const front = q.front.map((i) => [q.mib[i], q.kl[i]]);
  draw("chart-quality", [
    { x: front.map((p) => p[0]), y: front.map((p) => p[1]), mode: "lines", line: { color: c.soft, width: 1.5, dash: "dot" }, hoverinfo: "skip", showlegend: false },
    { x: q.mib, y: q.kl, text: q.names.map((name, i) => name + (q.refused[i] ? " (refused)" : "")), mode: "markers+text", textposition: q.mib.map((x) => x > Math.max(...q.mib) * 0.85 ? "top left" : "top right"), cliponaxis: false,
      marker: { size: 11, color: q.refused.map((r) => r ? c.bad : c.hues[0]), symbol: q.refused.map((r) => r ? "x" : "circle") }, showlegend: false,
      hovertemplate: "%{text}<br>%{x:.1f} MiB, %{y:.2e} nats<extra></extra>" },
  ], { xaxis: axis(c, "size, MiB", { rangemode: "tozero" }), yaxis: axis(c, "mean KL, nats", { type: "log", exponentformat: "power", dtick: 1 }) });
}

function distribution(c) {
  const d = data.kl;
  if (!d) return;
  draw("chart-kl", d.curves.map((curve, i) => ({
    x: d.at, y: curve.kl, name: curve.name, mode: "lines+markers",
    line: { color: c.hues[i % c.hues.length], width: 2, dash: DASHES[Math.floor(i / c.hues.length) % DASHES.length] },
    marker: { size: 8, symbol: SHAPES[i % SHAPES.length] }, hovertemplate: "%{x}: %{y:.2e} nats<extra>" + curve.name + "</extra>",
  })), { xaxis: axis(c, "share of tokens that are closer", { type: "category" }), yaxis: axis(c, "KL, nats", { type: "log", exponentformat: "power", dtick: 1 }), showlegend: true });
}

function groups(c) {
  const g = data.groups;
  if (!g) return;
  const title = g.compared ? "change of good answers, percentage points" : "good answers, %";
  intervals(c, "chart-groups", g, title, { says: "%", line: g.compared ? 0 : null, range: g.compared ? null : [-2, 102] });
}

shown((c) => {
  quality(c);
  distribution(c);
  groups(c);
});
