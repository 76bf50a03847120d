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

// A row of choices of which one is taken: real radio buttons, so that keys and readers know them.
export function segments(parent, name, choices, chosen, onchange) {
  fill(parent, choices.map(([value, label, why]) => h("label", { title: why || null },
    h("input", { type: "radio", name, value, checked: value === chosen, disabled: Boolean(why), id: `${name}-${value}`,
      onchange: () => onchange(value) }), label)));
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
