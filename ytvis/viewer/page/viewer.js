"use strict";
/* The page: what is open, shown and followed, its controls, and the clock. */

const SPEEDS = [1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 24, 30, 60]; // frames per second
const USUAL_SPEED = 6; // where a video's is not known: YouTube-VIS has every fifth frame of videos at 30 per second
const EARLY = 4; // milliseconds before its time at which a frame may come, so that none waits a whole screen refresh
const MASK_OPACITY = 0.45;
const LEAP = 10; // frames that Shift and an arrow key move
const LIST_PAUSE = 250; // milliseconds between changes of the list of errors while playing
const SETTLED = 400; // milliseconds after which a screen reader announces the frame

const byId = (id) => document.getElementById(id);

/** The data called `name`: from the server, or from a script beside a page that was written as files. */
function loadData(name) {
  if (!("static" in document.documentElement.dataset)) {
    return fetch(`data/${name}.json`).then((response) => {
      if (!response.ok) throw new Error(`the server answered ${response.status}`);
      return response.json();
    });
  }
  return new Promise((resolve, reject) => {
    const script = make("script", { src: `data/${name}.js` });
    waiting.set(name, resolve);
    script.addEventListener("error", () => reject(new Error(`data/${name}.js cannot be read`)));
    script.addEventListener("load", () => script.remove());
    document.head.append(script);
  });
}

const waiting = new Map(); // name → what takes the data of a script

/** Called by the scripts in data/. */
function receiveData(name, data) {
  waiting.get(name)?.(data);
  waiting.delete(name);
}

class Viewer {
  constructor(index) {
    this.index = index;
    this.frame = 0; // the requested one; the stage may be late
    this.shown = -1;
    this.shownCount = 0;
    this.followed = null; // a group
    this.playing = false;
    this.listed = 0;
    this.speed = this.usualSpeed = USUAL_SPEED; // in frames per second; the video's own
    this.hiddenClasses = new Set();
    this.minScore = 0;
    this.minLength = 1;
    this.switches = { masks: true, labels: true, errors: true, loop: true };
    this.hiddenPanes = new Set();
    this.stage = new Stage(byId("stage"), this);
    this.timeline = new Timeline(byId("timeline"), this);
  }

  // ---------------------------------------------------------------- videos

  /** Shows another video, from `frame` on. */
  async open(place, frame = 0) {
    if (place < 0 || place >= this.index.videos.length) return;
    this.place = place;
    byId("video").value = place;
    byId("previous-video").disabled = place === 0;
    byId("next-video").disabled = place === this.index.videos.length - 1;
    let data;
    try {
      data = await loadData(`video-${place}`);
    } catch (error) {
      showProblem(`This video cannot be shown: ${error.message}.`);
      return;
    }
    if (this.place !== place) return; // another was opened meanwhile
    showProblem("");
    this.store?.close();
    this.video = this.prepare(data);
    this.store = new FrameStore(this.video, () => ({ size: this.stage.size, look: this.look }));
    this.followed = null;
    this.shown = -1;
    if (this.usualSpeed !== this.video.speed) this.speed = this.usualSpeed = this.video.speed;
    this.speeds = [...SPEEDS, this.usualSpeed].sort((a, b) => a - b);
    this.findErrors();
    this.findLook();
    this.stage.open(this.video);
    this.timeline.open(this.video);
    this.fillControls();
    this.seek(frame);
  }

  /** The video with values derived from its data. */
  prepare(data) {
    const video = { ...data, length: data.frames.length, speed: data.frame_rate ?? USUAL_SPEED };
    video.layers.forEach((layer, place) => {
      layer.file = this.index.layers[place].file;
      for (const track of layer.tracks) {
        const name = this.index.categories[track.category] ?? `class ${track.category}`;
        const [number, colour] = [video.numbers[track.group], video.colours[track.group]];
        Object.assign(track, { layer, name, number, colour, title: `#${number} ${name}` });
        track.length = track.masks.filter(Boolean).length;
      }
    });
    video.truth = video.layers.find(({ kind }) => kind === "truth");
    return video;
  }

  // ---------------------------------------------------------------- what is shown

