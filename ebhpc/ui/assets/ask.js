// Asking: the form, the picture that follows it, and the same as text.

import { BROKER, ROOT, Refused, USER, ask, read, send, watch } from "./broker.js";
import { Calendar } from "./calendar.js";
import { byId, copy, fill, h, segments, update } from "./dom.js";
import { EMPTY, asCommand, asCurl, build, formOf } from "./request.js";
import { durationText, intervalText, sentence } from "./words.js";

const TYPING = 30;
const NAMES = { notebook: "Notebook", container: "Container", script: "Batch script", time: "Reserved time" };
const UNITS = [["60", "minutes"], ["3600", "hours"], ["86400", "days"]];

let form = { ...EMPTY };
let platforms = [];
let last = null;
let shape = "yaml";
let chosen = null;
let pending = null;
let timer = null;
let typed = 0;
let judged = false;
let marked = [];
const touched = new Set();

const calendar = new Calendar(byId("picture"), { height: 360 });

// --- fields ---

function field(name, label, { path, help, unit, area, options, type = "text", ...more } = {}) {
  const id = `f-${name}`;
  const shared = { id, name, "data-path": path, "aria-describedby": `${id}-help ${id}-wrong`, ...more };
  const change = (event) => { form[name] = event.target.value; touched.add(name); changed(); };
  const control = area ? h("textarea", { ...shared, value: form[name], spellcheck: "false", oninput: change })
    : options ? h("select", { ...shared, onchange: change }, options.map(([value, text]) => h("option", { value, selected: form[name] === value }, text)))
      : h("input", { ...shared, type, value: form[name], spellcheck: "false", autocomplete: "off", oninput: change });
  return h("div", { class: "field" }, h("label", { for: id }, label, unit ? h("span", { class: "unit" }, ` ${unit}`) : null),
    control, h("div", { class: "help", id: `${id}-help` }, help ?? ""), h("div", { class: "wrong", id: `${id}-wrong` }));
}

function whatFields() {
  if (form.kind === "notebook") {
    return [field("location", "Where the notebook is", { path: "/executable/location", type: "url", placeholder: "https://…/analysis.ipynb", help: "An address that the broker can reach." })];
  }
  if (form.kind === "container") {
    return [
      field("image", "Image", { path: "/executable/image/locations", placeholder: "docker.io/library/busybox:stable" }),
      field("digest", "Digest of the image", { path: "/executable/image/digest", placeholder: "sha256:…", help: "What runs is then what you meant." }),
      field("command", "Command", { path: "/executable/command", area: true, help: "One word a line; empty: the image’s own." }),
      field("port", "Port that serves a web page", { path: "/executable/network", inputmode: "numeric", help: "Empty: none. While it runs, the session shows its address." }),
    ];
  }
  if (form.kind === "script") return [field("script", "Script", { path: "/executable/script", area: true, help: "Its first line says what reads it, as #!/bin/bash." })];
  return [
    field("users", "For others, too", { path: "/executable/users", placeholder: "bob, eve", help: "Usernames, with commas between; empty: for you alone." }),
    field("idle", "Give it back when idle for", { path: "/executable/idle_release", unit: "minutes", inputmode: "numeric", help: "Empty: it is kept to its end." }),
  ];
}

function most(of) { return Math.max(0, ...platforms.filter((one) => one.available).map((one) => one[of] ?? 0)); }

function resourceFields() {
  const limit = (value, unit = "") => (value ? `1 to ${value}${unit} a node` : "");
  const nodes = most("up");
  const gpus = Math.max(0, ...platforms.map((one) => Math.max(0, ...Object.entries(one.most_devices ?? {}).filter(([name]) => /gpu/i.test(name)).map(([, n]) => n))));
  const partitions = [...new Set(platforms.flatMap((one) => (one.partitions ?? []).filter((part) => part.open).map((part) => part.name)))];
  return [
    field("cores", "Cores", { path: "/compute/cores", inputmode: "numeric", help: limit(most("most_cores")) }),
    field("memory", "Memory", { path: "/compute/memory", unit: "GiB", inputmode: "numeric", help: limit(most("most_memory")) }),
    nodes > 1 ? field("nodes", "Nodes", { path: "/compute/nodes", inputmode: "numeric", help: `1 to ${nodes}` }) : null,
    gpus > 0 ? field("gpus", "GPUs", { path: "/compute/gpus", inputmode: "numeric", help: `0 to ${gpus} a node` }) : null,
    partitions.length > 1 ? field("partition", "Partition", { path: "/compute/partition", options: [["", "any"], ...partitions.map((name) => [name, name])] }) : null,
  ];
}

