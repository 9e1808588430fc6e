// Questions before something is done, and what became of it.

import { h } from "./dom.js";

export function ask({ title, text, fields = [], words, danger = false }) {
  // Show a dialog; returns the values of its fields, or null when it was left.
  const dialog = document.getElementById("dialog");
  return new Promise((resolve) => {
    const made = h("form", { method: "dialog", onsubmit: (event) => { dialog.returnValue = ""; finish(Object.fromEntries(new FormData(event.currentTarget))); } },
      h("h2", { id: "dialog-title" }, title), text && h("p", { class: "quiet" }, text), fields,
      h("div", { class: "row end" }, h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"), h("button", { class: danger ? "main danger" : "main" }, words)));
    let values = null;
    const finish = (found) => { values = found; };
    dialog.replaceChildren(made);
    dialog.addEventListener("close", () => resolve(values), { once: true });
    dialog.showModal();
  });
}

let fading = 0;
export function say(text, kind = "ok") {
  const place = document.getElementById("said");
  place.className = `said ${kind}`;
  place.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => { place.textContent = ""; place.className = "said"; }, 8000);
}

export async function attempt(work, done) {
  // Do what was asked for and say what became of it; returns whether it was done.
  try {
    const answer = await work();
    say(typeof done === "function" ? done(answer) : done);
    return true;
  } catch (error) {
    say(error.message, "bad");
    return false;
  }
}
