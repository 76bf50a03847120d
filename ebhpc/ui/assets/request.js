// A request as the broker wants it, from what the form holds, and back. What the form has no field for is kept as it came.

import { isoDuration, isoMoment, secondsOf } from "./words.js";

const STANDARD = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/";
const OWN = "https://ebhpc.org/kinds/v1/";
export const KINDS = {
  notebook: `${STANDARD}executable/jupyter-notebook.yaml`,
  container: `${STANDARD}executable/docker-container.yaml`,
  script: `${OWN}executable/batch-script`,
  time: `${OWN}executable/reserved-time`,
};
const SIMPLE = `${STANDARD}compute/simple-compute-resource.yaml`;
const CLUSTER = `${OWN}compute/cluster-compute-resource`;
const DATA = `${STANDARD}data/simple-data-resource.yaml`;
const STORAGE = `${STANDARD}storage/simple-storage-resource.yaml`;

export const EMPTY = {
  kind: "notebook", location: "", image: "", digest: "", command: "", port: "", script: "#!/bin/sh\n", users: "", idle: "",
  cores: "1", memory: "1", nodes: "1", gpus: "0", partition: "", amount: "1", unit: "3600", when: "soon", from: "", to: "",
  name: "", data: "", storage: "", environment: "", rest: null,
};

// What stands in for a field that is still empty, so that the picture can show where such a thing would fit.
const STAND_IN = {
  location: "https://example.org/your-notebook.ipynb",
  image: "docker.io/library/busybox:stable",
  digest: `sha256:${"0".repeat(64)}`,
};

const DAY = 86400;
const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
const whole = (text) => (/^\s*\d+\s*$/.test(text) ? Number(text) : text.trim() === "" ? undefined : text.trim());

export function build(form, { preview = false, now = Date.now() / 1000 } = {}) {
  const request = form.rest ? structuredClone(form.rest) : {};
  const given = (name) => form[name].trim() || (preview ? STAND_IN[name] : "");
  const old = request.executable?.kind === KINDS[form.kind] ? request.executable : {};
  const executable = { ...old, kind: KINDS[form.kind] };
  const set = (key, value) => { if (value === undefined || value === "" || (Array.isArray(value) && !value.length)) delete executable[key]; else executable[key] = value; };
  const meta = { ...executable.meta, name: form.name.trim() };
  if (!meta.name) delete meta.name;
  set("meta", Object.keys(meta).length ? meta : undefined);
  if (form.kind === "notebook") set("location", given("location"));
  if (form.kind === "container") {
    executable.image = { platform: { architecture: "amd64", os: "linux" }, ...executable.image, locations: given("image") ? [given("image")] : [], digest: given("digest") };
    set("command", lines(form.command));
    const port = whole(form.port);
    if (port !== undefined) {
      const before = executable.network?.ports?.[0] ?? { access: true, protocol: "HTTP", path: "/" };
      executable.network = { ports: [{ ...before, internal: { port } }, ...(executable.network?.ports ?? []).slice(1)] };
    } else delete executable.network;
  }
  if (form.kind === "script") set("script", form.script);
  if (form.kind === "time") {
    set("users", lines(form.users.replaceAll(",", "\n")));
    set("idle_release", form.idle && form.idle !== "0" ? isoDuration(Number(form.idle) * 60) : undefined);
  }
  if (form.kind === "container" || form.kind === "script") {
    const environment = Object.fromEntries(lines(form.environment).map((line) => { const at = line.indexOf("="); return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)]; }));
    set("environment", Object.keys(environment).length ? environment : undefined);
  }
  request.executable = executable;
  request.compute = compute(form, request.compute);
  const locations = form.kind === "time" ? [] : lines(form.data);
  const known = Array.isArray(request.data) ? request.data : [];
  const others = known.filter((one) => one?.kind !== DATA);
  const data = [...others, ...locations.map((location) => known.find((one) => one?.location === location) ?? { kind: DATA, location })];
  if (data.length) request.data = data; else delete request.data;
  const size = whole(form.storage);
  if (size !== undefined && form.kind !== "time") {
    const before = Array.isArray(request.storage) ? request.storage : [];
    request.storage = [{ kind: STORAGE, meta: { name: "work" }, ...before[0], size: { ...before[0]?.size, min: size } }, ...before.slice(1)];
  } else if (size === undefined) delete request.storage;
  request.schedule = { requested: schedule(form, now) };
  return request;
}

