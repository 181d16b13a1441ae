"use strict";
/* COCO's compressed run-length masks: from the text of results.json to tinted pixels and hits.

   A mask is {width, height, columns, rows, bounds, area}: the stretches of its pixels down the columns, flat as
   [x, top, bottom, x, top, bottom, …], and along the rows, flat as [y, left, right, …], ends excluded; bounds is the
   smallest box {x, y, width, height} around them. Stretches are few: what is done with them costs as much as a mask's
   outline is long, not its area. */

/** The runs that compressed counts stand for: background, foreground, background, … */
function decodeCounts(text) {
  const runs = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    let scale = 1;
    let code;
    do {
      code = text.charCodeAt(at++) - 48; // after the end: NaN, which ends the number
      value += (code & 31) * scale; // not by shifts: those have 32 bits
      scale *= 32;
    } while (code & 32);
    if (code & 16) value -= scale;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/** The mask of an RLE, null if it is empty; runs that are wrong end at the mask's border. */
function decodeMask(rle) {
  const [height, width] = rle.size;
  const columns = columnStretches(decodeCounts(rle.counts), height, width);
  if (!columns.length) return null;
  const rows = rowStretches(columns, height);
  let [left, top, right, bottom, area] = [width, height, 0, 0, 0];
  for (let index = 0; index < columns.length; index += 3) {
    left = Math.min(left, columns[index]);
    right = Math.max(right, columns[index] + 1);
    top = Math.min(top, columns[index + 1]);
    bottom = Math.max(bottom, columns[index + 2]);
    area += columns[index + 2] - columns[index + 1];
  }
  return { width, height, columns, rows, bounds: { x: left, y: top, width: right - left, height: bottom - top }, area };
}

function columnStretches(runs, height, width) {
  const columns = [];
  let position = 0; // pixels are numbered down the columns
  runs.forEach((run, index) => {
    const end = Math.min(position + Math.max(run, 0), height * width);
    if (index % 2 === 0) position = end;
    while (position < end) {
      const x = Math.floor(position / height);
      const next = Math.min(end, (x + 1) * height);
      const top = position - x * height;
      const last = columns.length - 3;
      if (last >= 0 && columns[last] === x && columns[last + 2] === top) columns[last + 2] = next - x * height;
      else columns.push(x, top, next - x * height);
      position = next;
    }
  });
  return columns;
}

/** The same pixels along the rows: a stretch opens or ends where a column differs from the one before. */
function rowStretches(columns, height) {
  const rows = [];
  const lefts = new Int32Array(height); // of the stretch that is open in a row
  let before = []; // [top, bottom, top, bottom, …] of the column before
  const close = (x) => (y) => rows.push(y, lefts[y], x);
  for (let index = 0; index < columns.length; ) {
    const x = columns[index];
    const column = [];
    for (; columns[index] === x; index += 3) column.push(columns[index + 1], columns[index + 2]);
    forDifference(before, column, close(x));
    forDifference(column, before, (y) => {
      lefts[y] = x;
    });
    before = column;
    if (columns[index] !== x + 1) { // an empty column follows, or none
      forDifference(before, [], close(x + 1));
      before = [];
    }
  }
  return rows;
}

/** Calls visit(y) for each y in the stretches `some` that is not in `others`; both are flat and in order. */
function forDifference(some, others, visit) {
  let other = 0;
  for (let index = 0; index < some.length; index += 2) {
    let y = some[index];
    while (y < some[index + 1]) {
      while (other < others.length && others[other + 1] <= y) other += 2;
      const isInside = other < others.length && others[other] <= y;
      const stop = Math.min(some[index + 1], isInside ? others[other + 1] : others[other] ?? Infinity);
      if (isInside) y = stop;
      else while (y < stop) visit(y++);
    }
  }
}

/** Gives a mask's pixels the colour `fill`, those within `thickness` of its border `edge`.

    `pixels` is a Uint32Array of the mask's size, row by row; colours are numbers 0xAABBGGRR. */
function paintMask({ width, columns, rows }, pixels, fill, edge, thickness) {
  for (let index = 0; index < rows.length; index += 3) {
    const start = rows[index] * width + rows[index + 1];
    const end = rows[index] * width + rows[index + 2];
    pixels.fill(edge, start, end);
    if (end - start > 2 * thickness) pixels.fill(fill, start + thickness, end - thickness);
  }
  for (let index = 0; index < columns.length; index += 3) {
    const [x, top, bottom] = [columns[index], columns[index + 1], columns[index + 2]];
    for (let step = 0; step < Math.min(thickness, bottom - top); step++) {
      pixels[(top + step) * width + x] = edge;
      pixels[(bottom - 1 - step) * width + x] = edge;
    }
  }
}

/** Whether a mask covers the pixel x, y. */
function maskCovers({ columns }, x, y) {
  for (let index = 0; index < columns.length; index += 3) {
    if (columns[index] === x && columns[index + 1] <= y && y < columns[index + 2]) return true;
  }
  return false;
}
