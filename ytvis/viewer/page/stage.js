"use strict";
/* The pictures: one pane a layer, each of two canvases: the frame with its tinted masks, in the video's own pixels or in
   the screen's if those are fewer, and labels, boxes and errors above them in the screen's pixels. Where masks overlap,
   the smallest is on top. */

const PANE_TITLES = { prediction: "Prediction", truth: "Truth", compare: "Compared" };
const DIMMED = 0.25; // opacity of all others while a group is followed
const ERROR_COLOURS = { missed: "#ff6b6b", false: "#ffb020", switched: "#d9a0ff", wrong_class: "#4fd6c4" };
const DASHES = [6, 4];
const TAG_FONT_SIZE = 12; // CSS pixels, as all lengths on the upper canvas
const TAG_HEIGHT = 18;
const TAG_TRIES = 6; // places in a box where a tag may go
const TAP_SLACK = 6; // a pointer that moves less has tapped

/** Calls tap(event) for a click or tap on an element, drag(event, start) while a pointer is dragged sideways over it,
    where `start` is what begin() gave when it went down. */
function onTapOrDrag(element, { tap, drag, begin = () => null }) {
  let down = null;
  element.addEventListener("pointerdown", (event) => {
    if (event.isPrimary && event.button === 0) down = { x: event.clientX, start: begin(), dragging: false };
  });
  element.addEventListener("pointermove", (event) => {
    if (!down || !event.isPrimary) return;
    if (!event.buttons) {
      down = null; // released outside
      return;
    }
    if (!down.dragging && Math.abs(event.clientX - down.x) > TAP_SLACK) {
      down.dragging = true;
      down.x = event.clientX;
      element.setPointerCapture(event.pointerId);
    }
    if (down.dragging) drag(event, { x: down.x, value: down.start });
  });
  element.addEventListener("pointerup", (event) => {
    if (down && !down.dragging) tap(event);
    down = null;
  });
  element.addEventListener("pointercancel", () => {
    down = null; // the browser scrolls the page instead
  });
}

/** Black or white, whichever reads better on "#rrggbb". */
function textColourOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
}

/** A new element with properties, and children that are elements or text: text is never read as HTML. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Sets a property if it has another value: setting the same one may cost a layout, and clears a canvas. */
function setOnce(object, key, value) {
  if (String(object[key]) !== String(value)) object[key] = value;
}

class Stage {
  constructor(element, viewer) {
    this.element = element;
    this.viewer = viewer;
    this.panes = [];
    this.resized = new ResizeObserver((entries) => {
      // Kept, because reading it while drawing would make the browser lay out the page again.
      for (const { target, contentRect } of entries) this.setSize(target, contentRect);
      this.viewer.redraw();
    });
  }

  /** Makes a pane for each layer of a video. */
  open(video) {
    this.resized.disconnect();
    this.video = video;
    this.element.style.setProperty("--aspect", video.width / video.height);
    this.panes = video.layers.map((layer) => this.makePane(layer));
    this.element.replaceChildren(...this.panes.map(({ figure }) => figure));
    this.arrange();
    for (const { screen } of this.panes) {
      this.setSize(screen, screen.getBoundingClientRect());
      this.resized.observe(screen);
    }
  }

  /** Shows the panes that are chosen, and no others. */
  arrange() {
    for (const { figure, layer } of this.panes) figure.hidden = !this.viewer.showsPane(layer.kind);
    this.element.dataset.panes = this.panes.filter(({ figure }) => !figure.hidden).length;
  }

  setSize(screen, { width, height }) {
    this.panes.find((pane) => pane.screen === screen).size = { width, height };
    const widest = Math.max(1, ...this.panes.map(({ size }) => size.width)) * window.devicePixelRatio;
    const scale = Math.min(1, widest / this.video.width);
    const [across, down] = [this.video.width, this.video.height].map((side) => Math.max(1, Math.round(scale * side)));
    if (this.size?.width === across && this.size.height === down) return;
    /** Of the bitmaps that are drawn. */
    this.size = { width: across, height: down };
  }

