"use strict";

// Everything is on the page already; the script only sorts the tables, chooses the curves and reads values off them.

function sortBy(button) {
  const head = button.closest("th");
  const body = button.closest("table").tBodies[0];
  const column = head.cellIndex;
  const isText = column === 0;
  const first = isText ? "ascending" : "descending"; // who sorts by a score looks for the best, then for the worst
  const second = isText ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? second : first;
  for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const compare = isText
    ? (a, b) => a.cells[0].textContent.localeCompare(b.cells[0].textContent)
    : (a, b) => Number(a.cells[column].dataset.value) - Number(b.cells[column].dataset.value);
  body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
}

for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => sortBy(button));
}

const UNITS = 1000;
const STEPS = 100; // the protocol reads precision at 101 recalls
const plot = document.getElementById("plot");
const choice = document.getElementById("category");
const cursor = document.getElementById("cursor");
const readout = document.getElementById("readout");
let place = STEPS / 2;

/** The height of a polyline at x, in 0…1 from below. */
function heightAt(line, x) {
  const points = line.points;
  for (let index = 1; index < points.numberOfItems; index++) {
    const [left, right] = [points.getItem(index - 1), points.getItem(index)];
    if (x <= right.x) {
      const part = right.x > left.x ? (x - left.x) / (right.x - left.x) : 1;
      return 1 - (left.y + part * (right.y - left.y)) / UNITS;
    }
  }
  return 0;
}

function readAt(step) {
  place = Math.min(STEPS, Math.max(0, step));
  const group = [...plot.querySelectorAll("g")].find((one) => !one.classList.contains("hidden"));
  if (!group) return;
  const x = (UNITS * place) / STEPS;
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.classList.remove("hidden");
  const at = (name) => (100 * heightAt(group.querySelector(`.${name}`), x)).toFixed(1);
  readout.textContent =
    `Recall ${place} %: precision ${at("low")} at IoU 0.5, ${at("high")} at 0.75, ${at("mean")} in the mean.`;
}

choice.addEventListener("change", () => {
  for (const group of plot.querySelectorAll("g")) {
    group.classList.toggle("hidden", group.dataset.key !== choice.value);
  }
  readAt(place);
});

plot.addEventListener("pointermove", (event) => {
  const box = plot.getBoundingClientRect();
  readAt(Math.round((STEPS * (event.clientX - box.left)) / box.width));
});

plot.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: STEPS };
  if (!(event.key in steps)) return;
  event.preventDefault();
  readAt(steps[event.key]);
});
