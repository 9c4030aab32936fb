"use strict";
// A read-out under each chart of the values next to the pointer; details unfold for print.
for (const figure of document.querySelectorAll(".charts figure")) {
  const chart = figure.querySelector("svg");
  const output = figure.querySelector("output");
  const cursor = chart.querySelector(".cursor");
  const before = output.textContent;
  const curves = [...chart.querySelectorAll("g[data-x]")].map((curve) => ({
    name: curve.dataset.name,
    kind: curve.dataset.kind,
    steps: curve.dataset.x.split(","),
    values: curve.dataset.y.split(","),
    lefts: curve.dataset.left.split(",").map(Number),
  }));
  const nearest = (lefts, at) =>
    lefts.reduce((best, left, i) => (Math.abs(left - at) < Math.abs(lefts[best] - at) ? i : best), 0);
  chart.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      chart.getScreenCTM().inverse()
    ).x;
    const found = curves.map((curve) => [curve, nearest(curve.lefts, at)]);
    const gap = ([curve, i]) => Math.abs(curve.lefts[i] - at);
    const [closest, index] = found.reduce((a, b) => (gap(b) < gap(a) ? b : a));
    const left = closest.lefts[index];
    cursor.setAttribute("x1", left);
    cursor.setAttribute("x2", left);
    cursor.style.opacity = 1;
    const texts = found
      .filter(([curve, i]) => curve.steps[i] === closest.steps[index])
      .map(([curve, i]) => `${curve.name}${curve.kind === "held out" ? " held out" : ""} ${curve.values[i]}`);
    output.textContent = `step ${Number(closest.steps[index]).toLocaleString("en")}: ${texts.join("; ")}`;
  });
  chart.addEventListener("pointerleave", () => {
    cursor.style.opacity = 0;
    output.textContent = before;
  });
}
// Tables that do not fit say so.
const measure = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  }
};
addEventListener("resize", measure);
document.addEventListener("toggle", measure, true);
measure();
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
