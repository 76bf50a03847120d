// One session: its phases as they come, how to reach it, what it says and what it left behind.

import { ROOT, Refused, move, read, watch } from "./broker.js";
import { Calendar } from "./calendar.js";
import { byId, copy, fill, h, safeLink, update, whenReleased } from "./dom.js";
import { agoText, clockText, durationText, exactText, figuresOf, intervalText, kindText, momentText, now, phaseText, sentence, sharesText, sizeText } from "./words.js";

const uuid = location.pathname.split("/").pop();
const WAY = ["ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING", "RELEASING", "COMPLETED"];
const LIVE = WAY.slice(0, -1);
const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const MOST_TEXT = 400000;
const SURE = 8; // seconds that one has for the second click

let session = null;
let calendar = null;
let files = null;
let filesAt = "";
let open = null;
let trouble = ""; // why it could not be cancelled

// --- phases ---

function phases() {
  const ended = ["FAILED", "CANCELLED", "REJECTED", "EXPIRED"].includes(session.phase);
  const shown = ended ? [...WAY.filter((one) => session.moves[one] && one !== "COMPLETED"), session.phase] : WAY;
  const at = shown.indexOf(session.phase);
  return shown.map((phase, n) => {
    const moment = session.moves[phase] ?? (phase === "ACCEPTED" && n < at ? session.created : null);
    const here = phase === session.phase;
    const tone = here ? (phase === "COMPLETED" ? "good" : phase === "FAILED" ? "bad" : ended ? "done" : "now") : n < at ? "done" : "";
    const hint = !moment && phase === "RUNNING" && n > at ? `${session.firm ? "" : "expected "}${intervalText(session.start, session.latest)}` : "";
    return h("li", { "data-key": phase, class: tone, "aria-current": here ? "step" : null }, h("b", {}, phaseText(phase)),
      moment ? h("time", { datetime: new Date(moment * 1000).toISOString(), title: exactText(moment) }, momentText(moment)) : h("span", { class: "muted" }, hint));
  });
}

function lead() {
  const { phase, started, ended, start, latest, firm, duration, exit_code: code } = session;
  const ran = started && ended ? ` It ran ${durationText(ended - started)}.` : "";
  switch (phase) {
    case "OFFERED": return ["This is an offer that is still open. ", h("a", { href: `${ROOT}/offers/${session.offerset}` }, "See the offers")];
    case "ACCEPTED": case "WAITING":
      return firm ? `It starts ${intervalText(start, latest)}, ${agoText(start)}.` : `It waits for its turn; expected to start ${intervalText(start, latest)}.`;
    case "PREPARING": return "Data and images are fetched, so that all is there at the start.";
    case "AVAILABLE": return session.kind?.includes("reserved-time") ? `The resources are kept for you ${intervalText(start, start + duration)}.` : firm ? "All is ready; it starts in a moment." : `It waits in the queue; expected to start ${intervalText(start, latest)}.`;
    case "RUNNING": return started ? `It has been running for ${durationText(now() - started)}; its time ends ${momentText(started + duration)}.` : "It runs.";
    case "RELEASING": return "It has ended; its results are being put away.";
    case "COMPLETED": return `It ended well.${ran}`;
    case "FAILED": return `It failed${code ? ` with the exit code ${code}` : ""}.${ran} What happened stands below.`;
    case "CANCELLED": return `It was cancelled.${ran}`;
    case "EXPIRED": return "Nobody accepted this offer in time.";
    default: return "This offer was declined.";
  }
}

function tellLead() {
  update(byId("lead"), lead(), trouble ? h("span", { class: "alert", role: "alert" }, trouble) : null);
}

// --- all of it ---

