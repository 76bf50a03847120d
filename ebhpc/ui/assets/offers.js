// The offers of a set: as cards, on the picture, to be taken or declined before they expire.

import { LIFETIME, ROOT, Refused, move, watch } from "./broker.js";
import { Calendar } from "./calendar.js";
import { byId, h, segments, update } from "./dom.js";
import { durationText, figuresOf, intervalText, momentText, now, phaseText, phaseTone, sentence, sharesText } from "./words.js";

const uuid = location.pathname.split("/").pop();
let found = null;
let calendar = null;
let shown = null;
let busy = false;
let trouble = ""; // why the last decision came to nothing

function whenText(offer) {
  if (offer.firm) return offer.latest > offer.start
    ? `Its start is kept for you: the moment lies between ${intervalText(offer.start, offer.latest)}, sooner the sooner you accept.`
    : "Its start is kept for you.";
  const tenths = Math.round((offer.confidence ?? 0.8) * 10);
  return `It waits in the queue: ${tenths} of 10 start between ${intervalText(offer.start, offer.latest)}, most likely around ${momentText(offer.expected ?? offer.start)}.`;
}

function card(offer, number, best) {
  const open = offer.phase === "OFFERED" && offer.expires > now();
  const figures = figuresOf(offer);
  return h("article", { id: `card-${number}`, class: `card offer${best ? " best" : ""}${open ? "" : " over"}`, tabindex: "-1", "aria-labelledby": `offer-${number}` },
    h("div", { class: "card-head" }, h("span", { class: "tag" }, `Offer ${number}`, best ? " · earliest" : ""), h("span", { class: `tag ${offer.firm ? "good" : "warn"}` }, offer.firm ? "kept start" : "expected start")),
    h("div", {}, h("div", { class: "start", id: `offer-${number}` }, offer.firm ? intervalText(offer.start, offer.latest) : `around ${momentText(offer.expected ?? offer.start)}`),
      h("p", { class: "hint" }, whenText(offer))),
    h("dl", { class: "facts" }, h("dt", {}, "For"), h("dd", {}, durationText(offer.duration)), h("dt", {}, "With"), h("dd", {}, sharesText(offer.shares)), h("dt", {}, "On"), h("dd", {}, offer.platform),
      figures.map((one) => [h("dt", {}, one.label), h("dd", { title: one.description || null }, one.text)])),
    offer.messages.map((one) => h("p", { class: `reason ${one.level === "INFO" ? "info" : "warn"}` }, sentence(one.text))),
    open ? [
      h("div", { class: "meter", "aria-hidden": "true" }, bar(offer, number)),
      h("p", { class: "hint" }, "Open for ", h("span", { class: "left", id: `left-${number}` }, durationText(Math.max(offer.expires - now(), 0)))),
      h("div", { class: "actions" }, h("button", { type: "button", class: "primary", id: `accept-${number}`, disabled: busy, onclick: () => decide(offer, "ACCEPTED") }, "Accept"),
        h("button", { type: "button", id: `reject-${number}`, disabled: busy, onclick: () => decide(offer, "REJECTED") }, "Decline")),
    ] : h("p", {}, h("span", { class: `tag ${phaseTone(offer.phase)}` }, offer.phase === "OFFERED" ? "Expired" : phaseText(offer.phase)), " ",
      ["EXPIRED", "REJECTED", "OFFERED"].includes(offer.phase) ? "" : h("a", { href: `${ROOT}/sessions/${offer.uuid}` }, "Open the session")));
}

function bar(offer, number) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 4");
  svg.setAttribute("preserveAspectRatio", "none");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("height", "4");
  rect.setAttribute("id", `meter-${number}`);
  rect.setAttribute("width", String(share(offer)));
  svg.append(rect);
  return svg;
}

const share = (offer) => Math.max(0, Math.min(100, ((offer.expires - now()) / Math.max(LIFETIME, 1)) * 100));

