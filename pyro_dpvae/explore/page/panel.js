// One space: its density, its draws, and the point, which one drags.

import { drawDensity } from "./density.js";

const ORDER = ["aggregate", "prior", "pockets", "leaks", "held-out"];

// Colours of labels, which tell ten classes apart on light and dark ground.
const LABELS = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#d6a419", "#ff6fae", "#8a8f98", "#7f4fc9"];

export function colourOf(label) { return LABELS[label % LABELS.length]; }

// Leaks differ from pockets by their shape also.
function triangle(context, x, y) {
  context.moveTo(x, y - 3.2);
  context.lineTo(x + 2.9, y + 2);
  context.lineTo(x - 2.9, y + 2);
  context.closePath();
}

export class Panel {
  // `moved(values)` is told where the point is dragged, `chosen(axes)` which coordinates are shown.
  constructor(element, space, latentDim, labels, { moved, chosen }) {
    this.element = element;
    this.canvas = element.querySelector("canvas");
    this.legend = element.querySelector(".legend");
    this.selects = [element.querySelector(".across"), element.querySelector(".up")];
    this.space = space;
    this.symbol = space === "generation" ? "z\u2080" : "z";
    this.moved = moved;
    this.axes = [0, 0];
    this.box = [-3, 3, -3, 3];
    this.clouds = {};
    this.labels = labels; // of the held-out data; null where they have none
    this.values = new Array(latentDim).fill(0);
    this.grid = null;
    this.stale = false;
    this.look = { map: "none", clouds: new Set() };
    this.base = document.createElement("canvas");
    for (const [which, select] of this.selects.entries()) {
      for (let axis = 0; axis < latentDim; axis++) select.add(new Option(`${this.symbol}[${axis}]`, axis));
      select.addEventListener("change", () => {
        const axes = [...this.axes], other = 1 - which;
        axes[which] = Number(select.value);
        if (axes[0] === axes[1]) axes[other] = this.axes[which];
        chosen(axes);
      });
    }
    element.querySelector(".axes").hidden = latentDim < 3;
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.canvas.focus();
      this.pointed(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.canvas.hasPointerCapture(event.pointerId)) this.pointed(event);
    });
    new ResizeObserver(() => this.drawAll()).observe(this.canvas);
  }

  get side() { return Math.max(1, this.canvas.clientWidth); }

  toPixels(x, y) {
    const [left, right, bottom, top] = this.box;
    return [((x - left) / (right - left)) * this.side, ((top - y) / (top - bottom)) * this.side];
  }

  // A single coordinate has no second: its points are spread, each always at the same height.
  height(point, number) {
    return this.axes[0] === this.axes[1] ? this.middle + (this.box[3] - this.box[2]) * (((number * 0.618) % 1) - 0.5) * 0.5 : point[1];
  }

  get middle() { return (this.box[2] + this.box[3]) / 2; }

  pointed(event) {
    const frame = this.canvas.getBoundingClientRect();
    const [left, right, bottom, top] = this.box;
    const inside = (part) => Math.min(1, Math.max(0, part));
    const values = [...this.values];
    values[this.axes[1]] = top - inside((event.clientY - frame.top) / frame.height) * (top - bottom);
    values[this.axes[0]] = left + inside((event.clientX - frame.left) / frame.width) * (right - left);
    this.moved(values);
  }

  // Move by steps of a hundredth of the panel.
  step(across, up) {
    const [left, right, bottom, top] = this.box;
    const values = [...this.values];
    if (this.axes[0] !== this.axes[1]) values[this.axes[1]] += (up * (top - bottom)) / 100;
    values[this.axes[0]] += (across * (right - left)) / 100;
    this.moved(values);
  }

  showAxes(axes, box, clouds) {
    Object.assign(this, { axes, box, clouds });
    this.selects.forEach((select, which) => { select.value = axes[which]; });
    this.drawAll();
  }

  showPoint(values) {
    this.values = values;
    const [i, j] = this.axes;
    const where = (axis) => `${this.symbol}[${axis}] = ${values[axis].toFixed(3)}`;
    this.canvas.setAttribute("aria-label", `${this.space} space: ${i === j ? where(i) : `${where(i)}, ${where(j)}`}; arrow keys move the point`);
    this.drawPoint();
  }

  showLook(look) { this.look = look; this.drawAll(); }

  showGrid(grid, stale) { this.grid = grid; this.stale = stale; this.drawAll(); }

  // What stays while the point moves is drawn once.
  drawAll() {
    const side = this.side, ratio = Math.min(window.devicePixelRatio || 1, 2);
    const style = getComputedStyle(document.documentElement);
    for (const canvas of [this.base, this.canvas]) canvas.width = canvas.height = Math.round(side * ratio);
    const context = this.base.getContext("2d");
    context.scale(ratio, ratio);
    context.fillStyle = style.getPropertyValue("--card");
    context.fillRect(0, 0, side, side);
    let legend = "";
    if (this.look.map !== "none" && this.grid) {
      context.globalAlpha = this.stale ? 0.45 : 1;
      legend = drawDensity(context, this.grid, this.look.map, Math.round(side), Math.round(side), style);
      context.globalAlpha = 1;
    }
    this.legend.textContent = legend;
    this.drawTicks(context, style);
    for (const name of ORDER) {
      if (!this.look.clouds.has(name) || !this.clouds[name]) continue;
      context.fillStyle = style.getPropertyValue(`--${name}`);
      const held = name === "held-out", extreme = name === "pockets" || name === "leaks";
      context.globalAlpha = extreme || held ? 0.85 : 0.5;
      this.clouds[name].forEach((point, number) => {
        const [x, y] = this.toPixels(point[0], this.height(point, number));
        if (held && this.labels) context.fillStyle = colourOf(this.labels[number]);
        context.beginPath();
        if (name === "leaks") triangle(context, x, y);
        else context.arc(x, y, held ? 2.4 : extreme ? 1.9 : 1.4, 0, 7);
        context.fill();
      });
    }
    context.globalAlpha = 1;
    context.strokeStyle = style.getPropertyValue("--line");
    context.strokeRect(0.5, 0.5, side - 1, side - 1);
    this.drawPoint();
  }

  drawTicks(context, style) {
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = style.getPropertyValue("--soft");
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = 1;
    const [left, right, bottom, top] = this.box, side = this.side;
    const both = [[left, right], [bottom, top]];
    both.slice(0, this.axes[0] === this.axes[1] ? 1 : 2).forEach(([low, high], which) => {
      const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
      const apart = power * ([1, 2, 5].find((factor) => factor * power >= rough) || 10);
      for (let tick = Math.ceil(low / apart) * apart; tick <= high; tick += apart) {
        const [x, y] = this.toPixels(tick, tick);
        const label = Number(tick.toPrecision(6)).toString().replace("-", "\u2212");
        context.beginPath();
        if (which === 0) { context.moveTo(x, side - 5); context.lineTo(x, side); }
        else { context.moveTo(0, y); context.lineTo(5, y); }
        context.stroke();
        if (which === 0 && x > 30 && x < side - 40) { context.textAlign = "center"; context.fillText(label, x, side - 8); }
        if (which === 1 && y > 26 && y < side - 24) { context.textAlign = "left"; context.fillText(label, 8, y + 4); }
      }
    });
    context.textAlign = "right";
    context.fillText(`${this.symbol}[${this.axes[0]}]`, side - 8, side - 8);
    context.textAlign = "left";
    if (this.axes[0] !== this.axes[1]) context.fillText(`${this.symbol}[${this.axes[1]}]`, 8, 16);
  }

  drawPoint() {
    const context = this.canvas.getContext("2d"), side = this.side;
    const style = getComputedStyle(document.documentElement);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.base, 0, 0);
    context.scale(this.canvas.width / side, this.canvas.height / side);
    const [i, j] = this.axes;
    const [x, y] = this.toPixels(this.values[i], i === j ? this.middle : this.values[j]);
    const [across, down] = [x, y].map((value) => Math.min(side - 3, Math.max(3, value)));
    const outside = across !== x || down !== y; // then it is hollow, on the edge
    for (const [radius, width, name] of [[7, 5, "--halo"], [7, 2.4, "--point"]]) {
      context.beginPath();
      context.arc(across, down, radius, 0, 7);
      context.lineWidth = width;
      context.strokeStyle = style.getPropertyValue(name);
      context.stroke();
    }
    if (outside) return;
    context.beginPath();
    context.arc(across, down, 2.2, 0, 7);
    context.fillStyle = style.getPropertyValue("--point");
    context.fill();
  }
}
