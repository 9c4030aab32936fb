// What the address holds: the view, to reload or keep it.

const SPACES = ["generation", "representation"];
const MAPS = ["prior", "aggregate", "difference", "none"];
const CLOUDS = ["aggregate", "prior", "held-out", "pockets", "leaks"];

export function initial(run) {
  return {
    space: "generation",
    values: [...run.origin],
    axes: { generation: [...run.axes.generation], representation: [...run.axes.representation] },
    map: "prior",
    clouds: new Set(["aggregate", ...(run.labels ? ["held-out"] : []), "pockets", "leaks"]),
    datum: null,
  };
}

export function written(view) {
  const fields = {
    at: `${view.space}:${view.values.join(",")}`,
    g: view.axes.generation.join(","),
    r: view.axes.representation.join(","),
    map: view.map,
    draws: CLOUDS.filter((name) => view.clouds.has(name)).join(","),
  };
  if (view.datum !== null) fields.datum = view.datum;
  return "#" + Object.entries(fields).map(([name, value]) => `${name}=${value}`).join("&");
}

// A view of another run, or one that is spoiled, is left out where it does not fit.
export function read(fragment, run) {
  const view = initial(run);
  const fields = new Map(fragment.replace(/^#/, "").split("&").map((one) => one.split("=")));
  const [space, text] = (fields.get("at") || "").split(":");
  const values = (text || "").split(",").map(Number);
  if (SPACES.includes(space) && text && values.length === run.latent_dim && values.every(Number.isFinite))
    Object.assign(view, { space, values });
  for (const [name, where] of [["g", "generation"], ["r", "representation"]]) {
    const axes = (fields.get(name) || "").split(",").map(Number);
    const known = axes.every((axis) => Number.isInteger(axis) && axis >= 0 && axis < run.latent_dim);
    if (fields.get(name) && axes.length === 2 && known && (axes[0] !== axes[1] || run.latent_dim === 1)) view.axes[where] = axes;
  }
  if (MAPS.includes(fields.get("map"))) view.map = fields.get("map");
  if (fields.has("draws")) view.clouds = new Set((fields.get("draws") || "").split(",").filter((name) => CLOUDS.includes(name)));
  const datum = Number(fields.get("datum"));
  if (fields.has("datum") && Number.isInteger(datum) && datum >= 0 && datum < run.held_out) view.datum = datum;
  return view;
}
