// Drawing a calendar. From near, each share is a rectangle. From afar, where a node is less than a few pixels high, the
// exact occupancy of every pixel is summed up (difference arrays along time) and shown as a mixture of colours.

import { KIND, placeAmong } from "./calendar-data.js";
import { clockText, dayText } from "./words.js";

export const AXIS = 26;
const NEAR = 3;

export function readColours(element) {
  const style = getComputedStyle(element);
  const names = ["running", "tail", "waiting", "reservation", "maintenance", "promise", "offer", "mine", "fit", "now", "free"];
  const found = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--c-${name}`).trim()]));
  for (const name of ["ink", "soft", "line", "paper"]) found[name] = style.getPropertyValue(`--${name}`).trim();
  return found;
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

export function draw(context, calendar, view, overlays, colours, mine) {
  const { width, height, gutter } = view;
  context.clearRect(0, 0, width, height);
  const area = { left: gutter, top: AXIS, width: width - gutter, height: height - AXIS };
  const rowHeight = area.height / (view.r1 - view.r0);
  const x = (t) => area.left + ((t - view.t0) / (view.t1 - view.t0)) * area.width;
  const y = (row) => area.top + (row - view.r0) * rowHeight;
  context.save();
  context.beginPath();
  context.rect(area.left, area.top, area.width, area.height);
  context.clip();
  context.fillStyle = colours.free;
  context.fillRect(area.left, area.top, area.width, area.height);
  if (rowHeight >= NEAR) near(context, calendar, view, colours, { x, y, rowHeight, area });
  else afar(context, calendar, view, colours, { area, rowHeight });
  ticks(context, view, colours, { x, area });
  if (rowHeight >= 6) lines(context, view, calendar, colours, { y, area });
  partitions(context, calendar, colours, { y, area });
  own(context, calendar, view, colours, { x, y, rowHeight, area }, mine);
  const known = new Map();
  for (const at of mine) if (!known.has(calendar.session(at))) known.set(calendar.session(at), at);
  for (const overlay of overlays) {
    const at = known.get(overlay.uuid);
    if (at === undefined) window_(context, calendar, overlay, colours, { x, y, rowHeight, area });
    else badge(context, overlay, colours[overlay.colour] ?? colours.fit, colours, { x, area }, y(calendar.items.row[at] + calendar.items.low[at]));
  }
  const now = x(Date.now() / 1000);
  context.fillStyle = colours.now;
  context.fillRect(Math.round(now) - 0.5, area.top, 1.5, area.height);
  context.restore();
  axis(context, view, colours, { x, area, now });
  labels(context, calendar, view, colours, { y, rowHeight, area });
}

const FILLS = ["running", "waiting", "reservation", "maintenance", "promise", "offer"];

function near(context, calendar, view, colours, { x, y, rowHeight, area }) {
  const { items, begin } = calendar;
  const first = Math.max(0, Math.floor(view.r0));
  const last = Math.min(calendar.rows, Math.ceil(view.r1));
  const gap = rowHeight > 7 ? 1 : 0;
  // Behind the rest: what keeps whole nodes
  for (const kinds of [[KIND.maintenance, KIND.reservation], [KIND.running], [KIND.waiting], [KIND.promise], [KIND.offer]]) {
    for (const kind of kinds) {
      context.fillStyle = colours[FILLS[kind]];
      for (let row = first; row < last; row += 1) {
        const top = y(row) + gap / 2;
        const tall = rowHeight - gap;
        for (let at = begin[row]; at < begin[row + 1]; at += 1) {
          if (items.kind[at] !== kind || items.start[at] > view.t1 || items.end[at] < view.t0) continue;
          const x0 = Math.max(x(items.start[at]), area.left - 2);
          const x1 = Math.min(x(kind === KIND.running ? items.expected[at] : items.end[at]), area.left + area.width + 2);
          const inset = gap && (items.high[at] - items.low[at]) * tall > 3 ? 0.6 : 0;
          context.fillRect(x0 + inset / 2, top + items.low[at] * tall + inset / 2,
            Math.max(x1 - x0 - inset, 1), Math.max((items.high[at] - items.low[at]) * tall - inset, 1));
        }
      }
      if (kind === KIND.running) {
        context.fillStyle = colours.tail;
        for (let row = first; row < last; row += 1) {
          const top = y(row) + gap / 2;
          const tall = rowHeight - gap;
          for (let at = begin[row]; at < begin[row + 1]; at += 1) {
            if (items.kind[at] !== kind || items.expected[at] >= items.end[at] || items.expected[at] > view.t1 || items.end[at] < view.t0) continue;
            const x0 = Math.max(x(items.expected[at]), area.left - 2);
            const x1 = Math.min(x(items.end[at]), area.left + area.width + 2);
            context.fillRect(x0, top + items.low[at] * tall, x1 - x0, Math.max((items.high[at] - items.low[at]) * tall - (gap ? 0.6 : 0), 1));
          }
        }
      }
    }
  }
}

// --- from afar -----------------------------------------------------------------------------------------------------

const PLANES = ["running", "tail", "waiting", "reservation", "maintenance", "promise"];
let board = null;

function afar(context, calendar, view, colours, { area, rowHeight }) {
  const width = Math.max(1, Math.round(area.width));
  const height = Math.max(1, Math.round(area.height));
  if (!board || board.width !== width || board.height !== height) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const inner = canvas.getContext("2d");
    const image = inner.createImageData(width, height);
    board = { width, height, canvas, inner, image, pixels: new Uint32Array(image.data.buffer),
      planes: PLANES.map(() => new Float32Array((width + 2) * height)), used: PLANES.map(() => false) };
  }
  const { items, begin, cores } = calendar;
  const stride = width + 2;
  const capacity = new Float64Array(height);
  const scale = width / (view.t1 - view.t0);
  const first = Math.max(0, Math.floor(view.r0));
  const last = Math.min(calendar.rows, Math.ceil(view.r1));
  const line = (row) => Math.min(height - 1, Math.max(0, Math.floor((row - view.r0) * rowHeight)));
  for (let row = first; row < last; row += 1) capacity[line(row)] += cores[row];
  board.planes.forEach((plane, n) => { if (board.used[n]) plane.fill(0); board.used[n] = false; });
  const add = (n, base, from, to, share) => {
    const x0 = Math.max((from - view.t0) * scale, 0);
    const x1 = Math.min((to - view.t0) * scale, width);
    if (x1 <= x0) return;
    const plane = board.planes[n];
    board.used[n] = true;
    const a = Math.floor(x0);
    const b = Math.floor(x1);
    plane[base + a] += share * (a + 1 - x0);
    plane[base + a + 1] += share * (x0 - a);
    plane[base + b] -= share * (b + 1 - x1);
    plane[base + b + 1] -= share * (x1 - b);
  };
  for (let row = first; row < last; row += 1) {
    const pixel = line(row);
    const base = pixel * stride;
    const per = 1 / Math.max(capacity[pixel], 1);
    for (let at = begin[row]; at < begin[row + 1]; at += 1) {
      if (items.start[at] >= view.t1 || items.end[at] <= view.t0) continue;
      const share = items.cores[at] * per;
      switch (items.kind[at]) {
        case KIND.running:
          add(0, base, items.start[at], items.expected[at], share);
          if (items.expected[at] < items.end[at]) add(1, base, items.expected[at], items.end[at], share);
          break;
        case KIND.waiting: add(2, base, items.start[at], items.end[at], share); break;
        case KIND.reservation: add(3, base, items.start[at], items.end[at], share); break;
        case KIND.maintenance: add(4, base, items.start[at], items.end[at], share); break;
        default: add(5, base, items.start[at], items.end[at], share);
      }
    }
  }
  paint(colours, stride);
  context.imageSmoothingEnabled = false;
  context.drawImage(board.canvas, area.left, area.top, area.width, area.height);
}

function paint(colours, stride) {
  const { width, height, planes, pixels, used } = board;
  const active = PLANES.map((name, n) => [n, rgb(colours[name])]).filter(([n]) => used[n]);
  const [fr, fg, fb] = rgb(colours.free);
  const sums = new Float32Array(active.length);
  for (let line = 0; line < height; line += 1) {
    sums.fill(0);
    const base = line * stride;
    const out = line * width;
    for (let column = 0; column < width; column += 1) {
      let taken = 0;
      let r = 0;
      let g = 0;
      let b = 0;
      for (let k = 0; k < active.length; k += 1) {
        const [n, colour] = active[k];
        const share = (sums[k] += planes[n][base + column]);
        if (share > 0.0005) {
          taken += share;
          r += share * colour[0];
          g += share * colour[1];
          b += share * colour[2];
        }
      }
      const over = taken > 1 ? 1 / taken : 1;
      const free = taken > 1 ? 0 : 1 - taken;
      pixels[out + column] = 0xff000000 | ((b * over + free * fb) << 16) | ((g * over + free * fg) << 8) | (r * over + free * fr);
    }
  }
  board.inner.putImageData(board.image, 0, 0);
}

// --- on top --------------------------------------------------------------------------------------------------------

function own(context, calendar, view, colours, { x, y, rowHeight, area }, mine) {
  const { items } = calendar;
  for (const at of mine) {
    if (items.start[at] > view.t1 || items.end[at] < view.t0) continue;
    box(context, area, x(items.start[at]), x(items.end[at]), y(items.row[at] + items.low[at]), y(items.row[at] + items.high[at]),
      items.kind[at] === KIND.offer ? colours.offer : colours.mine, rowHeight);
  }
}

function box(context, area, x0, x1, top, bottom, colour, rowHeight) {
  const left = Math.max(x0, area.left - 3);
  const wide = Math.max(Math.min(x1, area.left + area.width + 3) - left, 3);
  const tall = Math.max(bottom - top, 3);
  context.fillStyle = colour;
  context.fillRect(left, top, wide, tall);
  if (rowHeight > 8) {
    context.strokeStyle = "rgb(255 255 255 / 55%)";
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, top + 0.5, wide - 1, tall - 1);
  }
}

// A window that is looked at: {start, latest, end, duration, firm, expected, shares, colour, number, strong}.
function window_(context, calendar, overlay, colours, { x, y, rowHeight, area }) {
  const colour = colours[overlay.colour] ?? colours.fit;
  const last = overlay.start + overlay.duration;
  let topmost = null;
  const rows = [];
  for (const share of overlay.shares) {
    const row = calendar.rowByName.get(share.node);
    if (row !== undefined) rows.push([row, share]);
  }
  for (const [row, share] of rows) {
    const [low, high] = placeAmong(calendar, row, overlay.start, overlay.end, share.cores);
    const top = y(row + low);
    const bottom = Math.max(y(row + high), top + 4);
    if (overlay.end > last) {
      context.globalAlpha = 0.35;
      box(context, area, x(last), x(overlay.end), top, bottom, colour, 0);
      context.globalAlpha = 1;
    }
    context.globalAlpha = overlay.strong ? 1 : 0.8;
    box(context, area, x(overlay.start), x(last), top, bottom, colour, rowHeight);
    context.globalAlpha = 1;
    topmost = topmost === null ? top : Math.min(topmost, top);
  }
  if (!rows.length) {
    // Nobody knows yet on which nodes: the interval of its start over all of them
    context.globalAlpha = 0.22;
    context.fillStyle = colour;
    context.fillRect(x(overlay.start), area.top, Math.max(x(overlay.latest) - x(overlay.start), 2), area.height);
    context.globalAlpha = 1;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.setLineDash([5, 4]);
    const middle = x(overlay.expected ?? overlay.start);
    context.beginPath();
    context.moveTo(middle, area.top);
    context.lineTo(middle, area.top + area.height);
    context.stroke();
    context.setLineDash([]);
    topmost = area.top + 14;
  }
  badge(context, overlay, colour, colours, { x, area }, topmost);
}

// The number of a window, where it begins.
function badge(context, overlay, colour, colours, { x, area }, topmost) {
  if (overlay.number !== undefined && topmost !== null) {
    const at = Math.min(Math.max(x(overlay.start), area.left) + 10, area.left + area.width - 10);
    const middle = Math.min(Math.max(topmost, area.top + 10), area.top + area.height - 12);
    context.fillStyle = colours.paper;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(at, middle, 9, 0, 7);
    context.fill();
    context.stroke();
    context.fillStyle = colours.ink;
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(String(overlay.number), at, middle + 0.5);
  }
}

function partitions(context, calendar, colours, { y, area }) {
  if (calendar.groups.length < 2) return;
  context.fillStyle = colours.paper;
  for (const group of calendar.groups.slice(1)) context.fillRect(area.left, Math.round(y(group.first)) - 1.5, area.width, 3);
}

function lines(context, view, calendar, colours, { y, area }) {
  context.fillStyle = colours.line;
  for (let row = Math.max(1, Math.ceil(view.r0)); row < Math.min(calendar.rows, view.r1); row += 1) context.fillRect(area.left, Math.round(y(row)), area.width, 1);
}

const STEPS = [300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800];

function marks(view, area) {
  const room = area.width / (view.t1 - view.t0);
  const step = STEPS.find((one) => one * room >= (one >= 86400 ? 74 : 58)) ?? STEPS.at(-1);
  const found = [];
  const date = new Date(view.t0 * 1000);
  date.setHours(0, 0, 0, 0);
  if (step >= 86400) {
    for (; date.getTime() / 1000 < view.t1; date.setDate(date.getDate() + step / 86400)) found.push(date.getTime() / 1000);
  } else {
    // From each local midnight on, so that marks stay at round hours when clocks change
    for (; date.getTime() / 1000 < view.t1; date.setDate(date.getDate() + 1)) {
      const next = new Date(date);
      next.setDate(date.getDate() + 1);
      for (let t = date.getTime() / 1000; t < next.getTime() / 1000 && t < view.t1; t += step) found.push(t);
    }
  }
  return { step, found: found.filter((t) => t >= view.t0) };
}

const atMidnight = (t) => { const d = new Date(t * 1000); return d.getHours() === 0 && d.getMinutes() === 0; };

function ticks(context, view, colours, { x, area }) {
  for (const t of marks(view, area).found) {
    context.globalAlpha = atMidnight(t) ? 0.9 : 0.35;
    context.fillStyle = colours.line;
    context.fillRect(Math.round(x(t)), area.top, 1, area.height);
  }
  context.globalAlpha = 1;
}

function axis(context, view, colours, { x, area, now }) {
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  const showsNow = now >= area.left && now <= area.left + area.width;
  let free = area.left - 4;
  if (showsNow) {
    context.fillStyle = colours.now;
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText("now", Math.max(now, area.left + 14), AXIS / 2);
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "left";
  }
  for (const t of marks(view, area).found) {
    const midnight = atMidnight(t);
    const text = midnight ? dayText(t) : clockText(t);
    const at = x(t);
    const wide = context.measureText(text).width;
    if (at < free || at + wide > area.left + area.width + 4 || (showsNow && at < now + 22 && at + wide > now - 22)) continue;
    context.fillStyle = midnight ? colours.ink : colours.soft;
    context.fillText(text, at, AXIS / 2);
    free = at + wide + 10;
  }
}

function labels(context, calendar, view, colours, { y, rowHeight, area }) {
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillStyle = colours.soft;
  context.font = "11px system-ui, sans-serif";
  const most = area.left - 10;
  if (rowHeight >= 12) {
    for (let row = Math.max(0, Math.floor(view.r0)); row < Math.min(calendar.rows, view.r1); row += 1) {
      const middle = y(row + 0.5);
      if (middle > area.top + 4) context.fillText(shortened(context, calendar.names[row], most), area.left - 6, middle);
    }
    return;
  }
  for (const group of calendar.groups) {
    const top = Math.max(y(group.first), area.top);
    const bottom = Math.min(y(group.last + 1), area.top + area.height);
    if (bottom - top < 12) continue;
    const text = group.name || `${calendar.rows} nodes`;
    context.fillText(shortened(context, text, most), area.left - 6, (top + bottom) / 2);
  }
}

function shortened(context, text, most) {
  let shown = text;
  while (shown.length > 2 && context.measureText(shown).width > most) shown = `…${shown.slice(2)}`;
  return shown;
}