  makePane(layer) {
    const picture = make("canvas", { className: "picture" });
    const overlay = make("canvas", { className: "overlay" });
    const screen = make("div", { className: "screen" }, picture, overlay);
    screen.setAttribute("role", "img");
    const count = make("span", { className: "quiet" });
    const title = make("b", {}, PANE_TITLES[layer.kind]);
    const file = make("span", { className: "file", title: layer.file }, layer.file);
    const figure = make("figure", { className: "pane" }, make("figcaption", {}, title, " ", file, " ", count), screen);
    figure.dataset.kind = layer.kind;
    const pane = { layer, figure, screen, picture, tint: null, overlay, count, masks: [], size: { width: 0, height: 0 } };
    onTapOrDrag(screen, {
      begin: () => this.viewer.frame,
      tap: (event) => this.viewer.follow(this.groupAt(pane, event)),
      drag: (event, start) => {
        const frames = ((event.clientX - start.x) / screen.clientWidth) * this.video.length;
        this.viewer.seek(start.value + Math.round(frames));
      },
    });
    return pane;
  }

  /** Draws what `made` (of FrameStore) holds of a frame into every pane that is shown. */
  draw(made, frame) {
    const { viewer } = this;
    const boxes = new Map(made.masks.flat().map(({ track, bounds }) => [track, bounds]));
    this.panes.forEach((pane, place) => {
      if (pane.figure.hidden) return;
      const masks = made.masks[place].filter(({ track }) => viewer.isVisible(track));
      // The followed object is above all others.
      pane.masks = masks.sort((a, b) => viewer.isDimmed(b.track) - viewer.isDimmed(a.track));
      pane.tint = made.tints[place];
      setOnce(pane.count, "textContent", masks.length === 1 ? "1 track" : `${masks.length} tracks`);
      const description = `${PANE_TITLES[pane.layer.kind]}, frame ${frame}: ${pane.count.textContent}`;
      pane.screen.setAttribute("aria-label", description);
      this.drawPicture(pane, made);
      this.drawOverlay(pane, made.picture, boxes, frame);
    });
    this.frame = frame;
    setOnce(this.element.dataset, "frame", frame);
  }

  drawPicture({ picture: canvas, tint }, { picture, size: { width, height } }) {
    setOnce(canvas, "width", width);
    setOnce(canvas, "height", height);
    const context = canvas.getContext("2d");
    if (picture) context.drawImage(picture, 0, 0);
    else context.clearRect(0, 0, width, height);
    if (tint) context.drawImage(tint, 0, 0, width, height);
  }

  /** `boxes` are the bounds of all tracks in the frame. */
  drawOverlay({ overlay, layer, masks, size }, picture, boxes, frame) {
    const { viewer } = this;
    const draw = new OverlayDrawer(overlay, size, this.video);
    const reasons = [`no picture: ${this.video.names[frame]} is missing or damaged`, "no picture"];
    if (!picture) draw.tag(reasons, [0, draw.width, 0, draw.height], "#ffffff", 1);
    const errors = viewer.shows("errors") ? viewer.errorsAt(layer, frame) : [];
    const ofTrack = new Map(errors.filter(({ kind }) => kind !== "missed").map((error) => [error.track, error]));
    const missed = errors.filter(({ kind }) => kind === "missed").map(({ track }) => track);
    const tags = []; // after all boxes, so that no box crosses a text
    for (const { track, bounds } of masks) {
      const error = ofTrack.get(track);
      const isFollowed = track.group === viewer.followed;
      const strength = viewer.isDimmed(track) ? DIMMED : 1;
      const box = draw.box(bounds);
      if (error || (layer.kind === "truth" && missed.includes(track))) {
        draw.frame(box, ERROR_COLOURS[error ? error.kind : "missed"], DASHES, strength);
      } else if (isFollowed) {
        draw.frame(box, "#ffffff", [], strength);
      }
      if (viewer.shows("labels") || error || isFollowed) {
        tags.push([tagTexts(track, frame, error), box, error ? ERROR_COLOURS[error.kind] : track.colour, strength]);
      }
    }
    for (const track of layer.kind === "truth" ? [] : missed) {
      const strength = viewer.isDimmed(track) ? DIMMED : 1;
      const box = draw.box(boxes.get(track));
      draw.frame(box, ERROR_COLOURS.missed, DASHES, strength);
      tags.push([[`missed: ${track.title}`, `missed: #${track.number}`], box, ERROR_COLOURS.missed, strength]);
    }
    for (const tag of tags) draw.tag(...tag);
  }

