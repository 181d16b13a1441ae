"use strict";
/* Frames of the open video, ready to be drawn: pictures and masks decoded, ahead of the one that is shown. */

const CACHE_BYTES = 320 * 2 ** 20;
const FRAMES_AHEAD = 16;
const LOADS_AT_ONCE = 4;
const NUMBER_BYTES = 8;
const SERVED = location.protocol.startsWith("http");

/** A picture as an ImageBitmap; null if there is none or it does not decode. */
async function loadPicture(url) {
  if (!url) return null;
  try {
    if (SERVED) { // decodes beside the page's own thread
      const response = await fetch(url);
      return response.ok ? await createImageBitmap(await response.blob()) : null;
    }
    const image = new Image();
    image.src = url;
    await image.decode();
    return await createImageBitmap(image);
  } catch (error) {
    return null;
  }
}

/** Loads frames of one video, and forgets those used longest ago.

    A frame is {picture, layers, bytes}: for each layer the masks in it, large ones first, each {track, mask}. */
class FrameStore {
  constructor(video) {
    this.video = video;
    this.frames = new Map(); // used longest ago first
    this.loading = new Map();
    this.bytes = 0;
    this.current = 0; // never forgotten
    this.closed = false;
  }

  /** The frame, at once if it is there; null if the store was closed meanwhile. */
  async load(frame) {
    const ready = this.frames.get(frame);
    if (ready) {
      this.frames.delete(frame);
      this.frames.set(frame, ready);
      return ready;
    }
    if (!this.loading.has(frame)) this.loading.set(frame, this.make(frame));
    return this.loading.get(frame);
  }

  /** Starts to load what comes after the current frame; half of the memory is for what was. */
  loadAhead(loop) {
    const count = this.video.length;
    const size = this.bytes / Math.max(this.frames.size, 1);
    const room = size ? Math.floor(CACHE_BYTES / 2 / size) : 1;
    for (let step = 1; step <= Math.min(FRAMES_AHEAD, room, count - 1); step++) {
      if (this.loading.size >= LOADS_AT_ONCE || (this.current + step >= count && !loop)) return;
      const next = (this.current + step) % count;
      if (this.frames.has(next) || this.loading.has(next)) continue;
      this.load(next).then(() => {
        if (!this.closed) this.loadAhead(loop);
      });
    }
  }

  close() {
    this.closed = true;
    for (const { picture } of this.frames.values()) picture?.close();
    this.frames.clear();
  }

  async make(frame) {
    const picture = await loadPicture(this.video.frames[frame]);
    this.loading.delete(frame);
    if (this.closed) {
      picture?.close();
      return null;
    }
    const layers = this.video.layers.map((layer) => this.decodeLayer(layer, frame));
    const numbers = layers.flat().reduce((sum, { mask }) => sum + mask.columns.length + mask.rows.length, 0);
    const bytes = NUMBER_BYTES * numbers + (picture ? 4 * picture.width * picture.height : 0);
    const made = { picture, layers, bytes };
    this.frames.set(frame, made);
    this.bytes += bytes;
    this.forget(frame);
    return made;
  }

  decodeLayer(layer, frame) {
    return layer.tracks
      .map((track) => ({ track, mask: track.masks[frame] && decodeMask(track.masks[frame]) }))
      .filter(({ mask }) => mask)
      .sort((a, b) => b.mask.area - a.mask.area);
  }

  forget(newest) {
    for (const [frame, made] of this.frames) {
      if (this.bytes <= CACHE_BYTES) return;
      if (frame === this.current || frame === newest) continue;
      this.frames.delete(frame);
      this.bytes -= made.bytes;
      made.picture?.close();
    }
  }
}
