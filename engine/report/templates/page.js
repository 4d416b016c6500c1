"use strict";
(() => {
  const source = JSON.parse(document.getElementById("charts").textContent);
  for (const choices of Object.values(source.charts)) {
    for (const figure of choices) {
      for (const trace of figure.data) trace.x = source.times[trace.x];
    }
  }
  const themes = {
    light: { ink: "#1a1f29", quiet: "#5c6675", rule: "#e8ebf0", panel: "#ffffff" },
    dark: { ink: "#e7eaf0", quiet: "#9aa4b3", rule: "#2a303a", panel: "#171b22" },
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 560px)");
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    // plotly.js would otherwise offer to upload the chart to a server of its makers.
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };
  const chosen = {};
  const scales = {};
  const font = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

  function dressed(layout, theme) {
    const copy = structuredClone(layout);
    copy.paper_bgcolor = copy.plot_bgcolor = "rgba(0,0,0,0)";
    copy.font = { family: font, size: 12, color: theme.quiet };
    copy.hoverlabel = { bgcolor: theme.panel, bordercolor: theme.rule, font: { color: theme.ink, family: font } };
    copy.modebar = { bgcolor: "rgba(0,0,0,0)", color: theme.quiet, activecolor: theme.ink };
    if (narrow.matches) copy.margin = { ...copy.margin, l: 48, r: 6 };
    for (const key of Object.keys(copy).filter((k) => /^[xy]axis\d*$/.test(k))) {
      copy[key] = { gridcolor: theme.rule, zerolinecolor: theme.rule, linecolor: theme.rule, automargin: true, ...copy[key] };
      if (copy[key].title) copy[key].title.standoff = 14;
      if (key.startsWith("x")) copy[key].showgrid = false;
      if (narrow.matches && copy[key].title && key.startsWith("y")) delete copy[key].title;
    }
    return copy;
  }

  function draw(element, theme) {
    const name = element.dataset.chart;
    const figure = source.charts[name][chosen[name] || 0];
    const layout = dressed(figure.layout, theme);
    for (const [axis, type] of Object.entries(scales[name] || {})) layout[axis].type = type;
    return Plotly.react(element, figure.data, layout, config);
  }

  function drawAll(theme) {
    document.querySelectorAll("[data-chart]").forEach((element) => draw(element, theme));
  }

  const current = () => (dark.matches ? themes.dark : themes.light);
  const element = (name) => document.querySelector(`[data-chart="${name}"]`);

  document.querySelectorAll("[data-picks]").forEach((select) => {
    const name = select.dataset.picks;
    select.value = "0";
    select.addEventListener("change", () => {
      chosen[name] = Number(select.value);
      document.querySelector(`[data-notes="${name}"]`).textContent = source.notes[name][chosen[name]].join(" ");
      draw(element(name), current());
    });
  });

  document.querySelectorAll("[data-toggles]").forEach((group) => {
    const name = group.dataset.toggles;
    group.addEventListener("click", (event) => {
      const value = event.target.dataset.value;
      if (!value) return;
      scales[name] = { [group.dataset.axis]: value };
      group.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.value === value)));
      draw(element(name), current());
    });
  });

  dark.addEventListener("change", () => drawAll(current()));
  narrow.addEventListener("change", () => drawAll(current()));
  window.addEventListener("beforeprint", () => drawAll(themes.light));
  window.addEventListener("afterprint", () => drawAll(current()));
  drawAll(current());
})();