  isVisible(track) {
    return !this.hiddenClasses.has(track.category) && track.length >= this.minLength &&
      (track.score === null || track.score >= this.minScore);
  }

  isDimmed(track) {
    return this.followed !== null && track.group !== this.followed;
  }

  shows(what) {
    return this.switches[what];
  }

  showsPane(kind) {
    return !this.hiddenPanes.has(kind);
  }

  /** For every frame the errors {kind, track, …} of a layer. */
  errors(layer) {
    return this.foundErrors.get(layer);
  }

  errorsAt(layer, frame) {
    const main = layer.kind === "truth" ? this.video.layers[0] : layer;
    return this.errors(main)[frame];
  }

  /** The errors under the filters: a hidden track is no error, but misses what it shows. */
  findErrors() {
    const truths = this.video.truth?.tracks ?? [];
    const noMatches = this.video.frames.map(() => ({}));
    this.foundErrors = new Map(this.video.layers.map((layer) => [layer, (layer.matches ?? noMatches).map((frame) => {
      const right = new Map((frame.matched ?? []).map(([track, truth]) => [layer.tracks[track], truths[truth]]));
      const passedOver = [...right].filter(([track]) => !this.isVisible(track)).map(([, truth]) => truth);
      const missed = [...(frame.missed ?? []).map((truth) => truths[truth]), ...passedOver];
      return [
        ...missed.map((track) => ({ kind: "missed", track })),
        ...(frame.false ?? []).map((place) => ({ kind: "false", track: layer.tracks[place] })),
        ...(frame.wrong_class ?? []).map((place) => {
          const track = layer.tracks[place];
          return { kind: "wrong_class", track, right: right.get(track).name };
        }),
        ...(frame.switched ?? []).map(([place, from]) =>
          ({ kind: "switched", track: layer.tracks[place], from: layer.tracks[from].number })),
      ].filter(({ track }) => this.isVisible(track));
    })]));
    this.wrongFrames = this.video.frames.map((_, frame) => frame)
      .filter((frame) => this.video.layers.some((layer) => this.errors(layer)[frame].length));
  }

  /** How masks are drawn now, see maker.js. It is a new object, so that frames drawn in another way are recognised. */
  findLook() {
    const layers = this.video.layers.map(({ kind, tracks }) => tracks.map((track) => {
      if (!this.switches.masks || !this.showsPane(kind) || !this.isVisible(track)) return null;
      const below = this.isDimmed(track);
      const [fill, edge] = [MASK_OPACITY, 1].map((opacity) => packColour(track.colour, below ? DIMMED * opacity : opacity));
      return { fill, edge, below };
    }));
    this.look = { layers };
  }

  /** Follows a group; nothing if it is followed already, or null. */
  follow(group) {
    this.followed = group === this.followed ? null : group;
    this.timeline.update();
    this.restyle();
  }

  /** After a change of what is visible. */
  refilter() {
    this.findErrors();
    this.stage.arrange();
    this.timeline.update();
    this.showFilters();
    this.restyle();
  }

  restyle() {
    this.findLook();
    this.redraw();
  }

  /** Draws the current frame again: at once, or when it is made in the size that is needed now. */
  async redraw() {
    const { store, shown } = this;
    if (!store || shown < 0) return;
    const made = store.get(shown) ?? await store.load(shown);
    if (this.store === store && this.shown === shown) this.show(made, shown);
  }

  show(made, frame) {
    this.shown = frame;
    this.stage.draw(made, frame);
    this.showNow();
  }

  // ---------------------------------------------------------------- time

  /** Shows a frame as soon as it is loaded; of many requested in a row, those that are too late are skipped. */
  async seek(frame) {
    this.frame = Math.max(0, Math.min(frame, this.video.length - 1));
    this.showPosition();
    if (this.playing) {
      this.startClock();
      return;
    }
    if (this.seeking === this.store) return;
    const store = this.store;
    this.seeking = store;
    while (this.shown !== this.frame && !this.playing) {
      const wanted = this.frame;
      store.current = wanted;
      const made = await store.load(wanted);
      if (this.store !== store) return;
      if (this.playing) break;
      this.shownCount += 1;
      this.show(made, wanted);
    }
    this.seeking = null;
    store.loadAhead(this.switches.loop);
  }