function show() {
  byId("name").textContent = session.name || kindText(session.kind);
  document.title = `${phaseText(session.phase)}: ${byId("name").textContent} · ebhpc`;
  tellLead();
  update(byId("phases"), phases());
  update(byId("actions"),
    session.options.includes("CANCELLED") ? h("button", { type: "button", class: "danger", id: "cancel", disabled: ending, onclick: cancel }, cancelText()) : null,
    h("a", { class: "button", id: "again", href: `${ROOT}/?like=${uuid}` }, "Ask again like this"));
  const rows = [["What", `${kindText(session.kind)}${session.what ? `: ${session.what}` : ""}`], ["On", `${session.platform}${session.node ? `, ${session.node}` : ""}`],
    ["With", sharesText(session.shares)], ["For at most", durationText(session.duration)],
    ["Start", session.started ? `${momentText(session.started)} (promised ${intervalText(session.promised?.start ?? session.start, session.promised?.latest ?? session.latest)})` : intervalText(session.start, session.latest)],
    ["End", session.ended ? momentText(session.ended) : null], ["Exit code", session.exit_code === null ? null : String(session.exit_code)],
    ["Results kept until", session.kept_until ? momentText(session.kept_until) : null],
    ...figuresOf(session).map((one) => [one.label, one.text]), ["Identifier", uuid]];
  update(byId("facts"), rows.filter(([, text]) => text).map(([name, text]) => [h("dt", {}, name), h("dd", { class: name === "Identifier" ? "mono" : null }, text)]));
  update(byId("messages"), session.messages.length ? session.messages.map((one, n) => h("li", { "data-key": n, class: one.level },
    one.time ? h("time", { datetime: new Date(one.time * 1000).toISOString(), title: exactText(one.time) }, momentText(one.time)) : h("span", {}), h("span", {}, sentence(one.text)))).reverse()
    : h("li", {}, h("span", { class: "muted" }, "Nothing to tell yet.")));
  reach();
  picture();
  list();
}

function reach() {
  const lines = session.connectors.filter((one) => one.status !== "FINISHED" && (one.location || one.commands?.length)).map((one) => h("div", { class: "stack", "data-key": one.meta?.uuid ?? one.location },
    one.location ? h("p", {}, safeLink(one.location), one.protocol ? h("span", { class: "muted" }, ` ${one.protocol}`) : null) : null,
    (one.commands ?? []).map((command) => h("div", { class: "command", "data-key": command }, h("code", { tabindex: "0" }, command),
      h("button", { type: "button", class: "quiet", onclick: (event) => copy(command, event.currentTarget) }, "Copy")))));
  byId("reach-card").hidden = !lines.length;
  update(byId("reach"), lines);
}

function picture() {
  const live = LIVE.includes(session.phase);
  byId("picture-card").hidden = !live;
  if (!live) return;
  if (!calendar) {
    calendar = new Calendar(byId("picture"), { height: 240, span: Math.min(Math.max((session.end - now()) * 1.4, 21600), 14 * 86400) });
    calendar.show(session.platform, 30);
  }
  if (!session.firm && !session.started) calendar.over([{ ...session, colour: "mine", shares: [] }]);
  else calendar.over([]);
}

// What the button says is told anew by each look, too: whether one is sure is not kept in it.
let sureUntil = 0;
let ending = false;
const cancelText = () => (now() < sureUntil ? "Really? Click again" : session.kind?.includes("reserved-time") ? "Give it back" : "Cancel");

function tellCancel() {
  if (byId("cancel")) { byId("cancel").textContent = cancelText(); byId("cancel").disabled = ending; }
}

async function cancel() {
  if (now() >= sureUntil) {
    sureUntil = now() + SURE;
    tellCancel();
    setTimeout(tellCancel, SURE * 1000 + 50);
    return;
  }
  ending = true;
  trouble = "";
  tellCancel();
  try {
    session = await move(uuid, "CANCELLED");
    show();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    trouble = error.message;
    tellLead();
  }
  ending = false;
  tellCancel();
  watched.look();
}

// --- files ---

async function list() {
  // Looked at anew when the session moves, and now and then while it writes: often at first
  const key = session.phase + (session.phase === "RUNNING" ? Math.floor(now() / (fresh(session) ? 8 : 60)) : "");
  if (key === filesAt) return;
  filesAt = key;
  if (["OFFERED", "REJECTED", "EXPIRED", "ACCEPTED", "WAITING"].includes(session.phase)) {
    update(byId("files"), h("p", { class: "hint" }, "Files appear here once it runs."));
    return;
  }
  try {
    const listed = (await read(`/data/sessions/${uuid}/files`)).outputs;
    if (key !== filesAt) return; // a later look has come first
    files = listed;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (key !== filesAt) return;
    update(byId("files"), h("p", { class: "hint" }, error.message));
    return;
  }
  whenReleased(list, tellFiles);
}

