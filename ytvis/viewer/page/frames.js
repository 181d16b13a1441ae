"use strict";
/* Frames of the open video, ready to be drawn, ahead of the one that is shown. */

const CACHE_BYTES = 320 * 2 ** 20;
const FRAMES_AHEAD = 16;
const FRAMES_BEHIND = 16; // kept for steps back
const LOADS_AT_ONCE = 4;
const PIXEL_BYTES = 4;
const MASK_BYTES = 200; // of the box around a mask
const BLURRED = 1.1; // a picture that is enlarged by more is made again
const SERVED = location.protocol.startsWith("http");

/** Loads frames of one video, and forgets those that playback reaches last.

    A frame is {picture, tints, masks, size, look, bytes}: the bitmap of its picture, null without one; for each layer
    the bitmap of its tinted masks, null without any, and the masks in it, large ones first, each {track, bounds}. */
class FrameStore {
  /** `wanted()` returns {size, look}: the size of the bitmaps, and how masks are drawn now (maker.js). */
  constructor(video, wanted) {
    this.video = video;
    this.wanted = wanted;
    this.frames = new Map();
    this.loading = new Map(); // frame → {promise, resolve}
    this.bytes = 0;
    this.current = 0; // never forgotten
    this.closed = false;
    const { width, height, frames } = video;
    const plain = { width, height, frames, layers: video.layers.map(({ tracks }) => tracks.map(({ masks }) => masks)) };
    this.maker = new FrameMaker(plain);
    this.worker = SERVED ? new Worker("worker.js") : null; // a page opened from a file may have none
    this.worker?.postMessage(plain);
    this.worker?.addEventListener("message", ({ data }) => this.loading.get(data.frame)?.resolve(data.made));
    this.worker?.addEventListener("error", () => this.dismissWorker());
  }

  /** Whether the frame is loaded, large enough for the screen. */
  has(frame) {
    return this.frames.get(frame)?.size.width * BLURRED >= this.wanted().size.width;
  }

  /** The frame if it is loaded and drawn with the current look; else null. */
  get(frame) {
    if (!this.has(frame)) return null;
    const made = this.frames.get(frame);
    const { size, look } = this.wanted();
    if (made.look !== look) this.repaint(made, frame, size, look);
    return made;
  }

  /** The frame, loaded if necessary; null if the store was closed meanwhile. */
  async load(frame) {
    return this.get(frame) ?? this.request(frame).promise;
  }

  /** The number of frames that half of the memory holds. */
  get room() {
    return this.bytes ? Math.floor((CACHE_BYTES / 2 / this.bytes) * this.frames.size) : 1;
  }

  /** Starts to load the current frame and those after it; half of the memory is for earlier frames. */
  loadAhead(loop) {
    const count = this.video.length;
    for (let step = 0; step <= Math.min(FRAMES_AHEAD, this.room, count - 1); step++) {
      if (this.loading.size >= LOADS_AT_ONCE || (this.current + step >= count && !loop)) return;
      const next = (this.current + step) % count;
      if (this.has(next) || this.loading.has(next)) continue;
      this.request(next).promise.then(() => {
        if (!this.closed) this.loadAhead(loop);
      });
    }
  }

  close() {
    this.closed = true;
    this.worker?.terminate();
    for (const { resolve } of this.loading.values()) resolve(null);
    for (const made of this.frames.values()) closeBitmaps(made);
    this.frames.clear();
  }

  request(frame) {
    const known = this.loading.get(frame);
    if (known) return known;
    const { size, look } = this.wanted();
    const request = { size, look };
    request.promise = new Promise((resolve) => {
      request.resolve = resolve;
    }).then((made) => this.keep(frame, request, made));
    this.loading.set(frame, request);
    this.send(frame, request);
    return request;
  }

  send(frame, { size, look, resolve }) {
    if (this.worker) this.worker.postMessage({ frame, size, look });
    else this.maker.make(frame, size, look).then(resolve);
  }

  /** If there is no worker after all, the page itself makes the frames. */
  dismissWorker() {
    this.worker.terminate();
    this.worker = null;
    for (const [frame, request] of this.loading) this.send(frame, request);
  }

  keep(frame, { size, look }, made) {
    this.loading.delete(frame);
    if (this.closed || !made) {
      if (made) closeBitmaps(made);
      return null;
    }
    this.forget(frame);
    const numbers = made.masks.reduce((sum, masks) => sum + masks.length, 0);
    const bitmaps = this.video.layers.length + 1; // tints that are null now may not stay so
    made.bytes = MASK_BYTES * numbers + bitmaps * PIXEL_BYTES * size.width * size.height;
    made.masks = made.masks.map((masks, layer) =>
      masks.map((mask) => ({ ...mask, track: this.video.layers[layer].tracks[mask.track] })));
    Object.assign(made, { size, look });
    this.frames.set(frame, made);
    this.bytes += made.bytes;
    while (this.bytes > CACHE_BYTES && this.frames.size > 2) this.forget(this.leastNeeded(frame));
    return this.get(frame) ?? made; // the screen may have changed meanwhile
  }

  /** The frame that looped playback reaches last; those just left count as the next. So a loop that is too long for the
      memory still finds most of its frames there, unlike if those used longest ago were forgotten. */
  leastNeeded(newest) {
    const count = this.video.length;
    const start = this.current - Math.min(FRAMES_BEHIND, Math.floor(this.room / 2)) + count;
    const others = [...this.frames.keys()].filter((frame) => frame !== this.current && frame !== newest);
    const wait = (frame) => (frame - start + 2 * count) % count;
    return others.reduce((last, frame) => (wait(frame) > wait(last) ? frame : last));
  }

  /** Draws the masks of a loaded frame with another look. */
  repaint(made, frame, size, look) {
    for (const tint of made.tints) tint?.close();
    made.tints = this.maker.paint(this.maker.decode(frame), size, look);
    made.look = look;
  }

  forget(frame) {
    const made = this.frames.get(frame);
    if (!made) return;
    this.frames.delete(frame);
    this.bytes -= made.bytes;
    closeBitmaps(made);
  }
}

function closeBitmaps({ picture, tints }) {
  picture?.close();
  for (const tint of tints) tint?.close();
}
