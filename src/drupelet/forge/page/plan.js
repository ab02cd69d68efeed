"use strict";
/* The charts of a plan: all of them predictions. */
function memory(c) {
  const m = data.memory;
  if (!m) return;
  const lines = m.boards.map((board) => ({ type: "line", x0: board.gib, x1: board.gib, yref: "paper", y0: 0, y1: 1, line: { color: c.soft, width: 1, dash: "dot" } }));
  const notes = m.boards.map((board, i) => ({ x: Math.log10(board.gib), y: i % 2 ? 0.9 : 1, yref: "paper", text: board.names, showarrow: false, xanchor: "left", font: { size: 11, color: c.soft }, textangle: 0 }));
  draw("chart-memory", [{
    x: m.gib, y: m.kl, text: m.names, mode: "markers+text", textposition: "top center", cliponaxis: false, showlegend: false,
    marker: { size: 11, color: m.worth.map((worth) => worth ? c.hues[0] : c.soft), symbol: m.worth.map((worth) => worth ? "circle" : "circle-open") },
    hovertemplate: "%{text}<br>%{x:.2f} GiB, %{y:.2e} nats<extra></extra>",
  }], { shapes: lines, annotations: notes, margin: { t: 24, r: 64, b: 48, l: 56 },
    xaxis: axis(c, "memory at the recipe's context, GiB (predicted)", { type: "log" }), yaxis: axis(c, "mean KL, nats", { type: "log", exponentformat: "power", dtick: 1 }) });
}

shown((c) => {
  memory(c);
  if (data.speed) intervals(c, "chart-speed", data.speed, "tokens a second (predicted)", { says: " tokens/s", line: data.speed.least, type: "log" });
});
