// The page: one point, both spaces, what it decodes to.

import { ask, digits, floats, Refused, signed } from "./asking.js";
import { Grid } from "./density.js";
import { colourOf, Panel } from "./panel.js";
import { show } from "./shown.js";
import { initial, read, written } from "./view.js";

const REST = 150; // milliseconds without a move, until densities are computed again
const SIZES = [24, 48, 96]; // of a map, one after the other
const BAND = 120; // milliseconds of a request for a map, so that the image need not wait for long
const PATIENCE = 6000; // milliseconds that a map may take

const at = (id) => document.getElementById(id);
let run, view, panels, active = "generation";
let here = null; // what the server says of the point
const counters = { pockets: -1, leaks: -1 };

async function start() {
  run = await ask("run", {});
  view = read(location.hash, run);
  document.title = `${run.title} \u2013 dpvae explore`;
  at("title").textContent = run.title;
  at("facts").textContent = [...Object.entries(run.facts), ["latents", run.latent_dim]].map(([name, value]) => `${name} ${value}`).join(" \u00b7 ");
  at("base-name").innerHTML = run.base_is_normal ? "log <i>N</i>(<i>z</i><sub>0</sub>; 0, <i>I</i>)" : "log <i>p</i><sub>0</sub>(<i>z</i><sub>0</sub>)";
  at("base-name").parentElement.hidden = run.one_space;
  at("generation").hidden = run.one_space;
  at("spaces").classList.toggle("one", run.one_space);
  at("note").textContent = note();
  panels = {};
  for (const space of run.one_space ? ["representation"] : ["generation", "representation"])
    panels[space] = new Panel(at(space), space, run.latent_dim, run.labels, {
      moved: (values) => { active = space; move(space, values.map(digits)); },
      chosen: (axes) => { view.axes[space] = axes; keep(); showAxes(space); },
    });
  at("labels").replaceChildren(...run.label_names.map((name, label) => {
    const entry = document.createElement("span"), dot = document.createElement("span");
    dot.className = "dot";
    dot.style.background = colourOf(label);
    entry.append(dot, ` ${name}`);
    return entry;
  }));
  if (run.one_space) active = "representation";
  wire();
  await restore();
  document.body.dataset.ready = "yes";
}

function note() {
  const notes = [];
  if (run.one_space) notes.push("Under this prior generation space is representation space, so there is one panel.");
  if (run.latent_dim > 2) notes.push("Densities are slices through the point: the other coordinates are held where it is. Draws are projections.");
  if (!run.means) notes.push("What is decoded is a draw from p(x | z), always the same for the same point.");
  return notes.join(" ");
}

async function restore() {
  for (const input of document.querySelectorAll("[name=map]")) input.checked = input.value === view.map;
  for (const input of document.querySelectorAll("#clouds input")) input.checked = view.clouds.has(input.value);
  showLook();
  await Promise.all(Object.keys(panels).map(showAxes));
  if (view.datum === null) showDatum(null);
  else await take("held-out", view.datum, { stay: true });
  move(view.space, view.values);
}

function wire() {
  for (const button of document.querySelectorAll("[data-take]"))
    button.addEventListener("click", () => take(button.dataset.take, next(button.dataset.take)));
  at("reset").addEventListener("click", () => { view = initial(run); restore(); });
  for (const input of document.querySelectorAll("[name=map]"))
    input.addEventListener("change", () => { view.map = input.value; keep(); showLook(); refine(); });
  for (const input of document.querySelectorAll("#clouds input"))
    input.addEventListener("change", () => { view.clouds[input.checked ? "add" : "delete"](input.value); keep(); showLook(); });
  window.addEventListener("hashchange", () => {
    if (location.hash === written(view)) return;
    view = read(location.hash, run);
    restore();
  });
  document.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const busy = ["SELECT", "INPUT"].includes(event.target.tagName);
    if (!steps || busy || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const focused = Object.keys(panels).find((space) => panels[space].canvas === event.target);
    if (focused) active = focused;
    const reach = event.shiftKey ? 10 : 1;
    panels[active].step(steps[0] * reach, steps[1] * reach);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { showLook(); if (here) showPicture(here); });
}

function next(what) {
  if (what === "prior") return Math.floor(Math.random() * 2 ** 31);
  if (what === "held-out") return view.datum === null ? 0 : (view.datum + 1) % run.held_out;
  counters[what] = (counters[what] + 1) % run.counts[what];
  return counters[what];
}

async function take(what, index, { stay = false } = {}) {
  const found = await told(() => ask("take", { what, index }));
  if (!found) return;
  if (what === "held-out" || !stay) {
    view.datum = what === "held-out" ? index : null;
    showDatum(what === "held-out" ? found : null);
  }
  if (!stay) move("representation", found.z);
}

function keep() { history.replaceState(null, "", written(view)); }

// ---- the point: one request at a time, and only for where it is now

let asking = false, wanted = null;

function move(space, values) {
  Object.assign(view, { space, values });
  if (panels[space]) panels[space].showPoint(values);
  wanted = { space, values };
  delete document.body.dataset.at; // until the server has answered for it
  halt();
  if (!asking) follow();
}

