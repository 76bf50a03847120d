// A user's sessions, newest first.

import { ROOT, Refused, read, send, watch } from "./broker.js";
import { byId, copy, fill, h, segments, update } from "./dom.js";
import { durationText, intervalText, kindText, momentText, phaseText, phaseTone } from "./words.js";

const GROUPS = [["all", "All"], ["live", "Now and coming"], ["offers", "Offers"], ["ended", "Ended"], ["over", "Declined or expired"]];
let group = "all";
let watched = null;
let older = [];
let following = null;

export function row(session, withOwner = false) {
  const open = session.phase === "OFFERED";
  const when = session.started ? `started ${momentText(session.started)}${session.ended ? `, ran ${durationText(session.ended - session.started)}` : ""}`
    : ["REJECTED", "EXPIRED", "CANCELLED", "FAILED"].includes(session.phase) ? `asked ${momentText(session.created)}`
      : session.firm ? `starts ${intervalText(session.start, session.latest)}` : `expected ${intervalText(session.start, session.latest)}`;
  return h("a", { class: "rowlink", "data-key": session.uuid, href: open ? `${ROOT}/offers/${session.offerset}` : `${ROOT}/sessions/${session.uuid}` },
    h("span", { class: "headline" }, session.name || session.what || kindText(session.kind)),
    h("span", { class: `tag ${phaseTone(session.phase)}` }, phaseText(session.phase)),
    h("span", { class: "sub" }, [withOwner ? session.owner : null, kindText(session.kind), session.platform, when, `for ${durationText(session.duration)}`].filter(Boolean).join(" · ")));
}

function show(page) {
  following = older.length ? following : page.following;
  const all = [...page.sessions, ...older.filter((one) => !page.sessions.some((other) => other.uuid === one.uuid))];
  byId("lead").textContent = all.length ? `Newest first.` : "There are none yet.";
  update(byId("list"), all.length ? all.map((one) => row(one)) : h("p", { class: "empty" }, group === "all" ? ["Nothing here yet. ", h("a", { href: `${ROOT}/` }, "Ask for the first one"), "."] : "None of these."));
  byId("older").hidden = !following;
}

const moving = (page) => (page.sessions.some((one) => ["ACCEPTED", "PREPARING", "RELEASING"].includes(one.phase)) ? 3 : 10);

function choose(name) {
  group = name;
  older = [];
  watched?.stop();
  segments(byId("groups"), "group", GROUPS, group, choose);
  let last = null;
  watched = watch(`/data/sessions?of=${group}`, (page) => { if (page && group === name) { last = page; show(page); } }, moving);
  byId("older").onclick = async () => {
    const more = await read(`/data/sessions?of=${group}&after=${following}`);
    older = [...older, ...more.sessions];
    following = more.following;
    show(last);
  };
}

async function makeAddress() {
  try {
    const { url } = await send("/data/calendar");
    fill(byId("address"), h("code", { tabindex: "0" }, url), h("button", { type: "button", class: "quiet", onclick: (event) => copy(url, event.currentTarget) }, "Copy"));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    fill(byId("address"), error.message);
  }
}

if (byId("groups")) {
  choose("all");
  byId("calendar").addEventListener("click", makeAddress);
}
