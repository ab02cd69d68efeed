"use strict";
(() => {
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
    const many = g.curves.length, place = document.getElementById("chart-groups");
    place.style.height = `${Math.max(14, 7 + g.names.length * (1.2 + 0.9 * many))}rem`;
    const traces = g.curves.map((curve, i) => {
      const rows = g.names.map((_, j) => j).filter((j) => curve.rows[j]);
      const at = (j) => g.names.length - 1 - j + (many > 1 ? 0.3 - 0.6 * i / (many - 1) : 0);
      return {
        x: rows.map((j) => curve.rows[j][0]), y: rows.map(at), name: curve.name, mode: "markers", text: rows.map((j) => g.names[j]),
        error_x: { type: "data", symmetric: false, array: rows.map((j) => curve.rows[j][2] - curve.rows[j][0]), arrayminus: rows.map((j) => curve.rows[j][0] - curve.rows[j][1]), color: c.hues[i % c.hues.length], thickness: 1.5, width: 4 },
        marker: { size: 9, color: c.hues[i % c.hues.length], symbol: SHAPES[i % SHAPES.length] },
        hovertemplate: "%{text}: %{x:.1f}%<extra>" + curve.name + "</extra>",
      };
    });
    const line = g.compared ? [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: c.ink, width: 1.5 } }] : [];
    draw("chart-groups", traces, {
      shapes: line, showlegend: true,
      xaxis: axis(c, g.compared ? "change of good answers, percentage points" : "good answers, %", g.compared ? {} : { range: [-2, 102] }),
      yaxis: axis(c, "", { tickvals: g.names.map((_, j) => g.names.length - 1 - j), ticktext: g.names, range: [-0.6, g.names.length - 0.4] }),
    });
  }

  function all() {
    const c = look();
    quality(c);
    distribution(c);
    groups(c);
  }

  all();
  dark.addEventListener("change", all);
})();
