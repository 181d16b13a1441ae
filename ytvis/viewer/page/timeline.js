"use strict";
/* The bars: one per track, with gaps where it is not seen, and a lane for each kind of error. */

const ERROR_KINDS = ["missed", "false", "switched", "wrong_class"];
const ERROR_TITLES = { missed: "Missed", false: "False", switched: "Switched", wrong_class: "Class" };
const SVG = "http://www.w3.org/2000/svg";
const MOST_TICKS = 10;
const SWITCH_WIDTH = 0.007; // of the bar
const [SCORE_ONE, SCORE_ZERO] = [1.8, 8.2]; // heights on a bar, which is 10 high; that of 0.5 is the line in its middle

/** The ranges [start, end) of frames for which a test holds. */
function ranges(length, test) {
  const found = [];
  let start = -1;
  for (let frame = 0; frame <= length; frame++) {
    const holds = frame < length && test(frame);
    if (holds && start < 0) start = frame;
    if (!holds && start >= 0) {
      found.push([start, frame]);
      start = -1;
    }
  }
  return found;
}

/** "0–3, 6": ranges of frames by their first and last. */
function rangesText(found) {
  return found.map(([start, end]) => (end - start === 1 ? `${start}` : `${start}–${end - 1}`)).join(", ");
}

class Timeline {
  constructor(element, viewer) {
    this.element = element;
    this.viewer = viewer;
  }

  /** Makes the rows of a video. */
  open(video) {
    this.video = video;
    this.rows = [];
    this.lanes = [];
    this.headings = [];
    this.playheads = [];
    this.element.style.setProperty("--frames", video.length);
    const rows = [this.makeRuler()];
    for (const layer of video.layers) {
      const note = make("span", { className: "quiet" });
      const heading = make("h3", { className: "layer-title" }, `${PANE_TITLES[layer.kind]} `, note);
      this.headings.push({ layer, heading, note });
      rows.push(heading);
      if (layer.matches) rows.push(...ERROR_KINDS.map((kind) => this.makeLane(layer, kind)));
      rows.push(...layer.tracks.map((track) => this.makeRow(track)));
    }
    this.element.replaceChildren(...rows, this.makePlayhead());
    this.update();
  }

  /** Shows what is hidden, followed and wrong now. */
  update() {
    const { viewer } = this;
    for (const { layer, heading, note } of this.headings) {
      const visible = layer.tracks.filter((track) => viewer.isVisible(track)).length;
      const numbering = layer.kind === "prediction" && !this.video.has_ids ? " · no track ids: numbered in the order of the file" : "";
      note.textContent = `${visible} of ${layer.tracks.length} tracks · ${layer.file}${numbering}`;
      heading.hidden = !viewer.showsPane(layer.kind);
    }
    for (const { layer, kind, row, count, bar } of this.lanes) {
      const frames = viewer.errors(layer).map((errors) => errors.filter((error) => error.kind === kind).length);
      const sum = frames.reduce((total, number) => total + number, 0);
      row.hidden = !viewer.showsPane(layer.kind) || !viewer.shows("errors");
      count.textContent = sum;
      bar.replaceChildren(...ranges(this.video.length, (frame) => frames[frame]).map(([start, end]) =>
        rectangle(start, end, 1.5, 7)));
      bar.setAttribute("aria-label", sum ? `in frames ${rangesText(ranges(this.video.length, (frame) => frames[frame]))}` : "none");
    }
    for (const { track, row, button, marks } of this.rows) {
      row.hidden = !viewer.showsPane(track.layer.kind) || !viewer.isVisible(track);
      button.setAttribute("aria-pressed", track.group === viewer.followed);
      row.classList.toggle("dimmed", viewer.isDimmed(track));
      marks.replaceChildren(...(viewer.shows("errors") ? this.errorMarks(track) : []));
    }
  }

  setFrame(frame) {
    const transform = `translateX(${(100 * frame) / this.video.length}%)`; // needs no layout
    for (const playhead of this.playheads) playhead.style.transform = transform;
  }

  /** The frame under a pointer. */
  frameAt(bar, event) {
    const { left, width } = bar.getBoundingClientRect();
    return Math.floor(((event.clientX - left) / width) * this.video.length);
  }

  makeRuler() {
    const bar = make("div", { className: "bar ruler" });
    let step = 1;
    for (const factors = [2, 2.5, 2]; this.video.length / step > MOST_TICKS; factors.push(factors.shift())) step *= factors[0];
    for (let frame = 0; frame < this.video.length; frame += step) {
      const tick = make("span", {}, frame);
      tick.style.setProperty("--place", (frame + 0.5) / this.video.length);
      bar.append(tick);
    }
    bar.append(this.makePlayhead()); // its own: the ruler, which stays when bars are scrolled, is above the other
    this.makeSeekable(bar);
    return make("div", { className: "row top-row" }, make("span", { className: "label quiet" }, "Frame"), bar);
  }

  makePlayhead() {
    const playhead = make("div", { className: "playhead" });
    this.playheads.push(playhead);
    return make("div", { className: "playhead-range" }, playhead);
  }

  makeLane(layer, kind) {
    const bar = this.makeBar();
    bar.classList.add(kind);
    const count = make("span", { className: "count" });
    const row = make("div", { className: "row lane" }, make("span", { className: "label" }, ERROR_TITLES[kind], count), bar);
    this.lanes.push({ layer, kind, row, count, bar });
    this.makeSeekable(bar);
    return row;
  }