  step(frames) {
    this.pause();
    this.seek(this.frame + frames);
  }

  /** Goes to the nearest frame with an error after this one, or before it for -1. */
  goToError(direction) {
    const there = direction > 0
      ? this.wrongFrames.find((frame) => frame > this.frame)
      : this.wrongFrames.findLast((frame) => frame < this.frame);
    this.pause();
    if (there === undefined) announce(direction > 0 ? "No error after this frame" : "No error before this frame");
    else this.seek(there);
  }

  play() {
    if (this.playing) return;
    if (this.frame === this.video.length - 1) this.frame = 0;
    this.playing = true;
    this.startClock();
    this.ticking = requestAnimationFrame((now) => this.tick(now));
    this.showPlaying();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    cancelAnimationFrame(this.ticking);
    this.showPlaying();
    this.seek(this.frame);
    this.showNow();
  }

  /** Restarts the clock at the requested frame. */
  startClock() {
    this.clock = { since: performance.now(), from: this.frame, shown: this.frame === this.shown ? 0 : -1 };
  }

  /** Shows the newest frame that is due and made: time never waits, late frames are skipped. */
  tick(now) {
    this.ticking = requestAnimationFrame((later) => this.tick(later));
    const { clock, store, video } = this;
    const last = video.length - 1 - clock.from; // counted from where the clock was started, as `due` is
    const passed = Math.max(0, Math.floor(((now + EARLY - clock.since) * this.speed) / 1000));
    const due = this.switches.loop ? passed : Math.min(passed, last);
    const frameAt = (count) => (clock.from + count) % video.length;
    store.current = frameAt(due);
    const oldest = Math.max(clock.shown, due - video.length);
    let newest = due;
    while (newest > oldest && !store.has(frameAt(newest))) newest -= 1;
    if (newest > oldest) {
      clock.shown = newest;
      this.frame = frameAt(newest);
      this.shownCount += 1;
      this.show(store.get(this.frame), this.frame);
      this.showPosition();
    }
    store.loadAhead(this.switches.loop);
    if (!this.switches.loop && passed > last && clock.shown === last) this.pause();
  }

  /** Plays at the next higher (1) or lower (-1) of the usual speeds and the video's own. */
  changeSpeed(direction) {
    const further = this.speeds.filter((speed) => (speed - this.speed) * direction > 0);
    if (further.length) this.speed = further.at(direction > 0 ? 0 : -1);
    this.startClock();
    this.showPlaying();
  }

  // ---------------------------------------------------------------- texts