async function follow() {
  asking = true;
  try {
    while (wanted) {
      const now = wanted;
      wanted = null;
      const found = await told(() => ask("point", now));
      if (!found) continue;
      here = found;
      showReadouts(found);
      showPicture(found);
      for (const space of Object.keys(panels)) {
        // The panel under the pointer is ahead of the server.
        if (!(wanted && wanted.space === space)) panels[space].showPoint(space === "generation" ? found.z0 : found.z);
      }
      keep();
    }
  } finally {
    asking = false;
  }
  document.body.dataset.at = written(view);
  rest();
}

async function told(question) {
  try {
    const found = await question();
    at("trouble").hidden = true;
    return found;
  } catch (error) {
    if (error.name === "AbortError") return null;
    at("trouble").textContent = error instanceof Refused ? error.message : "The server does not answer; is dpvae explore still running?";
    at("trouble").hidden = false;
    return null;
  }
}

// ---- densities: when the point rests, coarse first, a few rows at a time

let resting = null, errand = null;

function halt() {
  clearTimeout(resting);
  if (errand) errand.abort();
}

function rest() {
  clearTimeout(resting);
  resting = setTimeout(refine, REST);
}

// Whatever has the same key has the same map.
function keyOf(space) {
  const panel = panels[space];
  const others = panel.values.filter((_, axis) => !panel.axes.includes(axis));
  return JSON.stringify([panel.axes, panel.box, others]);
}

async function refine() {
  halt();
  if (view.map === "none" || !here || !Object.values(panels).every((panel) => panel.loaded)) return;
  const own = (errand = new AbortController());
  document.body.dataset.maps = "coming";
  for (const size of SIZES)
    for (const space of Object.keys(panels)) {
      if (own.signal.aborted) return;
      await refineTo(space, size, own.signal);
    }
  if (!own.signal.aborted) document.body.dataset.maps = "done";
}

async function refineTo(space, size, signal) {
  const panel = panels[space], key = keyOf(space);
  const same = panel.mapKey === key;
  if (same && panel.grid.size >= size && panel.whole) return;
  if (same && panel.pace * size * size > PATIENCE) return; // milliseconds per cell
  const grid = new Grid(size, same ? panel.grid : null);
  const values = panel.values, { axes, box } = panel;
  for (let first = 0, rows = Math.max(1, Math.round(size / 12)); first < size; ) {
    rows = Math.min(rows, size - first);
    const began = performance.now();
    const found = await told(() => ask("map", { space, values, axes, box, size, first, rows }, signal));
    if (!found || signal.aborted) return;
    const took = performance.now() - began;
    grid.fill(first, floats(found.log_p), floats(found.log_q));
    first += rows;
    panel.pace = took / (rows * size);
    rows = Math.max(1, Math.min(size, Math.floor(BAND / (panel.pace * size))));
    if (same) panel.showGrid(grid, false); // what is not there yet is coarser
  }
  Object.assign(panel, { mapKey: key, whole: true });
  panel.showGrid(grid, false);
}

// ---- what is shown

async function showAxes(space) {
  const panel = panels[space], axes = view.axes[space];
  const found = await told(() => ask("clouds", { space, axes }));
  if (!found || view.axes[space] !== axes) return;
  panel.loaded = true;
  panel.grid = null;
  panel.mapKey = null;
  panel.showAxes(axes, found.box, found.clouds);
  rest();
}

function showLook() {
  for (const panel of Object.values(panels)) panel.showLook({ map: view.map, clouds: view.clouds });
}

function showPicture(found) {
  show(found, at("decoded"), at("decoded-values"), run);
  const what = run.points ? "decoded, among the data" : "decoded";
  at("decoded-caption").textContent = run.means ? what : `${what}: a draw`;
}

function showDatum(found) {
  at("datum-figure").hidden = !found;
  if (!found) return;
  show(found, at("datum"), at("datum-values"), run);
  at("datum-caption").textContent = `held-out datum ${view.datum}`;
}

const percent = (share) => `${(100 * share).toFixed(share > 0.99 && share < 0.9995 ? 1 : 0)} %`;

function verdict({ kind, q_among_prior: q, p_among_aggregate: p }) {
  const low = (letter, share, whose) => `${letter}(z) is lower than at ${percent(share)} of ${whose}`;
  if (kind === "pocket") return `A pocket: the prior draws here, but ${low("q", q, "its draws")}.`;
  if (kind === "leak") return `A leak: data are represented here, but ${low("p", p, "posterior draws")}.`;
  if (kind === "tail") return "Covered by both, in the tail: densities are low, but too much alike for a pocket or a leak.";
  if (kind === "outside") return "Outside: hardly any draw of either side lies here.";
  return "Covered: the prior draws here, and data are represented here.";
}

function showReadouts(found) {
  for (const name of ["log_p", "log_q", "log_base"]) at(name).textContent = `${signed(found[name], 2)} nats`;
  const known = found.log_p !== null && found.log_q !== null;
  at("difference").textContent = known ? `${signed(found.log_q - found.log_p, 2)} nats` : "\u2013";
  for (const name of ["q_among_prior", "p_among_aggregate"]) {
    at(name).textContent = percent(found[name]);
    at(name).nextElementSibling.value = found[name];
  }
  at("verdict").className = found.kind;
  at("verdict").textContent = verdict(found);
  at("coordinates").replaceChildren(...found.z.map((value, axis) => {
    const row = document.createElement("tr");
    for (const text of [axis, signed(found.z0[axis], 4), signed(value, 4)]) row.insertCell().textContent = text;
    return row;
  }));
}

start().catch((error) => told(() => { throw error; }));