function whenFields() {
  const choice = h("div", { class: "segments", role: "radiogroup", "aria-label": "When to start" });
  segments(choice, "when", [["soon", "As soon as possible"], ["any", "Any time"], ["between", "Between"]], form.when, (value) => { form.when = value; layWhen(); changed(); });
  const longest = Math.max(0, ...platforms.map((one) => one.longest ?? 0));
  return [
    h("div", { class: "pair" },
      field("amount", "For how long", { path: "/schedule/requested/duration", inputmode: "decimal", help: longest ? `at most ${durationText(longest)}` : "" }),
      field("unit", "Unit", { options: UNITS })),
    choice,
    form.when === "between"
      ? h("div", { class: "pair" }, field("from", "Start not before", { type: "datetime-local", path: "/schedule/requested/start" }), field("to", "Start not after", { type: "datetime-local" }))
      : h("p", { class: "hint" }, form.when === "soon" ? "Starts within the next day." : "Starts within the next two weeks."),
  ];
}

function extraFields() {
  return [
    field("name", "Name", { path: "/executable/meta/name", maxlength: "200", help: "For you, to find it again." }),
    form.kind === "time" ? null : field("data", "Data", { path: "/data", area: true, help: "One address a line; each is fetched before the start." }),
    form.kind === "time" ? null : field("storage", "Space for files", { path: "/storage", unit: "GiB", inputmode: "numeric", help: "Empty: as little as is needed." }),
    form.kind === "container" || form.kind === "script" ? field("environment", "Environment", { path: "/executable/environment", area: true, help: "One NAME=value a line." }) : null,
  ];
}

const layWhat = () => fill(byId("what"), whatFields());
const layResources = () => fill(byId("resources"), resourceFields());
const layWhen = () => fill(byId("when"), whenFields());
const layExtras = () => fill(byId("extras"), extraFields());

function layKinds() {
  const able = new Set(platforms.filter((one) => one.available).flatMap((one) => one.work ?? []));
  const why = (kind) => (platforms.length && able.size && !able.has(kind) ? "No platform here runs these now" : null);
  segments(byId("kinds"), "kind", Object.entries(NAMES).map(([kind, text]) => [kind, text, why(kind)]), form.kind, (kind) => { form.kind = kind; layWhat(); layExtras(); changed(); });
}

function layAll() {
  layKinds();
  layWhat();
  layResources();
  layWhen();
  layExtras();
}

// --- preview ---

function changed() {
  typed = performance.now();
  judged = false;
  clearTimeout(timer);
  timer = setTimeout(preview, TYPING);
}

// No answer to what was typed before may stand over the answer to what was asked for.
function noPreview() {
  clearTimeout(timer);
  pending?.abort();
  pending = null;
  judged = true;
}

async function preview() {
  pending?.abort();
  const mine = pending = new AbortController();
  const request = build(form, { preview: true });
  try {
    const found = (await ask("/data/preview", { method: "POST", body: request, signal: mine.signal })).document;
    if (mine !== pending) return;
    last = found;
    tellPreview();
    const begun = typed;
    requestAnimationFrame(() => performance.measure("preview", { start: begun, end: performance.now() }));
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Refused)) throw error;
    verdict("no", error.message);
  }
}

function tellPreview() {
  const windows = last.windows;
  tellText();
  markProblems(last.problems);
  if (windows.length) {
    const first = windows[0];
    const where = platforms.length > 1 ? ` on ${first.platform}` : "";
    verdict("yes", first.firm ? `Fits ${intervalText(first.start, first.latest)}${where}` : `Expected to start ${intervalText(first.start, first.latest)}${where}`);
    if (!chosen && calendar.platform !== first.platform) showPlatform(first.platform);
  } else {
    verdict("no", last.problems.length ? "" : sentence(last.messages[0]?.text ?? "It fits nowhere."));
  }
  const here = windows.filter((one) => one.platform === calendar.platform);
  calendar.over(here.map((one, n) => ({ ...one, colour: "fit", number: n + 1 })), { follow: true });
  const loose = last.problems.filter((one) => !placeOf(one.path)).map((one) => h("p", { class: "reason" }, sentence(one.text)));
  const told = windows.length || last.problems.length ? [] : last.messages.slice(1).map((one) => h("p", { class: "reason warn" }, sentence(one.text)));
  update(byId("problems"), loose, told);
}

function verdict(tone, text) {
  byId("verdict").className = `verdict ${tone}`;
  byId("verdict").textContent = text;
}

// The field that a problem is about: that of the longest path above it.
function placeOf(path) {
  if (!path) return null;
  return [...document.querySelectorAll("#ask [data-path]")]
    .filter((control) => path === control.dataset.path || path.startsWith(`${control.dataset.path}/`))
    .sort((a, b) => b.dataset.path.length - a.dataset.path.length)[0] ?? null;
}

function markProblems(problems) {
  marked = problems;
  for (const control of document.querySelectorAll("#ask [data-path]")) {
    control.removeAttribute("aria-invalid");
    byId(`${control.id}-wrong`).textContent = "";
  }
  for (const problem of problems) {
    const control = placeOf(problem.path);
    if (!control) continue;
    control.setAttribute("aria-invalid", "true");
    const told = byId(`${control.id}-wrong`);
    if (!told.textContent.includes(sentence(problem.text))) told.append(told.textContent ? h("br") : "", sentence(problem.text));
    if (byId("more").contains(control)) byId("more").open = true;
  }
}

