// For operators: is all well, what is everybody doing, what happened last.

import { ROOT, Refused, send, watch } from "./broker.js";
import { byId, h, update } from "./dom.js";
import { row } from "./sessions.js";
import { agoText, durationText, exactText, momentText, now, phaseText, secondsOf } from "./words.js";

const STALE = 60;

// A table with a row for each item; `key` tells one from the others.
function table(caption, names, items, cellsOf, key = (one) => Object.values(one).join(" ")) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {}, h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, items.map((one) => h("tr", { "data-key": key(one) }, cellsOf(one).map((cell) => h("td", {}, cell)))))));
}

watch("/data/operations", (found, error) => {
  if (error) { byId("lead").textContent = error.message; return; }
  const silent = found.platforms.filter((one) => one.reason);
  const gone = found.drivers.filter((one) => now() - one.heartbeat > STALE);
  const troubles = silent.length + (found.drivers.length === gone.length ? 1 : 0);
  byId("lead").textContent = troubles ? "Something needs a look." : "All is well.";
  update(byId("health"), found.platforms.map((one) => h("article", { class: "card stack", "data-key": `platform ${one.name}` }, h("div", { class: "card-head" }, h("h2", {}, one.name), h("span", { class: `tag ${one.reason ? "bad" : "good"}` }, one.reason ? "not available" : "available")),
    h("p", { class: "hint" }, one.reason ?? `State taken ${agoText(one.taken)}.`))),
  found.drivers.map((one) => h("article", { class: "card stack", "data-key": `driver ${one.name}` }, h("div", { class: "card-head" }, h("h2", {}, `Driver ${one.name}`), h("span", { class: `tag ${gone.includes(one) ? "bad" : "good"}` }, gone.includes(one) ? "silent" : "works")),
    h("p", { class: "hint" }, `On ${one.host}, process ${one.pid}; last heard ${agoText(one.heartbeat)}.`))),
  found.drivers.length ? null : h("article", { class: "card" }, h("h2", {}, "No driver"), h("p", { class: "hint" }, "Nobody moves the sessions: start “ebhpc drive”.")));
  update(byId("counts"), found.phases.length ? table("Sessions by platform and phase", ["Platform", "Phase", "Sessions"], found.phases, (one) => [one.platform, phaseText(one.phase), String(one.count)], (one) => `${one.platform} ${one.phase}`) : h("p", { class: "hint" }, "There are none yet."));
  update(byId("trail"), found.events.length ? table("Moves of sessions, the last one first", ["When", "Session", "Whose", "Platform", "Move", "Why"], found.events, (one) => [
    h("time", { title: exactText(one.time) }, momentText(one.time)), h("a", { class: "mono", href: `${ROOT}/sessions/${one.session}` }, one.session.slice(0, 8)), one.user, one.platform, `${phaseText(one.from)} → ${phaseText(one.to)}`, one.cause]) : h("p", { class: "hint" }, "Nothing yet."));
  update(byId("audit"), found.audit.length ? table("Who did what, the last deed first", ["When", "Who", "From", "Did", "To what", "Result", "More"], found.audit, (one) => [
    h("time", { title: exactText(one.time) }, momentText(one.time)), one.user || "somebody unknown", one.address, one.count > 1 ? `${one.action} (${one.count} times)` : one.action, one.object, one.result, one.detail]) : h("p", { class: "hint" }, "Nothing yet."));
}, () => 5);

// --- approvals ---

const box = byId("approvals");
const reasons = new Map(); // what is typed of each, by session
const answers = new Map(); // what came of a decision: {text, done}
let open = [];
let listed = [];

async function decide(uuid, decision) {
  const reason = (reasons.get(uuid) ?? "").trim();
  answers.set(uuid, { text: "One moment…", done: true });
  layApprovals();
  try {
    await send(`/data/approvals/${uuid}`, { decision, ...(reason ? { reason } : {}) });
    answers.set(uuid, { text: decision === "approve" ? "Approved." : "Refused.", done: true });
    reasons.delete(uuid);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    answers.set(uuid, { text: error.message, done: false });
  }
  layApprovals();
  watched.look();
}

// What is new stands at the end, and what has gone stays below a pointer that may be about to click: nobody approves something
// else than was meant because it has just moved there.
function takeApprovals() {
  const still = new Set(open.map((one) => one.session));
  if (box.matches(":hover")) {
    for (const { session } of listed) if (!still.has(session) && !answers.get(session)?.done) answers.set(session, { text: "This has been decided, or is no longer wanted.", done: true });
  } else {
    listed = listed.filter((one) => still.has(one.session));
    for (const session of [...answers.keys(), ...reasons.keys()]) if (!still.has(session)) { answers.delete(session); reasons.delete(session); }
  }
  const there = new Set(listed.map((one) => one.session));
  listed.push(...open.filter((one) => !there.has(one.session)));
  layApprovals();
}

function approval({ session, name, owner, nodes, platform, start, duration, deadline }) {
  const { text = "", done = false } = answers.get(session) ?? {};
  return h("article", { class: "stack approval", "data-key": session },
    h("p", {}, h("a", { href: `${ROOT}/sessions/${session}` }, name || "Session"), ` of ${owner}: ${nodes.length} ${nodes.length === 1 ? "node" : "nodes"} of ${platform}, ${momentText(Date.parse(start) / 1000)}, for ${durationText(secondsOf(duration) ?? 0)}. To be decided by ${momentText(Date.parse(deadline) / 1000)}.`),
    h("div", { class: "actions" },
      h("input", { id: `reason-${session}`, maxlength: "500", "aria-label": "Reason, for the user", placeholder: "Reason (optional)", value: reasons.get(session) ?? "", disabled: done, oninput: (event) => reasons.set(session, event.target.value) }),
      h("button", { type: "button", class: "primary", disabled: done, onclick: () => decide(session, "approve") }, "Approve"),
      h("button", { type: "button", class: "danger", disabled: done, onclick: () => decide(session, "refuse") }, "Refuse")),
    h("p", { class: "hint", role: "status" }, text));
}

function layApprovals() {
  byId("approvals-card").hidden = !listed.length;
  update(box, listed.map(approval));
}

box.addEventListener("pointerleave", takeApprovals);
const watched = watch("/data/approvals", (found) => { if (found) { open = found.approvals; takeApprovals(); } }, () => 10);

watch("/data/sessions?everybody=true", (page) => {
  if (page) update(byId("everybody"), page.sessions.length ? page.sessions.map((one) => row(one, true)) : h("p", { class: "hint" }, "There are none yet."));
}, () => 10);