  makeRow(track) {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = track.colour;
    const button = make("button", { type: "button", className: "label track" }, swatch,
      make("span", { className: "name" }, track.title));
    if (track.score !== null) button.append(make("span", { className: "count" }, track.score.toFixed(2)));
    const seen = ranges(this.video.length, (frame) => track.masks[frame]);
    button.setAttribute("aria-label", [
      track.title,
      ...(track.score === null ? [] : [`score ${track.score.toFixed(2)}`]),
      ...scoreRange(track),
      seen.length ? `frames ${rangesText(seen)}` : "never seen",
    ].join(", "));
    button.title = button.getAttribute("aria-label");
    button.addEventListener("click", () => {
      this.viewer.follow(track.group);
      if (this.viewer.followed === track.group && seen.length && !track.masks[this.viewer.frame]) this.viewer.seek(seen[0][0]);
    });

    const bar = this.makeBar();
    bar.setAttribute("aria-hidden", "true");
    const shifted = new Set(track.shifted);
    const hasScore = (frame) => typeof track.scores[frame] === "number";
    for (const isScored of [false, true]) {
      for (const isShifted of [false, true]) {
        const found = ranges(this.video.length, (frame) =>
          track.masks[frame] && hasScore(frame) === isScored && shifted.has(frame) === isShifted);
        for (const [start, end] of found) {
          if (isScored) bar.append(...scoreShapes(track, start, end, isShifted));
          else bar.append(rectangle(start, end, isShifted ? 4 : 2, isShifted ? 2 : 6, track.colour));
        }
      }
    }
    if (track.scores.length) this.addTooltip(bar, track, shifted);
    const marks = document.createElementNS(SVG, "g");
    bar.append(marks);
    this.makeSeekable(bar, () => {
      if (this.viewer.followed !== track.group) this.viewer.follow(track.group);
    });
    const row = make("div", { className: "row" }, button, bar);
    this.rows.push({ track, row, button, marks });
    return row;
  }

  /** A tooltip about a track in the frame under the mouse. */
  addTooltip(bar, track, shifted) {
    const title = document.createElementNS(SVG, "title");
    bar.append(title);
    bar.addEventListener("pointermove", (event) => {
      const frame = Math.max(0, Math.min(this.frameAt(bar, event), this.video.length - 1));
      const score = track.scores[frame];
      const texts = [track.title, `frame ${frame}`];
      if (!track.masks[frame]) texts.push("not seen");
      else if (score !== null) texts.push(`score ${score.toFixed(2)}`);
      if (track.masks[frame] && shifted.has(frame)) texts.push("not detected, carried on");
      setOnce(title, "textContent", texts.join(", "));
    });
  }

  makeBar() {
    const bar = document.createElementNS(SVG, "svg");
    bar.setAttribute("class", "bar");
    bar.setAttribute("viewBox", `0 0 ${this.video.length} 10`);
    bar.setAttribute("preserveAspectRatio", "none");
    bar.setAttribute("role", "img");
    return bar;
  }

  makeSeekable(bar, tapped = () => {}) {
    onTapOrDrag(bar, {
      tap: (event) => {
        tapped();
        this.viewer.seek(this.frameAt(bar, event));
      },
      drag: (event) => this.viewer.seek(this.frameAt(bar, event)),
    });
  }

  /** Marks on a track's bar: a line along its lower side where it is wrong, across it where it took over. */
  errorMarks(track) {
    const layer = track.layer.kind === "truth" ? this.video.layers[0] : track.layer;
    const errors = this.viewer.errors(layer);
    return ERROR_KINDS.flatMap((kind) => {
      const found = ranges(this.video.length, (frame) =>
        errors[frame].some((error) => error.kind === kind && error.track === track));
      return found.map(([start, end]) => {
        const width = Math.min(0.5, SWITCH_WIDTH * this.video.length);
        const mark = kind === "switched" ? rectangle(start, start + width, 0, 10) : rectangle(start, end, 8.6, 1.4);
        mark.setAttribute("class", kind);
        return mark;
      });
    });
  }
}

/** The scores of its frames in the label of a track; nothing where they are not known. */
function scoreRange(track) {
  const scores = track.scores.filter((score, frame) => score !== null && track.masks[frame]);
  return scores.length ? [`from ${Math.min(...scores).toFixed(2)} to ${Math.max(...scores).toFixed(2)}`] : [];
}

/** A stretch of a bar whose height is the score of each frame, before a pale band of full height; where the object was
    not detected only a line. */
function scoreShapes(track, start, end, isShifted) {
  const steps = track.scores.slice(start, end)
    .map((score) => SCORE_ZERO + (SCORE_ONE - SCORE_ZERO) * Math.max(0, Math.min(score, 1)))
    .map((height, step) => `${step ? "V" : ""}${height.toFixed(2)}h1`).join("");
  const shape = document.createElementNS(SVG, "path");
  if (isShifted) {
    shape.setAttribute("class", "carried");
    shape.setAttribute("stroke", track.colour);
    shape.setAttribute("d", `M${start} ${steps}`);
    return [shape];
  }
  const band = rectangle(start, end, SCORE_ONE, SCORE_ZERO - SCORE_ONE, track.colour);
  band.setAttribute("class", "band");
  shape.setAttribute("fill", track.colour);
  shape.setAttribute("d", `M${start} ${SCORE_ZERO}V${steps}V${SCORE_ZERO}Z`);
  return [band, shape];
}

function rectangle(start, end, top, height, colour) {
  const shape = document.createElementNS(SVG, "rect");
  const values = { x: start, y: top, width: end - start, height, ...(colour && { fill: colour }) };
  for (const [key, value] of Object.entries(values)) shape.setAttribute(key, value);
  return shape;
}