function compute(form, before) {
  const nodes = whole(form.nodes);
  const gpus = whole(form.gpus);
  const old = before && typeof before === "object" ? before : {};
  const cluster = (nodes !== undefined && nodes !== 1) || (gpus !== undefined && gpus !== 0) || form.partition || (old.kind && old.kind !== SIMPLE);
  const made = { ...old, kind: cluster ? (old.kind && old.kind !== SIMPLE ? old.kind : CLUSTER) : SIMPLE };
  const least = (value, range) => (value === undefined ? undefined : { ...(typeof value === "number" && range?.max >= value ? { max: range.max } : {}), min: value });
  made.cores = least(whole(form.cores), old.cores);
  made.memory = least(whole(form.memory), old.memory);
  if (cluster) {
    made.nodes = least(nodes, old.nodes);
    if (gpus) made.gpus = { ...old.gpus, min: gpus, max: gpus }; else delete made.gpus;
    if (form.partition) made.partition = form.partition; else delete made.partition;
  }
  for (const key of ["cores", "memory", "nodes"]) if (made[key] === undefined) delete made[key];
  return made;
}

function schedule(form, now) {
  const amount = Number(form.amount);
  const requested = {};
  if (form.amount.trim() !== "") requested.duration = Number.isFinite(amount) && amount > 0 ? isoDuration(amount * Number(form.unit)) : form.amount.trim();
  const begin = Math.floor(now / 60) * 60;
  if (form.when === "soon") requested.start = `${isoMoment(begin)}/${isoMoment(begin + DAY)}`;
  else if (form.when === "any") requested.start = `${isoMoment(begin)}/${isoMoment(begin + 14 * DAY)}`;
  else {
    const from = form.from ? new Date(form.from).getTime() / 1000 : begin;
    const to = form.to ? new Date(form.to).getTime() / 1000 : from + DAY;
    requested.start = `${isoMoment(from)}/${isoMoment(to)}`;
  }
  return requested;
}

const text = (value) => (value === undefined || value === null ? "" : String(value));

// What a request's document fills into the form; null where it is no request at all.
export function formOf(request) {
  if (!request || typeof request !== "object" || Array.isArray(request)) return null;
  const executable = request.executable && typeof request.executable === "object" ? request.executable : {};
  const kind = Object.keys(KINDS).find((name) => KINDS[name] === executable.kind);
  if (!kind) return null;
  const asked = request.compute ?? {};
  const requested = request.schedule?.requested ?? {};
  const seconds = secondsOf(requested.duration);
  const unit = seconds === null ? 3600 : seconds % 3600 === 0 ? 3600 : 60;
  const [from, to] = text(requested.start).split("/").map((part) => Date.parse(part));
  const local = (t) => (Number.isNaN(t) || t === undefined ? "" : new Date(t - new Date(t).getTimezoneOffset() * 60000).toISOString().slice(0, 16));
  const between = !Number.isNaN(from ?? NaN) && !Number.isNaN(to ?? NaN) && from > Date.now() + 120000;
  return {
    ...EMPTY, kind, rest: request,
    name: text(executable.meta?.name), location: text(executable.location),
    image: text(executable.image?.locations?.[0]), digest: text(executable.image?.digest),
    command: (Array.isArray(executable.command) ? executable.command : []).join("\n"),
    port: text(executable.network?.ports?.[0]?.internal?.port), script: text(executable.script) || EMPTY.script,
    users: (Array.isArray(executable.users) ? executable.users : []).join(", "),
    idle: executable.idle_release ? text((secondsOf(executable.idle_release) ?? 0) / 60) : "",
    environment: Object.entries(executable.environment ?? {}).map(([key, value]) => `${key}=${value}`).join("\n"),
    cores: text(asked.cores?.min) || "1", memory: text(asked.memory?.min) || "1", nodes: text(asked.nodes?.min) || "1",
    gpus: text(asked.gpus?.min) || "0", partition: text(asked.partition),
    amount: seconds === null ? text(requested.duration) || "1" : text(seconds / unit), unit: String(unit),
    when: between ? "between" : requested.start && to - Date.now() > 2 * DAY * 1000 ? "any" : "soon",
    from: between ? local(from) : "", to: between ? local(to) : "",
    data: (Array.isArray(request.data) ? request.data : []).filter((one) => one?.kind === DATA).map((one) => text(one.location)).join("\n"),
    storage: text(request.storage?.[0]?.size?.min),
  };
}

// --- as text -------------------------------------------------------------------------------------------------------

const quoted = (word) => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

// The lines of a text as input of a command, whatever they say: no line of it is the mark at its end.
function here(yaml) {
  let mark = "EOF";
  while (yaml.split("\n").includes(mark)) mark += "_";
  return `<<'${mark}'\n${yaml.endsWith("\n") ? yaml : `${yaml}\n`}${mark}`;
}

export function asCurl(yaml, broker, user) {
  return `curl --user ${quoted(user)} --location-trusted \\\n  --header 'Content-Type: application/yaml' --header 'Accept: application/yaml' \\\n  --data-binary @- ${quoted(`${broker}/requests`)} ${here(yaml)}`;
}

export function asCommand(yaml, broker, user) {
  return `export EBHPC_URL=${quoted(broker)} EBHPC_USER=${quoted(user)}\nebhpc offers - ${here(yaml)}`;
}
