"use strict";
/* A FrameMaker beside the page's own thread: first comes the video, then {frame, size, look} for each frame. */

importScripts("rle.js", "maker.js");

let maker = null;

self.addEventListener("message", async ({ data }) => {
  if (!maker) {
    maker = new FrameMaker(data);
    return;
  }
  const { frame, size, look } = data;
  const made = await maker.make(frame, size, look);
  self.postMessage({ frame, made }, [made.picture, ...made.tints].filter(Boolean));
});
