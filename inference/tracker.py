"""The tracker that follows the objects of one video."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inference.network import Model, Network
from inference.tracker_step import Reported, TrackerState, make_step
from layers.compaction import drop_rows, order_rows
from utils.structures import FusionFeatures, Predictions, Tracks
from utils.timer import NoTimer, StageTimer
from utils.transfers import Transfers

LEAST_ROWS = 8


class VideoTracker:
    """Follows the objects of one video; all state of the video is here, so several can share one model.

    `cross_class_nms` and `max_track_age` override the config's; everything else is as the model's config says. Without
    temporal fusion (`temporal_fusion.enabled` off) a frame's detections are only matched with what was last seen, which
    moves on at constant velocity if the config has `tracking.motion`. A `timer` gets the stages network, detect and
    track. `network` is how the model is run, by default as it is.

    With `fixed_shapes` (the default unless on a CPU) a step has shapes that depend on no values, with known objects in
    0, 8, 16, 32, … rows, and the host waits for the device once: for what is reported. (With `tracking.joint` it also
    waits for the affinities.) Otherwise there are as many rows as objects. If `network` has graphs, such a step is
    recorded and replayed too, for each number of rows; its detection is then part of the stage track.
    """

    def __init__(
        self,
        model: Model,
        cross_class_nms: bool | None = None,
        timer: StageTimer | None = None,
        max_track_age: int | None = None,
        network: Network | None = None,
        fixed_shapes: bool | None = None,
    ):
        self.model = model
        self.network = network or Network(model, fused=False)
        self.timer = timer or NoTimer()
        self.transfers = Transfers(model.device)
        self.has_fixed_shapes = model.device.type != "cpu" if fixed_shapes is None else fixed_shapes
        # The host shares out objects jointly, which a graph cannot contain.
        graphs = self.network.graphs if self.has_fixed_shapes and not model.config.tracking.joint else None
        self.compute_step = make_step(
            model.config,
            self.network,
            order_rows if self.has_fixed_shapes else drop_rows,
            cross_class_nms,
            max_track_age,
            None if graphs else self.timer,  # what it records within a graph cannot be read
        )
        self._replay_step = graphs and graphs.of(self.compute_step, "the tracker's step", self.network.tolerance)
        self._state = TrackerState(None, None, torch.zeros((), dtype=torch.int64, device=model.device))
        self.reset()

    def reset(self, keep_ids: bool = False) -> None:
        """Forgets the video: the next frame is a first frame. With `keep_ids` track ids go on, instead of from 0."""
        next_id = self._state.next_id if keep_ids else torch.zeros_like(self._state.next_id)
        self._state = TrackerState(None, None, next_id)
        self._num_known = 0
        self._num_reported = 0

    @property
    def known(self) -> Tracks | None:
        """The known objects, on the model's device; None before the first frame."""
        return None if self._state.known is None else self._state.known[: self._num_known]

    @property
    def max_track_age(self) -> int:
        """Objects that have not been seen for more frames are forgotten; with 0 they never are."""
        return self.compute_step.max_track_age

    def state_dict(self) -> dict[str, Tensor]:
        """All that is known of the video so far, as copies in plain tensors, which torch.save takes."""
        parts = {"known": self.known, "last_features": self._state.features}
        state = {
            f"{name}.{f.name}": getattr(part, f.name).clone()
            for name, part in parts.items()
            if part is not None
            for f in fields(part)
            if getattr(part, f.name) is not None
        }
        return {"next_id": self._state.next_id.clone(), **state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Loads the state of another tracker of the same model; both then give the same results.

        Raises:
            ValueError: it is not the state of such a tracker.
        """
        head, num_past = self.model.config.head, self.compute_step.num_past
        present = {"centerness": head.centerness, "embeddings": head.embedding_dim > 0}
        present |= {"velocities": self.compute_step.moves, "past_embeddings": num_past > 0}
        absent = {name for name, is_present in present.items() if not is_present}
        known = _from_state(Tracks, "known", state, self.model.device, absent)
        features = _from_state(FusionFeatures, "last_features", state, self.model.device)
        fits = "next_id" in state and (features is not None) == (known is not None and self.compute_step.fusion)
        if known is not None:
            fits &= known.mask_coeffs.shape[1] == head.num_prototypes
            fits &= known.embeddings is None or known.embeddings.shape[1] == head.embedding_dim
            fits &= known.past_embeddings is None or known.past_embeddings.shape[1:] == (num_past, head.embedding_dim)
        if not fits:
            raise ValueError("not the state of a tracker of this model")
        self._num_known = self._num_reported = 0 if known is None else len(known)
        are_known = None
        if known is not None:
            are_known = torch.ones_like(known.track_ids, dtype=torch.bool)
            if self.has_fixed_shapes:
                known, are_known = in_rows(known, self._num_known)
        self._state = TrackerState(known, are_known, state["next_id"].to(self.model.device), features)

    @torch.inference_mode()
    def step(self, image: Tensor) -> Tracks:
        """The objects visible in the next frame `image` [3,H,W] (float, normalised RGB, H and W multiples of 32).

        `image` may also be the frame's picture [h,w,3] uint8, as `FrameTransform.for_network` resizes it. The objects
        are on the CPU. Ascending track ids with temporal fusion, detection order without; N = 0 where nothing is
        visible. With mask rescoring they are `RescoredTracks`.
        """
        return self.update(self.look(image[None]))

    @torch.inference_mode()
    def look(self, images: Tensor) -> Predictions:
        """The predictions of the network for `images` [B,3,H,W], or pictures [B,h,w,3]; nothing is tracked yet."""
        with self.timer("network"):
            return self.network(images)

    def update(self, predictions: Predictions, index: int = 0) -> Tracks:
        """As `step`, for image `index` of a batch that went through the network already."""
        return self.begin(predictions, index)()

    @torch.inference_mode()
    def begin(self, predictions: Predictions, index: int = 0) -> Callable[[], Tracks]:
        """Begins `update`. Call the returned function to end it, before any other call of the tracker.

        In fixed shapes the host waits for the device only at the end, and work that is launched before that follows the
        step on the device at once: the network for the next images.
        """
        if self._replay_step:
            with self.timer("track"):
                state, reported = self._replay_step(self._state, predictions.of_image(index))
        else:
            state, reported = self.compute_step(self._state, predictions, index)
        if not self.has_fixed_shapes:
            self._state, self._num_known = state, len(state.known)
            return lambda: reported.tracks
        with self.timer("track"):
            rows = num_rows(self._num_reported + LEAST_ROWS)
            return partial(self._end, state, reported, rows, self._send(reported, rows))

    @torch.inference_mode()
    def _end(self, state: TrackerState, reported: Reported, rows: int, arrived: Callable[[], Reported]) -> Tracks:
        """Stores `state` and returns the `reported` tracks, of which the first `rows` have been sent.

        The host waits for the device once, or twice if many more objects are reported than for the last frame.
        """
        found = arrived()
        self._num_reported = int(found.are_real.sum())
        if self._num_reported > rows:
            found = self._send(reported, self._num_reported)()
        self._num_known = int(found.num_known)
        known, are_known = in_rows(state.known, self._num_known)
        self._state = replace(state, known=known, are_known=are_known)
        return found.tracks[: self._num_reported]

    def _send(self, reported: Reported, rows: int) -> Callable[[], Reported]:
        """Begins to copy the first `rows` of what is `reported` to the host."""
        return self.transfers.to_host(replace(reported, tracks=reported.tracks[:rows]))


def in_rows(tracks: Tracks, count: int) -> tuple[Tracks, Tensor]:
    """(`tracks` in `num_rows(count)` rows [M], whether a row is real [M] bool); the first `count` rows are."""
    index = torch.arange(num_rows(count), device=tracks.boxes.device)
    return tracks[index.clamp(max=len(tracks) - 1)], index < count


def num_rows(num_objects: int) -> int:
    """The rows that hold `num_objects` known objects: 0, 8, 16, 32, …, as each number has kernels of its own."""
    return max(LEAST_ROWS, 1 << (num_objects - 1).bit_length()) if num_objects else 0


def _from_state(
    kind: type, prefix: str, state: Mapping[str, Tensor], device: torch.device, absent: Collection[str] = ()
) -> Any:
    """The `kind` whose fields `state` holds under `prefix`, those of `absent` None; None if it holds none of them,
    ValueError if only some."""
    keys = {f.name: f"{prefix}.{f.name}" for f in fields(kind) if f.name not in absent}
    missing = [key for key in keys.values() if key not in state]
    if len(missing) == len(keys):
        return None
    if missing:
        raise ValueError(f"not the state of a tracker: {missing[0]} is missing")
    return kind(**{name: state[key].to(device) for name, key in keys.items()}, **dict.fromkeys(absent))
