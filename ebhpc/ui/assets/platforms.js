// Platforms, their calendars, and how well starts were foretold.

import { watch } from "./broker.js";
import { Calendar } from "./calendar.js";
import { byId, fill, h, segments, update } from "./dom.js";
import { agoText, clockText, dayText, durationText, now } from "./words.js";
import uPlot from "./vendor/uplot/uPlot.esm.js";

const WORK = { notebook: "notebooks", container: "containers", script: "batch scripts", time: "reserved time" };
let calendar = null;

function card(one) {
  const facts = one.available ? [
    ["State", `taken ${agoText(one.taken)}`], ["Nodes", `${one.up.toLocaleString()} of ${one.nodes.toLocaleString()} up`], ["Cores", `${one.cores.toLocaleString()}, up to ${one.most_cores} on a node`],
    ["Memory", `${one.memory.toLocaleString()} GiB, up to ${one.most_memory} GiB on a node`],
    ["Devices", Object.entries(one.devices ?? {}).map(([name, count]) => `${count} × ${name}`).join(", ")],
    ["Queue", `${one.running} running, ${one.waiting} waiting`], ["Takes", (one.work ?? []).map((name) => WORK[name]).join(", ")],
    ["Promises", one.promises.map((name) => (name === "reservation" ? "starts that are kept" : "expected starts")).join(", ")],
    ["Partitions", (one.partitions ?? []).map((part) => `${part.name}${part.time_limit ? ` (up to ${durationText(part.time_limit)})` : ""}`).join(", ")],
  ] : [["Why", one.reason]];
  return h("article", { class: "card stack", "data-key": one.name }, h("div", { class: "card-head" }, h("h2", {}, one.name), h("span", { class: `tag ${one.available ? "good" : "bad"}` }, one.available ? "available" : "not available")),
    h("dl", { class: "facts" }, facts.filter(([, text]) => text).map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
}

function choose(names, name) {
  byId("picture-card").hidden = false;
  calendar ??= new Calendar(byId("picture"), { height: 420, span: 3 * 86400 });
  calendar.show(name);
  if (names.length > 1) {
    byId("platform-choice").className = "segments small";
    segments(byId("platform-choice"), "platform", names.map((one) => [one, one]), name, (value) => choose(names, value));
  }
}

// --- promises ---

const percent = (share) => `${Math.round(share * 100)} %`;

function figures(one, ordinary) {
  if (!one.starts) return h("p", { class: "hint" }, ordinary ? "No start was foreseen yet." : "No session has started in this time.");
  return h("div", { class: "figures" }, h("div", {}, h("b", {}, String(one.starts)), one.starts === 1 ? "start" : "starts"), h("div", {}, h("b", {}, percent(one.inside)), "inside what was promised"),
    h("div", {}, h("b", {}, percent(one.early)), "earlier"), h("div", {}, h("b", {}, percent(one.late)), "later"), h("div", {}, h("b", {}, durationText(one.median_error)), "median error"), h("div", {}, h("b", {}, durationText(one.width)), "mean width of the interval"));
}

function plot(starts, firm, name) {
  const met = starts.filter(([, , , started]) => started !== null).sort((a, b) => a[3] - b[3]);
  if (!met.length) return null;
  const box = h("div", { class: "plot", role: "img", "aria-label": `${name}: minutes by which ${met.length} starts differed from the promise; the figures above sum them up` });
  requestAnimationFrame(() => {
    const style = getComputedStyle(document.body);
    const colour = (of) => style.getPropertyValue(of).trim();
    const off = (value, expected) => (value - expected) / 60;
    const data = [met.map((one) => one[3]), met.map((one) => off(one[0], one[2])), met.map((one) => off(one[1], one[2])), met.map((one) => off(one[3], one[2]))];
    const from = Math.min(met[0][3], now() - 7200) - 600;
    const reach = 1.2 * Math.max(1, ...data.slice(1).flat().map(Math.abs));
    const make = () => new uPlot({
      width: Math.max(box.clientWidth, 260), height: 250, legend: { show: false }, cursor: { show: false },
      scales: { x: { range: () => [from, now() + 600] }, y: { range: () => [-reach, reach] } },
      bands: [{ series: [2, 1], fill: colour("--accent-soft") }],
      axes: [{ values: (_, moments) => moments.map((t) => (now() - from > 172800 ? dayText(t) : clockText(t))), stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } },
        { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, label: "minutes from the promised start", labelSize: 22, size: 56 }],
      series: [{}, { stroke: colour("--accent-soft"), width: 1, points: { show: false } }, { stroke: colour("--accent-soft"), width: 1, points: { show: false } },
        { stroke: colour("--accent"), paths: () => null, points: { show: true, size: 7, fill: colour("--accent") } }],
    }, data, box);
    let made = make();
    new ResizeObserver(() => made.setSize({ width: Math.max(box.clientWidth, 260), height: 250 })).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { made.destroy(); made = make(); });
  });
  return h("figure", {}, box, h("figcaption", { class: "hint" }, `Each point is a start; the band is the interval that was promised${firm ? " and kept" : ""}.`));
}

function promises(found) {
  const parts = found.sessions.map((one) => {
    const name = `${one.platform}, ${one.firm ? "kept starts" : "expected starts"}`;
    return h("article", { class: "stack" }, h("h3", {}, name), figures(one.figures), plot(one.starts, one.firm, name));
  });
  const queues = found.queues.map((one) => h("article", { class: "stack" }, h("h3", {}, `${one.platform}, the queue’s own jobs`), figures(one.figures, true),
    h("p", { class: "hint" }, `Foreseen ${agoText(one.taken)}.${one.figures.planned_error === null || !one.figures.starts ? "" : ` The mean error was ${durationText(one.figures.mean_error)}; a plan on time limits would have had ${durationText(one.figures.planned_error)}.`}`)));
  fill(byId("promises"), parts.length || queues.length ? [...parts, ...queues] : h("p", { class: "empty" }, "No session has started in the last 30 days, so there is nothing to compare yet."));
}

watch("/data/platforms", (found) => {
  if (!found) return;
  update(byId("platforms"), found.platforms.length ? found.platforms.map(card) : h("p", { class: "empty" }, "This broker has no platform."));
  const names = found.platforms.filter((one) => one.available).map((one) => one.name);
  if (names.length && !calendar) choose(names, names[0]);
}, () => 15);
watch("/data/promises", (found, error) => {
  if (found) promises(found); else fill(byId("promises"), h("p", { class: "hint" }, error.message));
}, () => null);
