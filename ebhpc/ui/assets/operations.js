// For operators: is all well, what is everybody doing, what happened last.

import { ROOT, Refused, send, watch } from "./broker.js";
import { byId, fill, h } from "./dom.js";
import { row } from "./sessions.js";
import { agoText, durationText, exactText, momentText, now, phaseText, secondsOf } from "./words.js";

const STALE = 60;

function table(caption, names, rows) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, h("table", {}, h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell)))))));
}

watch("/data/operations", (found, error) => {
  if (error) { byId("lead").textContent = error.message; return; }
  const silent = found.platforms.filter((one) => one.reason);
  const gone = found.drivers.filter((one) => now() - one.heartbeat > STALE);
  const troubles = silent.length + (found.drivers.length === gone.length ? 1 : 0);
  byId("lead").textContent = troubles ? "Something needs a look." : "All is well.";
  fill(byId("health"), found.platforms.map((one) => h("article", { class: "card stack" }, h("div", { class: "card-head" }, h("h2", {}, one.name), h("span", { class: `tag ${one.reason ? "bad" : "good"}` }, one.reason ? "not available" : "available")),
    h("p", { class: "hint" }, one.reason ?? `State taken ${agoText(one.taken)}.`))),
  found.drivers.map((one) => h("article", { class: "card stack" }, h("div", { class: "card-head" }, h("h2", {}, `Driver ${one.name}`), h("span", { class: `tag ${gone.includes(one) ? "bad" : "good"}` }, gone.includes(one) ? "silent" : "works")),
    h("p", { class: "hint" }, `On ${one.host}, process ${one.pid}; last heard ${agoText(one.heartbeat)}.`))),
  found.drivers.length ? null : h("article", { class: "card" }, h("h2", {}, "No driver"), h("p", { class: "hint" }, "Nobody moves the sessions: start “ebhpc drive”.")));
  fill(byId("counts"), found.phases.length ? table("Sessions by platform and phase", ["Platform", "Phase", "Sessions"], found.phases.map((one) => [one.platform, phaseText(one.phase), String(one.count)])) : h("p", { class: "hint" }, "There are none yet."));
  fill(byId("trail"), found.events.length ? table("Moves of sessions, the last one first", ["When", "Session", "Whose", "Platform", "Move", "Why"], found.events.map((one) => [
    h("time", { title: exactText(one.time) }, momentText(one.time)), h("a", { class: "mono", href: `${ROOT}/sessions/${one.session}` }, one.session.slice(0, 8)), one.user, one.platform, `${phaseText(one.from)} → ${phaseText(one.to)}`, one.cause])) : h("p", { class: "hint" }, "Nothing yet."));
  fill(byId("audit"), found.audit.length ? table("Who did what, the last deed first", ["When", "Who", "From", "Did", "To what", "Result", "More"], found.audit.map((one) => [
    h("time", { title: exactText(one.time) }, momentText(one.time)), one.user || "somebody unknown", one.address, one.count > 1 ? `${one.action} (${one.count} times)` : one.action, one.object, one.result, one.detail])) : h("p", { class: "hint" }, "Nothing yet."));
}, () => 5);

function approvals(found) {
  byId("approvals-card").hidden = !found.approvals.length;
  fill(byId("approvals"), found.approvals.map((one) => {
    const reason = h("input", { id: `reason-${one.session}`, maxlength: "500", "aria-label": "Reason, for the user", placeholder: "Reason (optional)", value: reasons.get(one.session) ?? "", oninput: (event) => reasons.set(one.session, event.target.value) });
    const said = h("p", { class: "hint", role: "status" });
    const decide = async (decision) => {
      try {
        await send(`/data/approvals/${one.session}`, { decision, ...(reason.value.trim() ? { reason: reason.value.trim() } : {}) });
        reasons.delete(one.session);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        said.textContent = error.message;
        return;
      }
      watched.look();
    };
    return h("article", { class: "stack approval" },
      h("p", {}, h("a", { href: `${ROOT}/sessions/${one.session}` }, one.name || "Session"), ` of ${one.owner}: ${one.nodes.length} ${one.nodes.length === 1 ? "node" : "nodes"} of ${one.platform}, ${momentText(Date.parse(one.start) / 1000)}, for ${durationText(secondsOf(one.duration) ?? 0)}. To be decided by ${momentText(Date.parse(one.deadline) / 1000)}.`),
      h("div", { class: "actions" }, reason, h("button", { type: "button", class: "primary", onclick: () => decide("approve") }, "Approve"), h("button", { type: "button", class: "danger", onclick: () => decide("refuse") }, "Refuse")), said);
  }));
}
const reasons = new Map();
const watched = watch("/data/approvals", (found) => { if (found) approvals(found); }, () => 10);

watch("/data/sessions?everybody=true", (page) => {
  if (page) fill(byId("everybody"), page.sessions.length ? page.sessions.map((one) => row(one, true)) : h("p", { class: "hint" }, "There are none yet."));
}, () => 10);
