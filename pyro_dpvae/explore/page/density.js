// Log-densities on a grid, as bands of colour.

export const NATS = 12; // below the highest, nothing is drawn
const EDGE = 6; // nats of a difference that have full colour

// A grid of size x size cells, each of the two densities; rows are filled in from the top.
export class Grid {
  constructor(size, coarser) {
    this.size = size;
    this.p = new Float32Array(size * size).fill(-Infinity);
    this.q = new Float32Array(size * size).fill(-Infinity);
    if (!coarser) return;
    for (let row = 0; row < size; row++)
      for (let column = 0; column < size; column++) {
        const there = Math.floor((row * coarser.size) / size) * coarser.size + Math.floor((column * coarser.size) / size);
        this.p[row * size + column] = coarser.p[there];
        this.q[row * size + column] = coarser.q[there];
      }
  }

  fill(first, p, q) {
    this.p.set(p, first * this.size);
    this.q.set(q, first * this.size);
  }
}

const highest = (values) => values.reduce((most, value) => (value > most ? value : most), -Infinity);

function color(text) {
  const number = parseInt(text.trim().slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

// Values between the centres of cells, on width x height pixels.
function between(values, size, width, height) {
  const floor = highest(values) - 4 * NATS;
  const found = new Float32Array(width * height);
  const at = (row, column) => Math.max(values[row * size + column], floor);
  for (let y = 0; y < height; y++) {
    const down = Math.min(Math.max(((y + 0.5) * size) / height - 0.5, 0), size - 1);
    const row = Math.min(Math.floor(down), size - 2), v = down - row;
    for (let x = 0; x < width; x++) {
      const across = Math.min(Math.max(((x + 0.5) * size) / width - 0.5, 0), size - 1);
      const column = Math.min(Math.floor(across), size - 2), u = across - column;
      found[y * width + x] =
        (1 - v) * ((1 - u) * at(row, column) + u * at(row, column + 1)) +
        v * ((1 - u) * at(row + 1, column) + u * at(row + 1, column + 1));
    }
  }
  return found;
}

// Draw a grid; returns the legend's sentence.
export function drawDensity(context, grid, kind, width, height, style) {
  const image = context.createImageData(width, height);
  const put = (pixel, [red, green, blue], alpha) => image.data.set([red, green, blue, 255 * alpha], 4 * pixel);
  const top = { p: highest(grid.p), q: highest(grid.q) };
  let legend;
  if (kind === "difference") {
    const p = between(grid.p, grid.size, width, height), q = between(grid.q, grid.size, width, height);
    const more = color(style.getPropertyValue("--leaks")), less = color(style.getPropertyValue("--pockets"));
    for (let pixel = 0; pixel < p.length; pixel++) {
      // Where neither side has density their ratio says nothing.
      const there = Math.max(p[pixel] - top.p, q[pixel] - top.q) / NATS + 1;
      if (there <= 0) continue;
      const nats = Math.max(-EDGE, Math.min(EDGE, Math.trunc(q[pixel] - p[pixel])));
      put(pixel, nats > 0 ? more : less, (Math.abs(nats) / EDGE) * 0.75 * Math.min(1, 1.5 * there));
    }
    legend = `red: the prior has more, as in pockets; yellow: the aggregate posterior has more, as in leaks; bands of 1 nat up to ${EDGE}; faint where both have little`;
  } else {
    const which = kind === "prior" ? "p" : "q";
    const values = between(grid[which], grid.size, width, height);
    const hue = color(style.getPropertyValue("--density"));
    for (let pixel = 0; pixel < values.length; pixel++) {
      const band = Math.ceil(values[pixel] - top[which] + NATS);
      if (band > 0) put(pixel, hue, 0.03 + (0.55 * band) / NATS);
    }
    const peak = Number.isFinite(top[which]) ? top[which].toFixed(1).replace("-", "\u2212") : "\u2212\u221e";
    legend = `highest here: ${peak} nats; each band is 1 nat lower, ${NATS} in all`;
  }
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(layer, 0, 0, width, height);
  return legend;
}
