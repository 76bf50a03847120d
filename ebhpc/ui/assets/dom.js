// Elements from data. Text goes in as text and never as HTML, whoever wrote it.

export function h(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key === "value") made.value = value;
    else if (key === "checked" || key === "disabled" || key === "hidden") made[key] = Boolean(value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) made.append(child);
  }
  return made;
}

export const byId = (id) => document.getElementById(id);

// Replace what an element holds, and leave the focus where it was if what had it is there again.
export function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : "";
  parent.replaceChildren(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  if (focused) byId(focused)?.focus();
}

// Lay fields again whose limits have changed. Where they are the same fields, those that are there stay, under the hands
// of whoever types or clicks, and take only the new words and choices.
export function relay(parent, ...children) {
  const fresh = h("div", {}, children);
  const names = (within) => [...within.querySelectorAll("[id]")].map((one) => one.id).join(" ");
  if (names(fresh) !== names(parent)) { fill(parent, ...fresh.childNodes); return; }
  for (const help of fresh.querySelectorAll(".help")) {
    const there = byId(help.id);
    if (there.textContent !== help.textContent) there.textContent = help.textContent;
  }
  for (const select of fresh.querySelectorAll("select")) {
    const there = byId(select.id);
    const choices = (of) => [...of.options].map((one) => `${one.value} ${one.text}`).join("\n");
    if (choices(there) === choices(select)) continue;
    const { value } = there;
    there.replaceChildren(...select.children);
    there.value = value;
  }
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
