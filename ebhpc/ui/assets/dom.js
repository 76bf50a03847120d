// Elements from data. Text goes in as text and never as HTML, whoever wrote it. What is told again and again is laid over
// what is there (`update`), so that nothing is taken from under the hands of who clicks, types, tabs or selects.

const heard = new WeakMap(); // an element → what it does at which event

function hear(element, name, does) {
  let known = heard.get(element);
  if (!known) heard.set(element, known = {});
  if (!(name in known)) element.addEventListener(name, (event) => heard.get(element)[name]?.(event));
  known[name] = does;
}

const shown = (children) => children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false);

export function h(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) hear(made, key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key === "value") made.value = value;
    else if (key === "checked" || key === "disabled" || key === "hidden") made[key] = Boolean(value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...shown(children));
  return made;
}

export const byId = (id) => document.getElementById(id);

// Replace what an element holds, as an answer to somebody's deed, and leave the focus where it was if what had it is there again.
export function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : "";
  parent.replaceChildren(...shown(children));
  if (focused) byId(focused)?.focus();
}

// Bring what an element holds up to date, as a look again at the broker tells it. What is there already stays there and takes
// on what is new: an element is the same if it has the same `id` or `data-key`, or else if it stands at the same place.
export function update(parent, ...children) {
  lay(parent, shown(children).map((one) => (one instanceof Node ? one : document.createTextNode(String(one)))));
}

const nameOf = (node) => (node.id || node.dataset?.key ? `${node.nodeName} ${node.id || node.dataset.key}` : "");

function lay(parent, fresh) {
  const named = new Map();
  const wanted = new Set(fresh.map(nameOf));
  for (const one of [...parent.childNodes]) {
    if (!nameOf(one)) continue;
    if (wanted.has(nameOf(one)) && !named.has(nameOf(one))) named.set(nameOf(one), one);
    else one.remove();
  }
  let at = parent.firstChild;
  for (const one of fresh) {
    const there = nameOf(one) ? named.get(nameOf(one)) : likeIt(at, one);
    if (!there) { parent.insertBefore(one, at); continue; }
    named.delete(nameOf(one));
    if (!there.contains(document.activeElement)) { if (there !== at) parent.insertBefore(there, at); }
    // To move an element takes the focus out of it: those before it go behind it instead
    else while (at !== there) { const before = at; at = at.nextSibling; there.after(before); }
    renew(there, one);
    at = there.nextSibling;
  }
  while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
}

// The next one without a name, from here on, that can become a fresh one.
function likeIt(at, fresh) {
  let here = at;
  while (here && (nameOf(here) || here.nodeName !== fresh.nodeName)) here = here.nextSibling;
  return here;
}

function renew(there, fresh) {
  if (there.nodeType === Node.TEXT_NODE) { retell(there, fresh.data); return; }
  for (const { name } of [...there.attributes]) if (!fresh.hasAttribute(name)) there.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
  for (const name of Object.keys({ ...heard.get(there), ...heard.get(fresh) })) hear(there, name, heard.get(fresh)?.[name]);
  there.onchange = fresh.onchange;
  lay(there, [...fresh.childNodes]);
  for (const state of ["checked", "disabled", "value"]) if (state in fresh && there[state] !== fresh[state]) there[state] = fresh[state];
}

// Change only what differs of a text: what somebody has selected of it stays selected.
function retell(node, text) {
  const { data } = node;
  if (data === text) return;
  const least = Math.min(data.length, text.length);
  let before = 0;
  while (before < least && data[before] === text[before]) before += 1;
  let after = 0;
  while (after < least - before && data[data.length - 1 - after] === text[text.length - 1 - after]) after += 1;
  node.replaceData(before, data.length - before - after, text.slice(before, text.length - after));
}

// Between press and release nothing moves away from under the pointer: what a look again brings waits for that, for a while.
const LONGEST = 3000; // ms: longer presses are no clicks
const waiting = new Map();
let pressed = null;

function release() {
  clearTimeout(pressed);
  pressed = null;
  const due = [...waiting.values()];
  waiting.clear();
  for (const does of due) does();
}

addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  clearTimeout(pressed);
  pressed = setTimeout(release, LONGEST);
}, true);
// The click itself comes after these
for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => { if (pressed) setTimeout(release); }, true);

// Do something at once, or when what is pressed has been released; of what the same one wants to do, only the last.
export function whenReleased(who, does) {
  if (pressed) waiting.set(who, does); else does();
}

// A row of choices of which one is taken: real radio buttons, so that keys and readers know them. Given the same choices
// again, the buttons stay: a click that has begun on one ends on it.
export function segments(parent, name, choices, chosen, onchange) {
  const there = [...parent.querySelectorAll("input")];
  if (there.map((one) => one.value).join("\n") !== choices.map(([value]) => value).join("\n")) {
    fill(parent, choices.map(([value, label]) => h("label", {}, h("input", { type: "radio", name, value, id: `${name}-${value}` }), label)));
  }
  choices.forEach(([value, , why], n) => {
    const label = parent.children[n];
    const input = label.firstChild;
    if (why) label.title = why; else label.removeAttribute("title");
    input.disabled = Boolean(why);
    input.checked = value === chosen;
  });
  parent.onchange = (event) => onchange(event.target.value);
}

// Only http(s) addresses become links: a job may say "javascript:…".
export function safeLink(address, text) {
  let url = null;
  try { url = new URL(address); } catch { /* it is none */ }
  if (url && (url.protocol === "http:" || url.protocol === "https:")) {
    return h("a", { href: url.href, rel: "noopener noreferrer", target: "_blank" }, text ?? address);
  }
  return h("code", {}, address);
}

export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => { button.textContent = before; }, 1600);
}
