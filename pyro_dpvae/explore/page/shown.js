// Data: an image, a point among the data, or a vector as a line.

export function show(found, image, canvas, run) {
  image.hidden = found.image === undefined;
  canvas.hidden = !image.hidden;
  if (found.image !== undefined) {
    image.src = found.image;
    return;
  }
  canvas.dataset.values = JSON.stringify(found.values);
  canvas.setAttribute("aria-label", `values ${found.values.slice(0, 8).map((value) => value.toFixed(3)).join(", ")}`);
  const side = canvas.clientWidth || 200, ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  if (run.points) drawAmong(context, found.values, run.points, side, style);
  else drawLine(context, found.values, side, style);
}

function drawAmong(context, point, points, side, style) {
  const bounds = [0, 1].map((axis) => {
    const values = points.map((one) => one[axis]);
    return [Math.min(...values), Math.max(...values)];
  });
  const extent = 1.25 * Math.max(...bounds.map(([low, high]) => high - low), 1e-6);
  const pixels = (one) => one.map((value, axis) => {
    const part = (value - (bounds[axis][0] + bounds[axis][1]) / 2) / extent;
    return Math.min(side - 4, Math.max(4, side * (0.5 + (axis ? -part : part))));
  });
  const dot = (one, radius) => {
    context.beginPath();
    context.arc(...pixels(one), radius, 0, 7);
    context.fill();
  };
  context.fillStyle = style.getPropertyValue("--aggregate");
  context.globalAlpha = 0.5;
  points.forEach((one) => dot(one, 1.2));
  context.globalAlpha = 1;
  context.fillStyle = style.getPropertyValue("--halo");
  dot(point, 7.5);
  context.fillStyle = style.getPropertyValue("--accent");
  dot(point, 5.5);
}

function drawLine(context, values, side, style) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values, low + 1e-6);
  const place = (value, number) => [
    6 + ((number + 0.5) / values.length) * (side - 12),
    side - 8 - ((value - low) / (high - low)) * (side - 16),
  ];
  context.strokeStyle = style.getPropertyValue("--line");
  context.beginPath();
  context.moveTo(...place(0, -0.5));
  context.lineTo(...place(0, values.length - 0.5));
  context.stroke();
  context.strokeStyle = context.fillStyle = style.getPropertyValue("--accent");
  context.lineWidth = 1.6;
  context.beginPath();
  values.forEach((value, number) => context.lineTo(...place(value, number)));
  context.stroke();
  if (values.length > 40) return;
  values.forEach((value, number) => {
    context.beginPath();
    context.arc(...place(value, number), 2.5, 0, 7);
    context.fill();
  });
}
