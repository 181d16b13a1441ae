"use strict";
/* Makes a frame ready to be drawn: its picture and its tinted masks as bitmaps of the size they are shown in.

   The same code runs in a worker, ahead of the frame that is shown, and in the page itself: where a page may have no
   worker (opened from a file), and for the frame on the screen when its masks take another look.

   A look says how the masks of a video are drawn: {layers}, for each layer one entry per track: null for a track
   that is not drawn, else {fill, edge, below}: two numbers as paintMask takes them, and whether it is below those that
   are not. */

const LINE_PARTS = 360; // a mask's border is as wide as the frame's shorter side divided by this

/** "#rrggbb" and an opacity as the number that paintMask takes. */
function packColour(colour, opacity) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return ((Math.round(opacity * 255) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** A picture as an ImageBitmap of its own size; null if there is none or it does not decode. */
async function loadPicture(url) {
  if (!url) return null;
  try {
    if (self.location.protocol.startsWith("http")) { // decodes outside the calling thread
      const response = await fetch(url);
      return response.ok ? await createImageBitmap(await response.blob()) : null;
    }
    const image = new Image(); // a page opened from a file may not fetch
    image.src = url;
    await image.decode();
    return await createImageBitmap(image);
  } catch (error) {
    return null;
  }
}

/** Makes frames of one video: `video` has its width and height, the addresses of its frames, and for each layer the
    masks of each track, one RLE or null a frame. */
class FrameMaker {
  constructor(video) {
    this.video = video;
    this.scaled = new OffscreenCanvas(1, 1);
  }

  /** {picture, tints, masks} of a frame, bitmaps of `size` {width, height}; `masks` as `decode` gives them, without
      their stretches. */
  async make(frame, size, look) {
    const loaded = await loadPicture(this.video.frames[frame]);
    const picture = loaded && this.fit(loaded, size);
    const decoded = this.decode(frame);
    const tints = this.paint(decoded, size, look);
    const masks = decoded.map((layer) => layer.map(({ track, bounds, area }) => ({ track, bounds, area })));
    return { picture, tints, masks };
  }

  /** The masks in each layer, large ones first: those of decodeMask with the place of their `track`. */
  decode(frame) {
    return this.video.layers.map((tracks) => tracks
      .map((masks, track) => ({ track, ...(masks[frame] && decodeMask(masks[frame])) }))
      .filter(({ area }) => area)
      .sort((a, b) => b.area - a.area));
  }

  /** For each layer the tinted masks as a bitmap of `size`, null if there are none; the smallest is on top. */
  paint(decoded, size, look) {
    const { width, height } = this.video;
    const thickness = Math.max(1, Math.round(Math.min(width, height) / LINE_PARTS));
    return decoded.map((masks, layer) => {
      const drawn = masks.map((mask) => ({ mask, style: look.layers[layer][mask.track] })).filter(({ style }) => style);
      if (!drawn.length) return null;
      this.allocate();
      this.pixels.fill(0);
      drawn.sort((a, b) => b.style.below - a.style.below);
      for (const { mask, style } of drawn) paintMask(mask, this.pixels, style.fill, style.edge, thickness);
      this.whole.putImageData(this.image, 0, 0);
      return this.toBitmap(this.whole.canvas, size);
    });
  }

  /** The pixels of masks in the video's own size. */
  allocate() {
    if (this.image) return;
    const { width, height } = this.video;
    this.image = new ImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    // Putting pixels into a canvas that is declared to be read is a copy; for another it takes fifty times as long.
    this.whole = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  }

  /** The bitmap in `size`; closes the given one if it has another size. */
  fit(bitmap, size) {
    if (bitmap.width === size.width && bitmap.height === size.height) return bitmap;
    const fitted = this.toBitmap(bitmap, size);
    bitmap.close();
    return fitted;
  }

  /** `source`, a bitmap or canvas, as a bitmap of `size`. The browser's own scaling is fast only where it looks at no
      more than four pixels: so what is less than half as large is halved first. */
  toBitmap(source, size) {
    let { width, height } = source;
    while (width > 2 * size.width) {
      [width, height] = [Math.ceil(width / 2), Math.ceil(height / 2)];
      source = scaled(new OffscreenCanvas(width, height), source);
    }
    Object.assign(this.scaled, size); // which clears it
    return scaled(this.scaled, source).transferToImageBitmap();
  }
}

/** The canvas, with `source` drawn over all of it. */
function scaled(canvas, source) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "low";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}
