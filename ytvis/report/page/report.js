"use strict";

// Everything is on the page already; the script only sorts the tables, selects the curves and reads values off them.

function sortBy(button) {
  const head = button.closest("th");
  const body = button.closest("table").tBodies[0];
  const column = head.cellIndex;
  const isText = column === 0;
  const first = isText ? "ascending" : "descending"; // of scores the best come first, then the worst
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

const STEPS = 100; // the protocol reads precision at 101 recalls
const plot = document.getElementById("plot");
const area = document.getElementById("area");
const choice = document.getElementById("category");
const cursor = document.getElementById("cursor");
const readout = document.getElementById("readout");
let place = STEPS / 2;

/** The corners [x, y] of a line, in the units of the drawing. */
function corners(line) {
  const numbers = line.getAttribute("d").match(/[\d.]+/g).map(Number);
  return numbers.flatMap((x, index) => (index % 2 ? [] : [[x, numbers[index + 1]]]));
}

/** The height of a line at x, in the units of the drawing. */
function heightAt(line, x) {
  let [leftX, leftY] = [-Infinity, 0];
  for (const [rightX, rightY] of corners(line)) {
    if (x <= rightX) return leftX < 0 ? rightY : leftY + ((x - leftX) / (rightX - leftX)) * (rightY - leftY);
    [leftX, leftY] = [rightX, rightY];
  }
  return leftY;
}

function readAt(step) {
  place = Math.min(STEPS, Math.max(0, step));
  const shown = plot.querySelector(".curves:not(.hidden)");
  if (!shown) return;
  const frame = area.getBBox();
  const shift = (frame.width * place) / STEPS;
  cursor.setAttribute("transform", `translate(${shift} 0)`);
  cursor.classList.add("shown");
  const [mean, low, high] = [...shown.children].map((line) =>
    ((100 * (frame.y + frame.height - heightAt(line, frame.x + shift))) / frame.height).toFixed(1),
  );
  readout.textContent = `Recall ${place} %: precision ${low} at IoU 0.5, ${high} at 0.75, ${mean} in the mean.`;
}

choice.addEventListener("change", () => {
  for (const curves of plot.querySelectorAll(".curves")) {
    curves.classList.toggle("hidden", curves.dataset.key !== choice.value);
  }
  readAt(place);
});

plot.addEventListener("pointermove", (event) => {
  const box = area.getBoundingClientRect();
  readAt(Math.round((STEPS * (event.clientX - box.left)) / box.width));
});

plot.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: STEPS };
  if (!(event.key in steps)) return;
  event.preventDefault();
  readAt(steps[event.key]);
});
