// Questions to the server.

/** JSON of an address; an Error that says in a sentence why there is none. */
export async function ask(path, signal) {
  return answer(await fetch(path, { signal }));
}

export async function send(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/** Give a file to the page; it is kept under a name of its own. */
export async function give(kind, file) {
  const suffix = /\.[A-Za-z0-9]{1,12}$/.exec(file.name)?.[0] ?? "";
  const headers = { "Content-Type": "application/octet-stream" };
  return answer(await fetch(address(`/api/uploads/${kind}`, { suffix }), { method: "POST", headers, body: file }));
}

async function answer(response) {
  const said = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (!response.ok) throw new Error(said.error || `The server answered ${response.status}.`);
  return said;
}

const kept = new Map();

/** Numbers of a picture, kept while they are likely to be shown again. */
export function numbers(path, Kind) {
  if (!kept.has(path)) {
    if (kept.size > 400) kept.delete(kept.keys().next().value);
    const loading = fetch(path).then(async (response) => {
      if (!response.ok) throw new Error((await response.json()).error);
      return new Kind(await response.arrayBuffer());
    });
    loading.catch(() => kept.delete(path));
    kept.set(path, loading);
  }
  return kept.get(path);
}

/** Address with a query; empty values are left out. */
export function address(path, query = {}) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return words.size ? `${path}?${words}` : path;
}
