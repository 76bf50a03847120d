// The calendar on a page: fetched, drawn, zoomed, panned, explained, and told as a table.

import { KIND, KIND_NAMES, decodeCalendar, occupancy } from "./calendar-data.js";
import { AXIS, draw, readColours } from "./calendar-draw.js";
import { ROOT, watch } from "./broker.js";
import { fill, h, update } from "./dom.js";
import { durationText, momentText } from "./words.js";

const SPANS = [[6 * 3600, "6 h"], [86400, "1 day"], [3 * 86400, "3 days"], [7 * 86400, "week"], [14 * 86400, "2 weeks"]];
const LEAST = 900;
const MOST = 14 * 86400 + 3600;
const LEGEND = [["running", "running"], ["tail", "to its limit"], ["waiting", "waiting, as planned"], ["reservation", "reservation"],
  ["maintenance", "maintenance"], ["promise", "promised by ebhpc"], ["mine", "mine"], ["offer", "offered"], ["fit", "would fit"]];

export class Calendar {
  constructor(parent, { height = 340, span = 86400, onpick = null } = {}) {
    this.height = height;
    this.span = span;
    this.onpick = onpick;
    this.overlays = [];
    this.calendar = null;
    this.mine = [];
    this.watched = null;
    this.canvas = h("canvas", { tabindex: "0", role: "img", "aria-label": "The machine's calendar, not fetched yet" });
    this.canvas.style.height = `${height}px`;
    this.context = this.canvas.getContext("2d");
    this.tip = h("div", { class: "tip", hidden: true });
    this.table = h("div", { hidden: true });
    this.note = h("p", { class: "hint note" }, "Fetching the calendar…");
    this.legend = h("ul", { class: "legend", "aria-label": "Colours" });
    this.toggle = h("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => this.showTable() }, "As a table");
    this.spans = h("div", { class: "segments small", role: "group", "aria-label": "How far to look" },
      SPANS.map(([seconds, name]) => h("button", { type: "button", "data-seconds": seconds, onclick: () => this.look(seconds) }, name)));
    fill(parent, h("div", { class: "picture" },
      h("div", { class: "picture-tools" }, this.spans, h("span", { class: "space" }),
        h("button", { type: "button", class: "quiet", "aria-label": "Zoom in", onclick: () => this.zoom(0.6) }, "+"),
        h("button", { type: "button", class: "quiet", "aria-label": "Zoom out", onclick: () => this.zoom(1 / 0.6) }, "−"),
        h("button", { type: "button", class: "quiet", onclick: () => this.look(this.span) }, "Now"), this.toggle),
      this.canvas, this.tip, this.legend, this.note, this.table));
    this.reset();
    this.listen();
  }

  // Show a platform from now on, and keep it up to date; `pause` seconds between two looks.
  show(platform, pause = 15) {
    if (this.platform === platform) return;
    this.platform = platform;
    this.watched?.stop();
    this.calendar = null;
    this.watched = watch(`/data/platforms/${encodeURIComponent(platform)}/picture?duration=P14D`, (doc, error) => {
      if (this.platform !== platform) return;
      if (error) { this.note.textContent = error.message; return; }
      this.take(doc);
    }, () => pause);
  }

  take(doc) {
    const first = this.calendar === null;
    const begun = performance.now();
    this.calendar = decodeCalendar(doc);
    performance.measure("calendar-decoded", { start: begun, end: performance.now() });
    this.mine = [];
    for (let at = 0; at < this.calendar.total; at += 1) if (this.calendar.session(at)) this.mine.push(at);
    if (first || this.view.r1 > this.calendar.rows) { this.view.r0 = 0; this.view.r1 = Math.max(this.calendar.rows, 1); }
    const { rows, cores } = this.calendar;
    this.note.textContent = `${rows.toLocaleString()} ${rows === 1 ? "node" : "nodes"}, ${cores.reduce((a, b) => a + b, 0).toLocaleString()} cores; its state was taken ${momentText(this.calendar.taken)}. Drag to pan, Ctrl and the wheel to zoom, or use the arrow keys, + and −.`;
    this.tellLegend();
    this.redraw();
    if (!this.table.hidden) this.tellTable();
  }

  // Windows to show on top; the view moves so that the first of them is seen.
  over(overlays, { follow = false } = {}) {
    this.overlays = overlays;
    if (follow && overlays.length) {
      const last = Math.max(...overlays.map((one) => one.start + one.duration));
      if (overlays[0].start > this.view.t1 || overlays[0].start < this.view.t0) {
        this.look(Math.min(Math.max((last - Date.now() / 1000) * 1.15, 21600), MOST));
      }
    }
    this.tellLegend();
    this.redraw();
    if (!this.table.hidden) this.tellTable();
  }

  reset() {
    const now = Date.now() / 1000;
    this.view = { t0: now - this.span * 0.06, t1: now + this.span * 0.94, r0: 0, r1: this.calendar?.rows ?? 1, width: 0, height: this.height, gutter: 0 };
    this.tellSpan();
  }

  look(span) {
    this.span = span;
    const now = Date.now() / 1000;
    this.view.t0 = now - span * 0.06;
    this.view.t1 = now + span * 0.94;
    this.view.r0 = 0;
    this.view.r1 = Math.max(this.calendar?.rows ?? 1, 1);
    this.tellSpan();
    this.redraw();
  }

  tellSpan() {
    const here = Math.round(this.view.t1 - this.view.t0);
    for (const button of this.spans.children) button.setAttribute("aria-pressed", String(Number(button.dataset.seconds) === here));
  }

  zoom(factor, at = null, row = null) {
    const { t0, t1, r0, r1 } = this.view;
    const middle = at ?? (t0 + t1) / 2;
    const wide = Math.min(Math.max((t1 - t0) * factor, LEAST), MOST);
    this.view.t0 = middle - ((middle - t0) / (t1 - t0)) * wide;
    this.view.t1 = this.view.t0 + wide;
    const rows = this.calendar?.rows ?? 1;
    if (rows > 24) {
      const centre = row ?? (r0 + r1) / 2;
      const tall = Math.min(Math.max((r1 - r0) * factor, 8), rows);
      this.view.r0 = Math.min(Math.max(centre - ((centre - r0) / (r1 - r0)) * tall, 0), rows - tall);
      this.view.r1 = this.view.r0 + tall;
    }
    this.keepInside();
  }

  pan(dt, dr = 0) {
    const rows = this.calendar?.rows ?? 1;
    const tall = this.view.r1 - this.view.r0;
    this.view.t0 += dt;
    this.view.t1 += dt;
    this.view.r0 = Math.min(Math.max(this.view.r0 + dr, 0), rows - tall);
    this.view.r1 = this.view.r0 + tall;
    this.keepInside();
  }

  keepInside() {
    if (this.calendar) {
      const wide = this.view.t1 - this.view.t0;
      const least = this.calendar.start - wide * 0.1;
      const most = this.calendar.end + wide * 0.1;
      if (this.view.t0 < least) { this.view.t0 = least; this.view.t1 = least + wide; }
      if (this.view.t1 > most) { this.view.t1 = most; this.view.t0 = most - wide; }
    }
    this.tellSpan();
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = null; this.paint(); });
  }

  paint() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const sharp = Math.min(window.devicePixelRatio || 1, 2);
    if (this.canvas.width !== Math.round(width * sharp) || this.canvas.height !== Math.round(this.height * sharp)) {
      this.canvas.width = Math.round(width * sharp);
      this.canvas.height = Math.round(this.height * sharp);
    }
    this.view.width = width;
    this.view.height = this.height;
    this.view.gutter = width < 520 ? 54 : 92;
    this.context.setTransform(sharp, 0, 0, sharp, 0, 0);
    this.colours ??= readColours(this.canvas);
    if (!this.calendar) { this.context.clearRect(0, 0, width, this.height); return; }
    const begun = performance.now();
    draw(this.context, this.calendar, this.view, this.overlays, this.colours, this.mine);
    performance.measure("calendar", { start: begun, end: performance.now() });
    this.canvas.setAttribute("aria-label", this.inWords());
  }

  inWords() {
    const { t0, t1 } = this.view;
    const windows = this.overlays.map((one, n) => `${n + 1}: ${momentText(one.start)} for ${durationText(one.duration)}`);
    return `Calendar of ${this.calendar.platform} from ${momentText(t0)} to ${momentText(t1)}. ${windows.length ? `Shown on top: ${windows.join("; ")}. ` : ""}The button "As a table" tells the figures.`;
  }

  // --- hands ---

  listen() {
    const canvas = this.canvas;
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.colours = null; this.redraw(); });
    setInterval(() => { if (!document.hidden) this.redraw(); }, 30000);
    const hands = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      hands.set(event.pointerId, event);
      canvas.setPointerCapture(event.pointerId);
      this.moved = 0;
      canvas.classList.add("dragging");
    });
    const up = (event) => {
      if (hands.delete(event.pointerId) && event.type === "pointerup" && this.moved < 5) this.pick(event);
      if (!hands.size) canvas.classList.remove("dragging");
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointermove", (event) => {
      const before = hands.get(event.pointerId);
      if (!before) { this.explain(event); return; }
      if (hands.size === 2) {
        const [a, b] = [...hands.values()];
        const old = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
        hands.set(event.pointerId, event);
        const [c, d] = [...hands.values()];
        this.zoom(old / Math.max(Math.hypot(c.clientX - d.clientX, c.clientY - d.clientY), 1));
        return;
      }
      const dx = event.clientX - before.clientX;
      const dy = event.clientY - before.clientY;
      this.moved += Math.abs(dx) + Math.abs(dy);
      hands.set(event.pointerId, event);
      this.tip.hidden = true;
      const { width, gutter, t0, t1, r0, r1 } = this.view;
      this.pan((-dx / (width - gutter)) * (t1 - t0), event.pointerType === "touch" ? 0 : (-dy / (this.height - AXIS)) * (r1 - r0));
    });
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        const at = this.at(event);
        this.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), at.t, at.row);
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        this.pan(((event.deltaX || event.deltaY) / this.view.width) * (this.view.t1 - this.view.t0));
      }
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const wide = this.view.t1 - this.view.t0;
      const tall = this.view.r1 - this.view.r0;
      const does = { ArrowLeft: () => this.pan(-wide / 8), ArrowRight: () => this.pan(wide / 8), ArrowUp: () => this.pan(0, -tall / 8),
        ArrowDown: () => this.pan(0, tall / 8), "+": () => this.zoom(0.7), "=": () => this.zoom(0.7), "-": () => this.zoom(1 / 0.7), Home: () => this.look(this.span) }[event.key];
      if (does && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); does(); }
    });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const { t0, t1, r0, r1, width, gutter } = this.view;
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    return { x, y, t: t0 + ((x - gutter) / (width - gutter)) * (t1 - t0), row: r0 + ((y - AXIS) / (this.height - AXIS)) * (r1 - r0) };
  }

  found(event) {
    const { t, row } = this.at(event);
    if (!this.calendar || row < 0 || row >= this.calendar.rows) return { t, row: -1, items: [] };
    const { items, begin } = this.calendar;
    const line = Math.floor(row);
    const within = row - line;
    const here = [];
    for (let at = begin[line]; at < begin[line + 1]; at += 1) if (items.start[at] <= t && items.end[at] > t) here.push(at);
    const exact = here.filter((at) => items.low[at] <= within && items.high[at] > within);
    return { t, row: line, items: here, best: exact.at(-1) };
  }

  pick(event) {
    const { items } = this.found(event);
    const session = items.map((at) => this.calendar.session(at)).find(Boolean);
    if (session) location.assign(`${ROOT}/sessions/${session}`);
  }

  explain(event) {
    const found = this.found(event);
    if (found.row < 0 || this.at(event).y < AXIS) { this.tip.hidden = true; return; }
    const { items, names, cores, memory, states } = this.calendar;
    const taken = found.items.filter((at) => items.kind[at] !== KIND.reservation && items.kind[at] !== KIND.maintenance)
      .reduce((sum, at) => sum + items.cores[at], 0);
    const lines = [];
    if (found.best !== undefined) {
      const at = found.best;
      const label = this.calendar.label(at);
      lines.push(h("b", {}, this.calendar.session(at) ? "Mine" : KIND_NAMES[items.kind[at]], label ? ` · ${label}` : ""));
      lines.push(h("div", {}, `${momentText(items.start[at])} – ${items.end[at] > this.calendar.end ? "open end" : momentText(items.end[at])}`));
      if (items.kind[at] === KIND.running && items.expected[at] < items.end[at]) lines.push(h("div", {}, `expected to end ${momentText(items.expected[at])}`));
      const many = this.calendar.nodesOf(at);
      lines.push(h("div", {}, `${items.cores[at]} cores${many > 1 ? ` on each of ${many} nodes` : ""}`));
    }
    const state = states && states[found.row] !== "UP" ? `, ${states[found.row].toLowerCase()}` : "";
    lines.push(h("div", {}, `${names[found.row]}${state}: ${Math.min(taken, cores[found.row])} of ${cores[found.row]} cores taken ${momentText(found.t)}, ${memory[found.row]} GiB in all`));
    fill(this.tip, lines);
    this.tip.hidden = false;
    const { x, y } = this.at(event);
    const box = this.canvas.parentElement.getBoundingClientRect();
    const own = this.canvas.getBoundingClientRect();
    const left = Math.min(Math.max(x + 14, 4), box.width - this.tip.offsetWidth - 4);
    const below = y + own.top - box.top + 16;
    this.tip.style.transform = `translate(${left}px, ${below}px)`;
  }

  // --- words ---

  tellLegend() {
    const seen = new Set(this.overlays.map((one) => one.colour ?? "fit"));
    if (this.calendar) {
      const { items, total } = this.calendar;
      const names = ["running", "waiting", "reservation", "maintenance", "promise", "offer"];
      for (let at = 0; at < total; at += 1) {
        seen.add(names[items.kind[at]]);
        if (items.kind[at] === KIND.running && items.expected[at] < items.end[at]) seen.add("tail");
      }
      if (this.mine.some((at) => items.kind[at] !== KIND.offer)) seen.add("mine");
    }
    update(this.legend, LEGEND.filter(([name]) => seen.has(name)).map(([name, text]) => h("li", { "data-key": name }, h("i", { class: `k-${name}` }), text)));
  }

  showTable() {
    this.table.hidden = !this.table.hidden;
    this.toggle.setAttribute("aria-pressed", String(!this.table.hidden));
    if (!this.table.hidden) this.tellTable();
  }

  tellTable() {
    if (!this.calendar) return;
    const { t0, t1 } = this.view;
    const bins = 24;
    const step = (t1 - t0) / bins;
    const all = this.calendar.cores.reduce((a, b) => a + b, 0);
    const planes = occupancy(this.calendar, t0, t1, bins);
    const kinds = KIND_NAMES.map((name, kind) => [name, kind]).filter(([, kind]) => planes[kind].some((cores) => cores > 0));
    const figure = (cores) => h("td", { class: "number" }, cores ? cores.toFixed(cores < 10 ? 1 : 0) : "–");
    const { items, total } = this.calendar;
    const spans = new Map();
    for (let at = 0; at < total; at += 1) {
      if (items.start[at] < t1 && items.end[at] > t0 && !spans.has(items.span[at])) spans.set(items.span[at], at);
    }
    const single = [...spans.values()].sort((a, b) => items.start[a] - items.start[b]).slice(0, 300);
    update(this.table,
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The calendar as tables" },
        h("table", {}, h("caption", {}, `Cores taken, of ${all}, on average; from ${momentText(t0)} to ${momentText(t1)}`),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "From"), kinds.map(([name]) => h("th", { scope: "col", class: "number" }, name)), h("th", { scope: "col", class: "number" }, "Free"))),
          h("tbody", {}, Array.from({ length: bins }, (_, bin) => {
            const used = kinds.reduce((sum, [, kind]) => sum + planes[kind][bin], 0);
            return h("tr", {}, h("th", { scope: "row" }, momentText(t0 + bin * step)), kinds.map(([, kind]) => figure(planes[kind][bin])), figure(Math.max(all - used, 0)));
          }))),
        h("table", {}, h("caption", {}, `What takes them${spans.size > single.length ? `: the first ${single.length} of ${spans.size}, zoom in for the others` : ""}`),
          h("thead", {}, h("tr", {}, ["What", "Node", "From", "To", "Cores"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, single.map((at) => h("tr", { "data-key": this.calendar.session(at) || null },
            h("td", {}, this.calendar.session(at) ? h("a", { href: `${ROOT}/sessions/${this.calendar.session(at)}` }, "Mine") : KIND_NAMES[items.kind[at]], this.calendar.label(at) ? ` ${this.calendar.label(at)}` : ""),
            h("td", {}, this.calendar.names[items.row[at]], this.calendar.nodesOf(at) > 1 ? ` and ${this.calendar.nodesOf(at) - 1} more` : ""),
            h("td", {}, momentText(items.start[at])), h("td", {}, items.end[at] > this.calendar.end ? "open" : momentText(items.end[at])), h("td", { class: "number" }, String(items.cores[at]))))))));
  }
}
