// Where the reader is: the page, what it is about and its filters, all in the address, so that a link shows the same again.

export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/");
  return { page, id: rest.length ? decodeURIComponent(rest.join("/")) : null, query: new URLSearchParams(query) };
}

export function link(page, id = null, query = {}) {
  const entries = query instanceof URLSearchParams ? [...query] : Object.entries(query);
  const said = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `#/${page}${id === null ? "" : `/${encodeURIComponent(id)}`}${said.length ? `?${new URLSearchParams(said)}` : ""}`;
}

export function go(page, id = null, query = {}) {
  location.hash = link(page, id, query);
}

export function changed(changes) {
  // This page with some of its filters changed; a page cursor belongs to the old filters.
  const { page, id, query } = here();
  const wanted = new URLSearchParams(query);
  if (!("cursor" in changes)) wanted.delete("cursor");
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") wanted.delete(name);
    else wanted.set(name, value);
  }
  return link(page, id, wanted);
}
