// The gateway's HTTP interface. Every error is an ErrorEnvelope; every answer says which log positions it reflects.

export class Problem extends Error {
  constructor(problem) {
    super(problem.message ?? problem.detail ?? problem.title);
    this.problem = problem;
  }
}

const listeners = new Set();
export const onReflects = (listener) => listeners.add(listener);

async function answer(response) {
  if (response.status === 204) return {}; // Done, and nothing to say of it.
  const body = response.headers.get("content-type")?.includes("json") ? await response.json() : { title: await response.text() };
  if (!response.ok) throw new Problem({ title: response.statusText, status: response.status, ...body });
  if (body.reflects) for (const listener of listeners) listener(body.reflects);
  return body;
}

async function send(path, options) {
  try {
    return await answer(await fetch(path, options));
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem({
      title: "The gateway does not answer", code: "no_answer",
      message: "Expected an answer from the gateway, but there was none. Is it running? `controlplane up` starts it.",
    });
  }
}

export function get(path, query = {}, signal = undefined) {
  const entries = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const suffix = entries.length ? `?${new URLSearchParams(entries)}` : "";
  return send(path + suffix, { headers: { accept: "application/json" }, signal });
}

const written = (method) => (path, body = {}) => send(path, {
  method, headers: { "content-type": "application/json", accept: "application/json" }, body: JSON.stringify(body),
});
export const post = written("POST");
export const put = written("PUT");
export const remove = (path) => send(path, { method: "DELETE", headers: { accept: "application/json" } });

export const of = (...parts) => parts.map(encodeURIComponent).join("/");
export const orNothing = async (promise, nothing) => {
  // What is not there is an answer, too.
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Problem && error.problem.status === 404) return nothing;
    throw error;
  }
};
