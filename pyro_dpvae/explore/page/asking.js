// The server's answers, and values of many at once.

export async function ask(name, fields, signal) {
  const query = encodeURIComponent(JSON.stringify(fields));
  const answer = await fetch(`api/${name}?q=${query}`, { signal });
  const found = await answer.json();
  if (!answer.ok) throw new Refused(found.error);
  return found;
}

export class Refused extends Error {}

export function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// As many as 32-bit numbers always keep, and a pointer does not tell as many apart.
export const digits = (value) => Number(value.toPrecision(6));

export const signed = (value, places) =>
  value === null ? "\u2212\u221e" : value.toFixed(places).replace("-", "\u2212");
