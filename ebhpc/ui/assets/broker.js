// The broker, asked by the page: who we are goes by the cookie, what changes something bears the page's token.

import { byId, h, update, whenReleased } from "./dom.js";

const { root, token, user, admin, broker, lifetime } = document.body.dataset;
export const ROOT = root;
export const USER = user;
export const ADMIN = admin === "yes";
export const BROKER = broker;
export const LIFETIME = Number(lifetime);

const PATIENCE = 30000;
const SLOW = 1000;

export class Refused extends Error {
  constructor(status, messages, text) {
    super(text);
    this.status = status;
    this.messages = messages;
  }
}

let silent = false;
let waiting = 0;

function works(more) {
  waiting += more;
  document.body.setAttribute("aria-busy", String(waiting > 0));
}

// Say in the line below the bar what is the matter; nothing: all is well again.
export function tell(text, ...more) {
  update(byId("news"), text ? [text, ...more] : []);
}

export async function ask(path, { method = "GET", body, type = "application/json", known, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = type;
  if (method !== "GET") headers["X-CSRF-Token"] = token ?? "";
  if (known) headers["If-None-Match"] = known;
  const limit = AbortSignal.timeout(PATIENCE);
  let counted = 0;
  // A look again at what is shown already is nothing that somebody waits for
  const slow = known ? null : setTimeout(() => { counted = 1; works(1); }, SLOW);
  let answer;
  try {
    answer = await fetch(root + path, {
      method, headers, body: body === undefined ? undefined : type === "application/json" ? JSON.stringify(body) : body,
      credentials: "same-origin", cache: "no-store", redirect: "error", signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    silent = true;
    tell("The broker does not answer. This page goes on trying; what you booked goes on without it.");
    throw new Refused(0, [], "The broker does not answer.");
  } finally {
    clearTimeout(slow);
    works(-counted);
  }
  if (silent && answer.status < 500) {
    silent = false;
    tell("");
  }
  if (answer.status === 304) return { same: true, tag: known };
  if (answer.status === 401) {
    tell("You are no longer signed in. ", h("a", { href: signInAddress() }, "Sign in again"), ".");
    throw new Refused(401, [], "You are no longer signed in.");
  }
  let document_ = null;
  try { document_ = await answer.json(); } catch { /* no document */ }
  if (!answer.ok) {
    const messages = (document_?.messages ?? []).map((one) => ({ text: one.message ?? one.template, path: one.values?.path, level: one.level }));
    if (answer.status === 502 || answer.status === 503 || answer.status === 504) {
      silent = true;
      tell(`Not available now: ${document_?.detail ?? "the broker does not answer"}. This page goes on trying.`);
    }
    throw new Refused(answer.status, messages, document_?.detail ?? `The broker answered ${answer.status}.`);
  }
  return { document: document_, tag: answer.headers.get("ETag") };
}

export const read = async (path) => (await ask(path)).document;
export const send = async (path, body, more = {}) => (await ask(path, { method: "POST", body, ...more })).document;

export function move(uuid, phase) {
  return send(`/data/sessions/${uuid}`, { kind: "uri:enum-value-update", path: "phase", value: phase });
}

function signInAddress() {
  const here = location.pathname.slice(root.length).replace(/^\/+|\/+$/g, "");
  return `${root}/sign-in${here ? `?to=${encodeURIComponent(here)}` : ""}`;
}

// Look at something again and again: only while the page is seen, seldom while nothing moves, and only what has changed
// comes over the wire. `pause` gives the seconds until the next look from the last document (null: no more looks).
export function watch(path, show, pause) {
  let tag = null;
  let last = null;
  let timer = null;
  let failures = 0;
  let running = false;
  let stopped = false;
  async function look() {
    clearTimeout(timer);
    if (running || stopped) return;
    running = true;
    try {
      const found = await ask(path, { known: tag });
      failures = 0;
      if (!found.same && !stopped) {
        last = found.document;
        tag = found.tag;
        whenReleased(look, () => { if (!stopped) show(last); });
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      failures += 1;
      if (error.status === 401) return;
      if (error.status >= 400 && error.status < 500) {
        whenReleased(look, () => { if (!stopped) show(null, error); });
        return;
      }
    } finally {
      running = false;
    }
    plan();
  }
  function plan() {
    clearTimeout(timer);
    if (document.hidden || stopped) return;
    const seconds = failures ? Math.min(2 ** failures, 30) : last === null ? 2 : pause(last);
    // Many who began at the same moment shall not all come at the same moment
    if (seconds !== null) timer = setTimeout(look, seconds * 1000 * (0.85 + 0.3 * Math.random()));
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  look();
  return { look, stop: () => { stopped = true; clearTimeout(timer); } };
}
