// Moments, durations, sizes and phases in words: the reader's zone and language.

export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

export const now = () => Date.now() / 1000;

export const clockText = (t) => clock.format(t * 1000);
export const dayText = (t) => day.format(t * 1000);
export const exactText = (t) => exact.format(t * 1000);

function dayName(t) {
  const date = new Date(t * 1000);
  const today = new Date();
  const days = Math.round((new Date(date.getFullYear(), date.getMonth(), date.getDate())
    - new Date(today.getFullYear(), today.getMonth(), today.getDate())) / 864e5);
  return days === 0 ? "today" : days === 1 ? "tomorrow" : days === -1 ? "yesterday" : day.format(date);
}

// "today 14:05"
export const momentText = (t) => `${dayName(t)} ${clockText(t)}`;

export function intervalText(start, latest) {
  if (latest - start < 60) return momentText(start);
  return dayName(start) === dayName(latest)
    ? `${momentText(start)} – ${clockText(latest)}`
    : `${momentText(start)} – ${momentText(latest)}`;
}

export function durationText(seconds) {
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor((s % 86400) / 3600), "h"], [Math.floor((s % 3600) / 60), "min"]];
  if (s < 600 && s % 60) parts.push([s % 60, "s"]);
  return parts.filter(([n]) => n).slice(0, 2).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

export function agoText(t) {
  const age = now() - t;
  if (Math.abs(age) < 5) return "just now";
  return age > 0 ? `${durationText(age)} ago` : `in ${durationText(-age)}`;
}

export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes;
  let at = -1;
  do { value /= 1000; at += 1; } while (value >= 1000 && at < units.length - 1);
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

// An ISO 8601 duration to seconds; null: it is none.
export function secondsOf(text) {
  const found = /^P(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?$/.exec(text ?? "");
  if (!found || found[0] === "P") return null;
  const [, w = 0, d = 0, hours = 0, m = 0, s = 0] = found;
  return Number(w) * 604800 + Number(d) * 86400 + Number(hours) * 3600 + Number(m) * 60 + Number(s);
}

export const isoDuration = (seconds) => {
  const s = Math.max(1, Math.round(seconds));
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor((s % 3600) / 60);
  const rest = s % 60;
  return `PT${hours ? `${hours}H` : ""}${minutes ? `${minutes}M` : ""}${rest ? `${rest}S` : ""}`;
};

export const isoMoment = (t) => new Date(t * 1000).toISOString().replace(/\.\d+Z$/, "Z");

export const PHASES = {
  OFFERED: ["Offered", "warn"], ACCEPTED: ["Accepted", "live"], REJECTED: ["Declined", ""], EXPIRED: ["Expired", ""],
  WAITING: ["Waiting", "live"], PREPARING: ["Preparing", "live"], AVAILABLE: ["Ready", "live"], RUNNING: ["Running", "live"],
  RELEASING: ["Cleaning up", "live"], COMPLETED: ["Completed", "good"], FAILED: ["Failed", "bad"], CANCELLED: ["Cancelled", ""],
};
export const phaseText = (phase) => (PHASES[phase] ?? [phase, ""])[0];
export const phaseTone = (phase) => (PHASES[phase] ?? [phase, ""])[1];

// The broker's sentences, with their instants and durations in the reader's words.
export function sentence(text) {
  const told = text
    .replace(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (found) => momentText(Date.parse(found) / 1000))
    .replace(/\bP(?:\d+[WD])*(?:T(?:\d+[HMS])+)\b/g, (found) => { const seconds = secondsOf(found); return seconds === null ? found : durationText(seconds); });
  return told.charAt(0).toUpperCase() + told.slice(1);
}

const KINDS = [["jupyter-notebook", "Notebook"], ["docker-container", "Container"], ["singularity-container", "Container"],
  ["batch-script", "Batch script"], ["reserved-time", "Reserved time"]];
export const kindText = (kind) => (KINDS.find(([end]) => (kind ?? "").includes(end)) ?? ["", "Session"])[1];

// "…cost:monetary" is "monetary", "…/core-hours-used" is "core hours used"
export const labelText = (type) => (type ?? "").split(/[:/]/).pop().replaceAll("-", " ");

export function rangeText({ min, max }) {
  const figure = (n) => (Number.isInteger(n) ? n : Number(n).toPrecision(3)).toLocaleString?.() ?? String(n);
  if (min === undefined && max === undefined) return "";
  if (min === undefined || max === undefined || min === max) return String(figure(min ?? max));
  return `${figure(min)} – ${figure(max)}`;
}

export function sharesText(shares) {
  if (!shares.length) return "";
  const cores = shares.reduce((sum, one) => sum + one.cores, 0);
  const memory = shares.reduce((sum, one) => sum + one.memory, 0);
  const devices = {};
  for (const share of shares) for (const [name, count] of Object.entries(share.devices)) devices[name] = (devices[name] ?? 0) + count;
  const parts = [`${cores} ${cores === 1 ? "core" : "cores"}`, `${memory < 10 ? Number(memory.toFixed(1)) : Math.round(memory)} GiB`,
    ...Object.entries(devices).filter(([, n]) => n).map(([name, n]) => `${n} × ${name}`)];
  if (shares.length > 1) parts.push(`on ${shares.length} nodes`);
  return parts.join(", ");
}

const HOURS = { "queue-delay-sum": "h", "queue-delay-worst": "h", "idle-node-hours": "node-hours", "firm-node-hours": "node-hours", "core-hours-used": "core-hours", "core-hours-unused": "core-hours", energy: "kWh", carbon: "g CO₂", "io-throughput": "MB/s" };
const NAMED = { monetary: "Cost", energy: "Energy", carbon: "Carbon", "compute-performance": "Speed", "io-throughput": "Disk speed", "idle-node-hours": "Idle before it",
  "queue-delay-sum": "Delays others by", "queue-delay-worst": "Delays one by at most", "firm-node-hours": "Charged", "core-hours-used": "Used", "core-hours-unused": "Not used" };

// What it costs and what it does to others, in words; what is nothing is not told.
export function figuresOf({ costs, metrics }) {
  return [...costs, ...metrics].map((one) => {
    const name = (one.type ?? "").split(/[:/]/).pop();
    const text = rangeText(one);
    return { label: NAMED[name] ?? labelText(one.type), text: text && HOURS[name] ? `${text} ${HOURS[name]}` : text, description: one.description, none: !one.min && !one.max };
  }).filter((one) => one.text && !one.none);
}

const zone = document.getElementById("zone");
if (zone) zone.textContent = `Times are in ${ZONE}`;
