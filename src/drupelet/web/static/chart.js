// Draws a rollout's evidence over time: harm above, staying within the margin below, with the lines that decide.
"use strict";

(() => {
  if (!window.Plotly) return;

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const COLOURS = {
    light: ["#b0134a", "#5a3ea6", "#8a5a00", "#1c6a3c", "#0f6a86", "#6a5460"],
    dark: ["#ff86ac", "#c0adff", "#f3bd63", "#84d69f", "#74cbe6", "#bba7b2"],
  };
  const DASHES = ["solid", "solid", "dot", "dot", "solid", "dash"];
  let drawn = "";

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const decade = (value) => Math.log10(value);

  function range(values, lines, data) {
    const all = values.filter((v) => v !== null).concat(lines.filter(Boolean));
    const low = Math.max(decade(data.floor), Math.min(-0.7, decade(Math.min(...all)) - 0.2));
    const high = Math.max(1.6, decade(Math.max(...all)) + 0.55);
    return [low, high];
  }

  // A dot on the newest point, and room after it.
  const newest = (curve, color) => ({ color, opacity: 1, size: curve.at.map((_, i) => (i === curve.at.length - 1 ? 8 : 0)) });

  function span(data) {
    const times = data.curves.flatMap((curve) => curve.at).map((at) => Date.parse(at));
    const first = Math.min(...times), last = Math.max(...times), room = Math.max((last - first) * 0.03, 1000);
    return [first - room / 3, last + room].map((at) => new Date(at).toISOString());
  }

  const line = (axis, y, colour, width, dash) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, yref: axis, y0: y, y1: y, line: { color: colour, width, dash }, layer: "below",
  });
  const label = (axis, y, text, colour, anchor) => ({
    xref: "paper", x: 0, xanchor: "left", yref: axis, y: decade(y), yanchor: anchor || "bottom", text, showarrow: false,
    font: { color: colour, size: 13, weight: 600 },
  });

  function figure(data) {
    const ink = css("--ink"), soft = css("--soft"), grid = css("--line"), bad = css("--bad"), good = css("--good");
    const colours = COLOURS[dark.matches ? "dark" : "light"];
    const traces = [], shapes = [], notes = [];
    const order = [...data.curves.keys()].sort((a, b) => (data.curves[a].metric === data.leader) - (data.curves[b].metric === data.leader));
    order.forEach((index) => { // the leader last: on top of the others
      const curve = data.curves[index];
      const colour = colours[index % colours.length];
      const look = { color: colour, width: curve.metric === data.leader ? 3 : 1.75, shape: "hv", dash: DASHES[index % DASHES.length] };
      traces.push({
        type: "scatter", mode: "lines+markers", name: curve.name, legendgroup: curve.metric, legendrank: index + 1,
        x: curve.at, y: curve.harm, line: look, marker: newest(curve, colour), yaxis: "y",
        hovertemplate: `${curve.name}<br>harm %{y:,.3~g}<extra></extra>`,
      });
      if (curve.within.some((value) => value !== null)) {
        traces.push({
          type: "scatter", mode: "lines+markers", name: curve.name, legendgroup: curve.metric, showlegend: false,
          x: curve.at, y: curve.within, line: look, marker: newest(curve, colour), yaxis: "y2",
          hovertemplate: `${curve.name}<br>within margin %{y:,.3~g}<extra></extra>`,
        });
      }
      if (curve.threshold && curve.metric !== data.leader) shapes.push(line("y", curve.threshold, colour, 1, "1px,5px"));
    });
    if (data.rollback) {
      shapes.push(line("y", data.rollback, bad, 2, "6px,3px"));
      notes.push(label("y", data.rollback, data.rollback_says, bad, "top"));
    }
    shapes.push(line("y2", data.pass, good, 2, "6px,3px"));
    notes.push(label("y2", data.pass, data.pass_says, good));
    const harm = data.curves.flatMap((curve) => curve.harm);
    const within = data.curves.flatMap((curve) => curve.within);
    const limits = data.curves.map((curve) => curve.threshold);
    const axis = (title, values, lines, domain) => ({
      type: "log", domain, range: range(values, lines, data), title: { text: title, font: { size: 13, color: soft }, standoff: 6 },
      gridcolor: grid, zeroline: false, dtick: 1, exponentformat: "power", tickfont: { color: soft, size: 12 }, fixedrange: true,
    });
    return [traces, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 58, r: 12, t: 8, b: 36 },
      font: { family: css("--text"), size: 13, color: ink }, hovermode: "x unified",
      hoverlabel: { bgcolor: css("--paper"), bordercolor: grid, font: { color: ink } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: ink } },
      xaxis: { type: "date", range: span(data), gridcolor: grid, tickfont: { color: soft, size: 12 }, fixedrange: true, anchor: "y2" },
      yaxis: axis("evidence of harm", harm, limits, [0.47, 1]),
      yaxis2: axis("within the margin", within, [data.pass], [0, 0.4]),
      shapes, annotations: notes,
    }];
  }

  function draw(force) {
    const place = document.getElementById("evidence");
    const text = place ? document.getElementById("evidence-data").textContent : "";
    if (!text || (text === drawn && !force)) return;
    drawn = text;
    place.querySelectorAll("noscript").forEach((element) => element.remove());
    const [traces, layout] = figure(JSON.parse(text));
    window.Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true, doubleClick: false });
  }

  draw(true);
  document.addEventListener("drupelet:swapped", () => draw(false));
  dark.addEventListener("change", () => draw(true));
})();
