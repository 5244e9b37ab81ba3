// The console's only script: charts, keys, sliders and the choice of many. Pages work without it, except the charts and the live sliders.
"use strict";

const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Charts. Expressions are interpreted, so that the page's policy can forbid evaluation.
function drawCharts() {
  if (!window.vegaEmbed) return;
  const ink = colour("--ink"), quiet = colour("--quiet"), line = colour("--line");
  const config = {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: line },
    axis: { labelColor: quiet, titleColor: quiet, gridColor: line, domainColor: quiet, tickColor: quiet, titleFontWeight: 500 },
    legend: { labelColor: ink, titleColor: quiet, orient: "top", direction: "horizontal", columns: window.innerWidth < 560 ? 2 : 4 },
    header: { labelColor: ink, titleColor: quiet },
    text: { color: ink },
  };
  document.querySelectorAll("[data-chart]").forEach(async (place) => {
    const spec = JSON.parse(byId(place.dataset.chart).textContent);
    const width = place.clientWidth, isNarrow = width < 560;
    if (spec.encoding?.facet && isNarrow) {  // one panel below the other
      spec.encoding.facet.columns = 1;
      spec.width = width - 80;
    }
    const drawn = await window.vegaEmbed(place, spec, { ast: true, actions: false, defaultStyle: false, renderer: "svg", config, tooltip: { disableDefaultStyle: true } });
    const button = place.closest("figure").querySelector(".export");
    if (button) {
      button.hidden = false;
      button.onclick = async () => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([await drawn.view.toSVG()], { type: "image/svg+xml" }));
        link.download = `${place.dataset.chart}.svg`;
        link.click();
      };
    }
  });
}
window.addEventListener("load", drawCharts);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);

// Keys: each control names its own in data-key. A key is the page's where nobody writes into a field.
let group = null;
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || field) return;
  if (event.key === "Escape") { group = null; return; }
  const scope = group ? `[data-group="${group}"]` : ":not([data-group])";
  const control = document.querySelector(`[data-key="${CSS.escape(event.key)}"]${scope}`);
  if (!control) return;
  event.preventDefault();
  if (control.dataset.opens) {
    group = control.dataset.opens;
    if (control.tagName === "SUMMARY") control.parentElement.open = true;
    control.focus();
  } else if (control.type === "radio") {
    control.checked = true;
    control.dispatchEvent(new Event("change", { bubbles: true }));
    if (control.dataset.send !== undefined) control.form.requestSubmit(byId(control.dataset.send));
  } else {
    control.click();
  }
});
document.querySelectorAll("[data-opens]").forEach((control) => control.addEventListener("click", () => { group = control.dataset.opens; }));

// A reason that is chosen stands in the field, where it can be changed.
document.querySelectorAll("input[data-reason]").forEach((choice) =>
  choice.addEventListener("change", () => { byId(choice.dataset.reason).value = choice.value; }));

// Many alerts: one box chooses all, and the number stands on the button.
const all = byId("choose-all");
if (all) {
  const boxes = [...document.querySelectorAll("input[name=alert]")];
  const count = () => { byId("chosen").textContent = String(boxes.filter((box) => box.checked).length); };
  all.addEventListener("change", () => { boxes.forEach((box) => { box.checked = all.checked; }); count(); });
  boxes.forEach((box) => box.addEventListener("change", count));
  count();
}

// The slider of capacity shows the point of the curve below it.
const slider = byId("capacity");
if (slider) {
  const points = JSON.parse(byId("capacity-points").textContent);
  const show = () => points[Number(slider.value)].forEach((text, at) => { byId(`capacity-${at}`).textContent = text; });
  slider.addEventListener("input", () => { show(); slider.setAttribute("aria-valuetext", `${points[Number(slider.value)][0]} alerts a day`); });
}

// Sliders that score again: the last request counts.
const explore = byId("explore");
if (explore) {
  let timer = 0, number = 0;
  explore.addEventListener("input", (event) => {
    const out = byId(`${event.target.id}-value`);
    if (out) out.textContent = event.target.value;
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++number;
      const response = await fetch(explore.action, { method: "POST", body: new FormData(explore), headers: { Accept: "text/html" } });
      const text = await response.text();
      if (response.status === 401 || response.redirected) location.assign("/console/sign-in"); // the session has ended
      if (mine === number && response.headers.get("x-fragment")) byId("explored").innerHTML = text;
    }, 150);
  });
  explore.addEventListener("submit", (event) => event.preventDefault());
}

// A statement can be dropped.
document.querySelectorAll(".drop").forEach((place) => {
  const input = place.querySelector("input[type=file]");
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    input.files = event.dataTransfer.files;
    place.querySelector("form, form *")?.closest("form").requestSubmit();
  });
});

// Every table can be taken away as it stands, beside the longer ones that the server writes.
document.querySelectorAll("main table:not([data-csv])").forEach((table, at) => {
  const cell = (node) => {
    const text = node.innerText.trim().replace(/\s+/g, " ").replace(/"/g, '""');
    return `"${/^[=+@\t\r]/.test(text) ? "'" : ""}${text}"`;
  };
  const name = table.caption?.innerText || table.closest("[aria-label]")?.getAttribute("aria-label") || "table";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "second export no-print";
  button.textContent = "CSV";
  button.setAttribute("aria-label", `CSV of: ${name}`);
  button.onclick = () => {
    const rows = [...table.rows].map((row) => [...row.cells].filter((node) => !node.querySelector("input")).map(cell).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", rows.join("\r\n")], { type: "text/csv" }));
    link.download = `${document.title.split(" – ")[0].toLowerCase().replace(/[^a-z0-9]+/g, "-")}-${at + 1}.csv`;
    link.click();
  };
  (table.closest(".scroll") || table).after(button);
});