  /** The group of the topmost visible mask under a pointer; null where there is none. */
  groupAt({ screen, masks }, event) {
    const { left, top, width, height } = screen.getBoundingClientRect();
    const x = Math.floor(((event.clientX - left) / width) * this.video.width);
    const y = Math.floor(((event.clientY - top) / height) * this.video.height);
    return masks.findLast(({ track }) => maskCovers(decodeMask(track.masks[this.frame]), x, y))?.track.group ?? null;
  }
}

/** The possible texts of a tag for a track in a frame and its error, longest first. */
function tagTexts(track, frame, error) {
  const texts = [track.title, `#${track.number}`];
  if (track.score !== null) texts.unshift(`${track.title} ${scoreIn(track, frame).toFixed(2)}`);
  if (track.crowd) texts.unshift(`${track.title} (crowd)`);
  return error ? texts.map((text) => `${text} · ${errorText(error)}`) : texts;
}

/** The name of an error beside its track. */
function errorText({ kind, from, right }) {
  return { missed: "missed", false: "false", switched: `was #${from}`, wrong_class: `is ${right}` }[kind];
}

/** Draws on the upper canvas, which is cleared first. A box, as `box` gives it, is [left, right, top, bottom] in CSS
    pixels; a strength is an opacity. */
class OverlayDrawer {
  constructor(canvas, { width, height }, video) {
    Object.assign(this, { width, height, video, taken: [], context: canvas.getContext("2d") });
    setOnce(canvas, "width", Math.round(width * window.devicePixelRatio));
    setOnce(canvas, "height", Math.round(height * window.devicePixelRatio));
    this.context.setTransform(window.devicePixelRatio, 0, 0, window.devicePixelRatio, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    this.context.font = `600 ${TAG_FONT_SIZE}px system-ui, sans-serif`;
    this.context.textBaseline = "middle";
  }

  /** The box of a mask's bounds, which are in pixels of the video. */
  box({ x, y, width, height }) {
    const [across, down] = [this.width / this.video.width, this.height / this.video.height];
    return [x * across, (x + width) * across, y * down, (y + height) * down];
  }

  frame([left, right, top, bottom], colour, dashes, strength) {
    const { context } = this;
    context.globalAlpha = strength;
    const [x, y] = [Math.max(1.5, left), Math.max(1.5, top)];
    const rectangle = [x, y, Math.min(this.width - 1.5, right) - x, Math.min(this.height - 1.5, bottom) - y];
    context.setLineDash([]);
    context.lineWidth = 3;
    context.strokeStyle = "rgb(0 0 0 / 60%)";
    context.strokeRect(...rectangle);
    context.setLineDash(dashes);
    context.lineWidth = 2;
    context.strokeStyle = colour;
    context.strokeRect(...rectangle);
  }

  /** The first of the texts that is at most half as wide as the picture, on the box, or else under or in it: at the
      first place inside the picture that is free. */
  tag(texts, [boxLeft, , boxTop, boxBottom], colour, strength) {
    const { context } = this;
    context.globalAlpha = strength;
    const widthOf = (text) => Math.ceil(context.measureText(text).width) + 8;
    const text = texts.find((candidate) => widthOf(candidate) <= this.width / 2) ?? texts.at(-1);
    const width = widthOf(text);
    const left = Math.max(0, Math.min(boxLeft, this.width - width));
    const lower = Array.from({ length: TAG_TRIES }, (_, step) => boxTop + step * TAG_HEIGHT);
    const tops = [boxTop - TAG_HEIGHT, boxBottom, ...lower].map((top) =>
      Math.max(0, Math.min(top, this.height - TAG_HEIGHT)));
    const isFree = (top) =>
      !this.taken.some(([x, y, size]) => Math.abs(top - y) < TAG_HEIGHT && left < x + size && x < left + width);
    const top = tops.find(isFree) ?? tops[0];
    this.taken.push([left, top, width]);
    context.fillStyle = colour;
    context.fillRect(left, top, width, TAG_HEIGHT);
    context.fillStyle = textColourOn(colour);
    context.fillText(text, left + 4, top + TAG_HEIGHT / 2 + 0.5);
  }
}