function tellFiles() {
  update(byId("files"), files.length ? h("ul", { class: "files" }, files.map((file) => h("li", { "data-key": file.name },
    h("span", { class: "file" }, h("span", { class: "mono" }, file.name), h("span", { class: "muted" }, ` ${sizeText(file.size)}`)),
    shows(file) ? h("button", { type: "button", class: "quiet", onclick: () => display(file) }, open === file.name ? "Show again" : "Show") : null,
    h("a", { class: "button quiet", href: address(file), download: file.name.split("/").pop() }, "Download")))) : h("p", { class: "hint" }, "It has written nothing yet."));
}

const address = (file) => `${ROOT}/data/sessions/${uuid}/files/${file.name.split("/").map(encodeURIComponent).join("/")}`;
const bare = (file) => file.media_type.split(";")[0].trim().toLowerCase();
const isText = (file) => bare(file).startsWith("text/") || /json|yaml|xml/.test(bare(file));
const isPage = (file) => bare(file) === "text/html" || bare(file) === "application/xhtml+xml";
const shows = (file) => isText(file) || PICTURES.includes(bare(file));

async function display(file) {
  open = file.name;
  const head = h("h3", {}, file.name);
  const box = byId("shown");
  box.className = "shown";
  if (isPage(file)) {
    fill(box, head, h("p", { class: "hint" }, "Shown without its scripts, in a frame of its own that can reach nothing."),
      h("iframe", { sandbox: "", title: file.name, referrerpolicy: "no-referrer", src: `${ROOT}/shown/${uuid}/${file.name.split("/").map(encodeURIComponent).join("/")}` }));
  } else if (PICTURES.includes(bare(file))) {
    fill(box, head, h("img", { src: address(file), alt: `Picture ${file.name}` }));
  } else {
    const pre = h("pre", { tabindex: "0" }, "Fetching…");
    fill(box, head, pre);
    try {
      const { text, more } = await beginning(address(file));
      pre.textContent = text || "It is empty.";
      if (more) box.append(h("p", { class: "hint" }, `These are the first ${sizeText(MOST_TEXT)}. Download it for the rest.`));
    } catch (error) {
      pre.textContent = `It cannot be read now: ${error.message}`;
    }
  }
  box.scrollIntoView({ block: "nearest" });
}

async function beginning(url) {
  const answer = await fetch(url, { credentials: "same-origin", cache: "no-store" });
  if (!answer.ok) throw new Error(`the broker answered ${answer.status}`);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { text, more: false };
    text += decoder.decode(value, { stream: true });
    if (text.length > MOST_TEXT) { reader.cancel(); return { text: text.slice(0, MOST_TEXT), more: true }; }
  }
}

// --- watched ---

const fresh = (one) => now() - (one.started ?? 0) < 60;

// What waits or runs for long is looked at every 15 s: sooner than the broker closes an idle connection (api/server.py).
function pause(last) {
  if (["ACCEPTED", "PREPARING", "RELEASING", "OFFERED"].includes(last.phase)) return 2;
  if (last.phase === "RUNNING") return fresh(last) ? 2 : 15;
  if (["WAITING", "AVAILABLE"].includes(last.phase)) return last.start - now() < 90 ? 2 : 15;
  return null;
}

const watched = watch(`/data/sessions/${uuid}`, (document_, error) => {
  if (error) {
    byId("lead").textContent = error.status === 404 ? "There is no such session, or no more." : error.status === 403 ? "This session is somebody else’s." : error.message;
    return;
  }
  session = document_;
  show();
}, pause);

setInterval(() => { if (session && session.phase === "RUNNING" && !document.hidden) { tellLead(); list(); } }, 1000);