  showPlaying() {
    byId("play").classList.toggle("playing", this.playing);
    byId("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    byId("speed").textContent = `${Number(this.speed.toFixed(2))} fps`;
    byId("slower").disabled = this.speed === this.speeds[0];
    byId("faster").disabled = this.speed === this.speeds.at(-1);
  }

  showPosition() {
    const { frame, video } = this;
    byId("frame").value = frame;
    byId("frame").setAttribute("aria-valuetext", `Frame ${frame}, the last is ${video.length - 1}`);
    byId("position").textContent = `${frame} / ${video.length - 1}`;
    byId("frame-name").textContent = video.names[frame] + (video.frames[frame] ? "" : " (missing)");
    this.timeline.setFrame(frame);
    clearTimeout(this.settling);
    if (!this.playing) this.settling = setTimeout(() => this.settle(), SETTLED);
  }

  /** When a frame has stayed for a while: keeps the place in the address, and informs screen readers. */
  settle() {
    const { id } = this.index.videos[this.place];
    history.replaceState(null, "", `#video=${id}&frame=${this.frame}`);
    const errors = this.video.layers.flatMap((layer) => (layer.matches ? this.errorsAt(layer, this.frame) : []));
    const text = `Frame ${this.frame}, the last is ${this.video.length - 1}`;
    announce(this.video.truth ? `${text}, ${errors.length || "no"} errors` : text);
  }

  /** Lists the errors of the frame, or else what is seen in it; not for every frame of a fast video. */
  showNow() {
    const now = performance.now();
    if (this.playing && now < this.listed + LIST_PAUSE) return;
    this.listed = now;
    const layers = this.video.layers.filter(({ kind, matches }) => matches && this.showsPane(kind));
    const items = layers.flatMap((layer) => {
      const errors = this.errorsAt(layer, this.shown).map((error) => {
        const detail = ["switched", "wrong_class"].includes(error.kind) ? `, ${errorText(error)}` : "";
        return this.nowItem(error.track, error.track.title + detail, error.kind);
      });
      return layers.length > 1 && errors.length ? [make("li", { className: "quiet" }, PANE_TITLES[layer.kind]), ...errors] : errors;
    });
    if (!this.video.truth) {
      const tracks = this.video.layers[0].tracks.filter((track) => track.masks[this.shown] && this.isVisible(track));
      items.push(...tracks.map((track) => this.nowItem(track, `${track.title} ${scoreIn(track, this.shown).toFixed(2)}`)));
    }
    const nothing = this.video.truth ? "No errors." : "Nothing was found.";
    byId("now").replaceChildren(...(items.length ? items : [make("li", { className: "quiet" }, nothing)]));
  }

  nowItem(track, text, kind) {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = track.colour;
    const button = make("button", { type: "button" }, swatch, make("span", { className: "name" }, text));
    if (kind) button.prepend(make("span", { className: `badge ${kind}` }, ERROR_TITLES[kind]));
    button.addEventListener("click", () => this.follow(track.group));
    return make("li", {}, button);
  }

  // ---------------------------------------------------------------- controls

  /** Sets the controls to the open video. */
  fillControls() {
    const { video } = this;
    const name = this.index.videos[this.place].name;
    document.title = `${name} – STMask viewer`;
    byId("frame").max = video.length - 1;
    byId("min-length").max = video.length;
    this.minLength = Math.min(this.minLength, video.length);
    byId("error-buttons").hidden = !video.truth;
    byId("show-errors-label").hidden = !video.truth;
    byId("help-errors").hidden = !video.truth;
    byId("help-scores").hidden = !video.layers.some(({ tracks }) => tracks.some(({ scores }) => scores.length));
    byId("help-shifted").hidden = !video.layers.some(({ tracks }) => tracks.some(({ shifted }) => shifted.length));
    const names = new Map(video.layers.flatMap(({ tracks }) => tracks).map(({ category, name }) => [category, name]));
    byId("classes").replaceChildren(...[...names].sort(([a], [b]) => a - b).map(([category, name]) =>
      checkbox(name, !this.hiddenClasses.has(category), (isOn) => {
        if (isOn) this.hiddenClasses.delete(category);
        else this.hiddenClasses.add(category);
        this.refilter();
      })));
    byId("panes").replaceChildren(...(video.layers.length < 2 ? [] : video.layers.map(({ kind }) =>
      checkbox(PANE_TITLES[kind], this.showsPane(kind), (isOn) => {
        if (isOn) this.hiddenPanes.delete(kind);
        else this.hiddenPanes.add(kind);
        this.refilter();
      }))));
    this.showFilters();
    this.showPlaying();
  }

  showFilters() {
    const { video } = this;
    byId("min-score").value = this.minScore;
    byId("min-length").value = this.minLength;
    byId("min-score-value").textContent = this.minScore.toFixed(2);
    byId("min-length-value").textContent = this.minLength === 1 ? "1 frame" : `${this.minLength} frames`;
    const tracks = video.layers.flatMap((layer) => layer.tracks);
    const hidden = tracks.filter((track) => !this.isVisible(track)).length;
    byId("filtered").textContent = hidden ? `${hidden} of ${tracks.length} tracks hidden` : "";
    byId("reset-filters").disabled = hidden === 0;
  }

  resetFilters() {
    this.hiddenClasses.clear();
    this.minScore = 0;
    this.minLength = 1;
    this.fillControls();
    this.refilter();
  }

  toggle(what) {
    this.switches[what] = !this.switches[what];
    byId(what === "loop" ? "loop" : `show-${what}`).checked = this.switches[what];
    this.timeline.update();
    if (what === "masks") this.findLook();
    this.redraw();
  }

  connectControls() {
    const { index } = this;
    byId("video").append(...index.videos.map(({ name, tracks }, place) =>
      make("option", { value: place }, `${name} (${tracks === 1 ? "1 track" : `${tracks} tracks`})`)));
    byId("video").addEventListener("change", (event) => this.open(Number(event.target.value)));
    byId("frame").addEventListener("input", (event) => {
      this.pause();
      this.seek(Number(event.target.value));
    });
    byId("min-score").addEventListener("input", (event) => {
      this.minScore = Number(event.target.value);
      this.refilter();
    });
    byId("min-length").addEventListener("input", (event) => {
      this.minLength = Number(event.target.value);
      this.refilter();
    });
    for (const what of ["masks", "labels", "errors"]) byId(`show-${what}`).addEventListener("change", () => this.toggle(what));
    byId("loop").addEventListener("change", () => this.toggle("loop"));
    const actions = {
      "previous-video": () => this.open(this.place - 1),
      "next-video": () => this.open(this.place + 1),
      "help-button": () => byId("help").showModal(),
      first: () => this.step(-Infinity),
      back: () => this.step(-1),
      play: () => (this.playing ? this.pause() : this.play()),
      forward: () => this.step(1),
      last: () => this.step(Infinity),
      "previous-error": () => this.goToError(-1),
      "next-error": () => this.goToError(1),
      slower: () => this.changeSpeed(-1),
      faster: () => this.changeSpeed(1),
      "reset-filters": () => this.resetFilters(),
    };
    for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
    // A mouse leaves the keys to the page: Space must play, not press again the button that was clicked.
    document.addEventListener("click", (event) => {
      if (event.detail > 0) event.target.closest("button")?.blur();
    });
    document.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener("hashchange", () => this.open(...placeInAddress(index)));
  }

  onKey(event) {
    const target = event.target.closest("input, select, button, summary, dialog");
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open || !this.video) return;
    if (target?.matches("select")) return;
    const ownKeys = { range: ["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"], checkbox: [" "] };
    if (target && target.id !== "frame" && (ownKeys[target.type] ?? []).includes(event.key)) return;
    if (event.key === " " && target?.matches("button, summary")) return;
    const leap = event.shiftKey ? LEAP : 1;
    const action = {
      " ": () => (this.playing ? this.pause() : this.play()),
      ArrowLeft: () => this.step(-leap),
      ArrowRight: () => this.step(leap),
      Home: () => this.step(-Infinity),
      End: () => this.step(Infinity),
      PageUp: () => this.open(this.place - 1),
      PageDown: () => this.open(this.place + 1),
      "+": () => this.changeSpeed(1),
      "=": () => this.changeSpeed(1),
      "-": () => this.changeSpeed(-1),
      "[": () => this.goToError(-1),
      "]": () => this.goToError(1),
      "?": () => byId("help").showModal(),
      Escape: () => this.follow(null),
      m: () => this.toggle("masks"),
      l: () => this.toggle("labels"),
      e: () => this.video.truth && this.toggle("errors"),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

function checkbox(text, isOn, changed) {
  const input = make("input", { type: "checkbox", checked: isOn });
  input.addEventListener("change", () => changed(input.checked));
  return make("label", {}, input, " ", text);
}

function announce(text) {
  byId("announcement").textContent = text;
}

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

/** The score of a track in a frame, where it is known, or else that of the whole track; null for the truth. */
function scoreIn(track, frame) {
  return track.scores[frame] ?? track.score;
}

/** The place of the video named by the address, from 0, and the frame. */
function placeInAddress(index) {
  const values = new URLSearchParams(location.hash.slice(1));
  const place = index.videos.findIndex(({ id }) => String(id) === values.get("video"));
  return place < 0 ? [0, 0] : [place, Number(values.get("frame")) || 0];
}

let viewer = null;

async function start() {
  try {
    viewer = new Viewer(await loadData("index"));
  } catch (error) {
    showProblem(`The results cannot be shown: ${error.message}.`);
    return;
  }
  // On a phone the pictures and bars come first.
  if (matchMedia("(max-width: 800px)").matches) for (const id of ["filters", "show"]) byId(id).open = false;
  viewer.connectControls();
  await viewer.open(...placeInAddress(viewer.index));
}

start();