async function decide(offer, phase) {
  const at = found.offers.findIndex((one) => one.uuid === offer.uuid) + 1;
  busy = true;
  trouble = "";
  show();
  try {
    await move(offer.uuid, phase);
    if (phase === "ACCEPTED") { location.assign(`${ROOT}/sessions/${offer.uuid}`); return; }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    trouble = error.status === 409 ? `Too late: ${error.message}` : error.message;
  }
  busy = false;
  await watched.look();
  show();
  if (document.activeElement === document.body) byId(`card-${at}`)?.focus(); // the button that had it has gone
}

function show() {
  if (!found) return;
  const offers = found.offers;
  const open = offers.filter((one) => one.phase === "OFFERED" && one.expires > now());
  const taken = offers.find((one) => !["OFFERED", "REJECTED", "EXPIRED"].includes(one.phase));
  const like = offers[0] ? `${ROOT}/?like=${offers[0].uuid}` : `${ROOT}/`;
  if (!offers.length) {
    byId("lead").textContent = "No, this cannot run here now.";
    update(byId("reasons"), found.messages.map((one) => h("p", { class: "reason" }, sentence(one.text))), h("p", {}, h("a", { class: "button", href: `${ROOT}/` }, "Ask for something else")));
    return;
  }
  update(byId("lead"), taken ? ["One of them is yours. ", h("a", { href: `${ROOT}/sessions/${taken.uuid}` }, "Open the session")]
    : open.length ? `${open.length === 1 ? "One offer is" : `${open.length} offers are`} kept for you for a while. Take one; the others are given back.`
      : ["None of them is open any more. ", h("a", { href: like }, "Ask again")]);
  const best = open.length > 1 ? open.reduce((a, b) => (b.start < a.start ? b : a)) : null;
  update(byId("cards"), offers.map((offer, n) => card(offer, n + 1, offer === best)));
  update(byId("reasons"), trouble ? h("p", { class: "alert", role: "alert" }, trouble) : null,
    !open.length || taken ? null : [found.messages.filter((one) => one.level !== "INFO").map((one) => h("p", { class: "reason warn" }, sentence(one.text))),
      h("p", { class: "hint" }, "Nothing suits? ", h("a", { href: like }, "Ask for others"), ".")]);
  picture(offers);
}

function picture(offers) {
  const names = [...new Set(offers.map((one) => one.platform))];
  if (!shown) shown = names[0];
  byId("picture-card").hidden = false;
  calendar ??= new Calendar(byId("picture"), { height: 320 });
  calendar.show(shown);
  if (names.length > 1) {
    byId("platform-choice").className = "segments small";
    segments(byId("platform-choice"), "platform", names.map((name) => [name, name]), shown, (name) => { shown = name; drawn = ""; picture(offers); });
  }
  const key = shown + offers.map((one) => one.uuid + one.phase).join();
  if (key === drawn) return;
  const first = drawn === "";
  drawn = key;
  calendar.over(offers.map((one, n) => ({ ...one, number: n + 1, colour: "offer", strong: true }))
    .filter((one) => one.platform === shown && !["REJECTED", "EXPIRED"].includes(one.phase)), { follow: first });
}
let drawn = "";

const watched = watch(`/data/offersets/${uuid}`, (document_, error) => {
  if (error) {
    byId("lead").textContent = error.status === 404 ? "There are no such offers, or no more." : error.message;
    return;
  }
  found = document_;
  show();
}, (last) => (last.offers.some((one) => one.phase === "OFFERED") ? 3 : null));

// The time left, told each second without laying the cards anew; when it is over, the cards say so.
setInterval(() => {
  if (!found || document.hidden) return;
  let over = false;
  found.offers.forEach((offer, n) => {
    const left = byId(`left-${n + 1}`);
    if (!left) return;
    const seconds = offer.expires - now();
    if (seconds <= 0) over = true;
    left.textContent = durationText(Math.max(seconds, 0));
    byId(`meter-${n + 1}`)?.setAttribute("width", String(share(offer)));
  });
  if (over) { show(); watched.look(); }
}, 1000);