// --- as text ---

function tellText() {
  if (!last) return;
  const shown = { yaml: () => last.yaml, curl: () => asCurl(last.yaml, BROKER, USER), ebhpc: () => asCommand(last.yaml, BROKER, USER) }[shape]();
  if (byId("text").textContent !== shown) byId("text").textContent = shown; // what is selected of it stays so
}

fill(byId("forms"), [["yaml", "YAML"], ["curl", "curl"], ["ebhpc", "ebhpc"]].map(([name, text]) => h("button", {
  type: "button", role: "tab", id: `form-${name}`, "aria-controls": "text", "aria-selected": String(name === shape), onclick: () => {
    shape = name;
    for (const one of byId("forms").children) one.setAttribute("aria-selected", String(one.id === `form-${name}`));
    tellText();
  } }, text)));
byId("copy").addEventListener("click", () => copy(byId("text").textContent, byId("copy")));

async function takeFile(file) {
  try {
    const answer = await send("/data/form", await file.text(), { type: file.name.endsWith(".json") ? "application/json; charset=utf-8" : "application/yaml" });
    const made = formOf(answer.request);
    if (!made) { fill(byId("problems"), h("p", { class: "reason" }, `${file.name} asks for something that this form has no fields for. The command “ebhpc offers” takes it.`)); return; }
    form = made;
    layAll();
    await preview();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fill(byId("problems"), h("p", { class: "reason" }, `${file.name}: ${error.messages[0]?.text ?? error.message}`));
  }
}

byId("file").addEventListener("change", async (event) => {
  if (event.target.files[0]) await takeFile(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
  });
}

// --- the rest ---

function showPlatform(name) {
  calendar.show(name);
  const box = byId("platform-choice");
  if (platforms.length > 1) {
    box.className = "segments small";
    segments(box, "platform", platforms.map((one) => [one.name, one.name, one.available ? null : one.reason]), name, (value) => { chosen = value; showPlatform(value); if (last) tellPreview(); });
  }
}

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("submit");
  button.disabled = true;
  noPreview();
  verdict("", "Asking for offers…");
  try {
    const answer = await send("/data/requests", build(form));
    if (answer.result === "YES") { location.assign(`${ROOT}/offers/${answer.uuid}`); return; }
    verdict("no", "No offer can be made.");
    const told = answer.messages.filter((one) => one.level !== "INFO" || !one.path);
    markProblems(told);
    fill(byId("problems"), told.filter((one) => !placeOf(one.path)).map((one) => h("p", { class: "reason" }, sentence(one.text))));
    document.querySelector("#ask [aria-invalid]")?.focus();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    verdict("no", "");
    markProblems(error.messages);
    const loose = error.messages.filter((one) => !placeOf(one.path)).map((one) => one.text);
    fill(byId("problems"), (loose.length || error.messages.length ? loose : [error.message]).map((text) => h("p", { class: "reason" }, sentence(text))));
  }
  button.disabled = false;
});

// Shown once its fields are all there, so that nothing moves under the reader's eyes.
function reveal() {
  byId("ask").classList.add("ready");
  document.querySelector(".seen").classList.add("ready");
}

async function begin() {
  setTimeout(reveal, 5000);
  const like = new URLSearchParams(location.search).get("like");
  layAll();
  if (like && /^[0-9a-f-]{36}$/.test(like)) {
    try {
      form = formOf((await read(`/data/sessions/${like}/request`)).request) ?? form;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fill(byId("problems"), h("p", { class: "reason" }, error.message));
    }
    layAll();
  }
  let before = "";
  watch("/data/platforms", (found) => {
    reveal();
    if (!found) return;
    platforms = found.platforms;
    // Limits have changed: the fields say so, and stay where they are under somebody's hands
    const limits = JSON.stringify(platforms.map(({ taken, running, waiting, ...rest }) => rest));
    if (limits !== before) {
      before = limits;
      layKinds();
      update(byId("resources"), resourceFields());
      update(byId("when"), whenFields());
      markProblems(marked);
      const cores = platforms.reduce((sum, one) => sum + (one.cores ?? 0), 0);
      byId("capacity").textContent = platforms.map((one) => (one.available ? `${one.name}: ${one.cores.toLocaleString()} cores on ${one.nodes.toLocaleString()} ${one.nodes === 1 ? "node" : "nodes"}` : `${one.name}: not available now`)).join(" · ") || `${cores} cores`;
    }
    if (!calendar.platform) {
      const first = platforms.find((one) => one.available) ?? platforms[0];
      if (first) showPlatform(first.name);
      if (!judged) preview();
    }
  }, () => 30);
}

begin();
