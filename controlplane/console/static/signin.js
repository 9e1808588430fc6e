// Signing in, where the gateway wants to know who asks: with a token that the browser then keeps where no script can read it.

import { get, post, Problem, remove } from "./api.js";
import { h } from "./dom.js";
import { lead } from "./parts.js";

const who = document.getElementById("who");

export async function showWho() {
  try {
    const { name, tenant, sign_in: needed } = await get("/v1/session");
    who.replaceChildren(...(needed ? [h("span", {}, `${name}, ${tenant === "*" ? "all tenants" : tenant}`), h("button", { type: "button", onclick: leave }, "Sign out")] : []));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    who.replaceChildren();
  }
}

async function leave() {
  await remove("/v1/session");
  location.reload();
}

export function signIn(again) {
  const refused = h("div", { role: "alert" });
  async function enter(event) {
    event.preventDefault();
    try {
      await post("/v1/session", { token: new FormData(event.target).get("token").trim() });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      refused.replaceChildren(h("p", { class: "problem" }, error.message));
      return;
    }
    await showWho();
    again();
  }
  return [h("h1", {}, "Sign in"), lead("This gateway wants to know who asks."), h("form", { class: "card", onsubmit: enter, "data-own": true }, refused,
    h("p", {}, h("label", { for: "token" }, "Token")),
    h("p", { class: "row" }, h("input", { id: "token", class: "long", name: "token", type: "password", autocomplete: "off", required: true }), h("button", { class: "main" }, "Sign in")),
    h("p", { class: "quiet" }, "Your identity provider gives you one, or whoever runs this: ", h("code", {}, "controlplane tokens issue NAME")))];
}
