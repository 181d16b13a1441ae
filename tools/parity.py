"""Compares the numbers of this network with those recorded from the published one.

    python -m tools.parity [DEVICE]       # prints the largest relative error per recorded array and config

A relative error is the largest absolute difference divided by the largest absolute recorded value of the array.
tests/fixtures/reference/README.md describes each array and its distance from a float64 run of the original.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.config import get_config
from inference.tracker import VideoTracker
from layers.anchor_targets import match
from layers.losses import MultiBoxLoss
from layers.postprocess import postprocess
from layers.temporal_fusion import correlate, fuse
from stmask import STMask
from tests.fixtures.reference import fill, inputs
from utils.device import pick_device
from utils.structures import ClipBatch, ClipTargets, FrameMeta, FrameTargets, Predictions
from ytvis.command_line import Parser
from ytvis.masks import decode_mask
from ytvis.results import VideoResultBuilder

REFERENCE = Path(__file__).parent.parent / "tests" / "fixtures" / "reference"
RECORDED = ("STMask_plus_resnet50", "STMask_plus_resnet50_ada")
RUNS = [(name, nms, True) for name in RECORDED for nms in ("cc", "pc")] + [
    (RECORDED[0], nms, False) for nms in ("cc", "pc")
]


@dataclass
class Comparison:
    """Largest absolute and relative difference between an array and its recording."""

    absolute: float = 0.0
    relative: float = 0.0

    def add(self, ours, recorded, scale: float | None = None) -> None:
        ours = ours.cpu() if isinstance(ours, Tensor) else ours
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        assert ours.shape == recorded.shape, f"{ours.shape} instead of {recorded.shape}"
        if recorded.size:
            difference = float(np.abs(ours - recorded).max())
            self.absolute = max(self.absolute, difference)
            self.relative = max(self.relative, difference / (scale or max(float(np.abs(recorded).max()), 1e-30)))


@cache
def load_model(name: str, fusion: bool = True, device: str = "cpu") -> STMask:
    """The network `name` with the recipe's weights."""
    if device != "cpu":
        return deepcopy(load_model(name, fusion)).to(pick_device(device))
    folder = REFERENCE / name
    recipe = json.loads((folder / "recipe.json").read_text())
    shapes = json.loads((folder / f"keys_{name}_config.json").read_text())
    if fusion:
        model = STMask.from_config(get_config(f"{name}_config")).eval()
        weights = fill.fill_state_dict(shapes, recipe["seed"], recipe["overrides"])
        assert fill.checksum(weights) == recipe["checksum"]
        model.load_state_dict({key: torch.as_tensor(value) for key, value in weights.items()})
        return model
    model = STMask.from_config(get_config(f"{name}_config", {"temporal_fusion.enabled": False})).eval()
    weights = load_model(name).state_dict()
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith("TemporalNet.")})
    return model


@cache
def clip(video: int) -> Tensor:
    """Network input [T,3,96,160] of recorded video 1, 2 or 3."""
    return torch.as_tensor(inputs.normalise(np.load(REFERENCE / "inputs.npz")[f"video{video}"]))


def frame_meta(video: int, frame: int) -> FrameMeta:
    return FrameMeta(video, frame, inputs.ORI_SHAPE[:2], inputs.IMG_SHAPE[:2], inputs.PAD_SHAPE[:2])


@torch.inference_mode()
def compare_forward(name: str, device: str = "cpu") -> dict[str, Comparison]:
    """{array of forward.npz: its comparison}: the stages, the head's outputs, temporal fusion."""
    recorded = np.load(REFERENCE / name / "forward.npz")
    model = load_model(name, device=device)
    images = clip(1)[:2].to(model.device)
    stages = model.backbone(images)
    levels = model.fpn(stages[1:])
    _, shared = model.prediction_layers[0](levels)
    p = model(images)
    fused = fuse(p.fusion_features[:1], p.fusion_features[1:], 11)
    boxes = torch.as_tensor(recorded["temporal_box"], device=model.device)
    regression, coefficients = model.TemporalNet(fused, boxes)
    sampled = {f"backbone{i}": x for i, x in enumerate(stages)}
    sampled |= {f"fpn{i}": x for i, x in enumerate(levels)}
    sampled |= {f"t2s{i}": x for i, x in enumerate(shared)}
    sampled |= {"T2S_concat_feat": fused, "temporal_roi": model.TemporalNet.crop(fused, boxes)}
    whole = {
        "priors": p.anchors,
        "loc": p.box_deltas,
        "centerness": p.centerness,
        "conf_raw_frame0": p.class_logits[0],
        "conf_softmax_every4": p.class_logits.softmax(-1)[:, ::4],
        "mask_coeff_every2": p.mask_coeffs[:, ::2],
        "track_every8": p.embeddings[:, ::8],
        "proto_frame0": p.prototypes[0],
        "proto_frame1_every3": p.prototypes[1, ::3, ::3],
        "corr": correlate(p.fusion_features.pyramid[:1], p.fusion_features.pyramid[1:])[0],
        "temporal_reg": regression,
        "temporal_coeff": coefficients,
    }
    result = {key: Comparison() for key in [*sampled, *whole]}
    for key, value in sampled.items():
        assert list(value.shape) == recorded[f"{key}_shape"].tolist(), key
        flat = value.flatten()
        result[key].add(flat[:64], recorded[f"{key}_first64"])
        result[key].add(flat[:: int(recorded[f"{key}_stride"])], recorded[f"{key}_sample"])
        # A mean may be near zero by cancellation: it is compared relative to the spread.
        result[key].add(flat.double().mean(), recorded[f"{key}_mean"], scale=float(recorded[f"{key}_std"]))
        result[key].add(flat.double().std(unbiased=False), recorded[f"{key}_std"])
    for key, value in whole.items():
        result[key].add(value, recorded[key])
    return result


@dataclass
class TrackingComparison:
    """Differences over whole clips; `discrete` lists counts, ids, labels and orders that differ."""

    values: dict[str, Comparison] = field(default_factory=dict)
    discrete: list[str] = field(default_factory=list)
    mask_flips: int = 0
    mask_pixels: int = 0
    results: list[dict] = field(default_factory=list)

    def same(self, what: str, ours, recorded) -> None:
        ours = ours.cpu().numpy() if isinstance(ours, Tensor) else ours
        if not np.array_equal(ours, recorded):
            self.discrete.append(f"{what}: {ours} instead of {recorded}")

    def near(self, what: str, ours, recorded) -> None:
        self.values.setdefault(what, Comparison()).add(ours, recorded)


def recorded_frames(path: Path) -> Iterator[tuple[int, int, dict[str, np.ndarray]]]:
    """(video, frame, {array: its rows of that frame}) of a tracking recording."""
    recorded = np.load(path)
    arrays = {key: recorded[key] for key in recorded.files}
    count_of = {"nms": "nms_n", "post": "post_n"}
    starts = {"n": 0, "nms_n": 0, "post_n": 0}
    for index, (video, frame) in enumerate(zip(arrays["video"], arrays["frame"], strict=True)):
        rows = {}
        for key, array in arrays.items():
            if len(array) == len(arrays["video"]):
                rows[key] = array[index]
            elif key != "mask_hw":
                counter = count_of.get(key.split("_")[0], "n")
                rows[key] = array[starts[counter] : starts[counter] + arrays[counter][index]]
        yield int(video), int(frame), rows
        for counter in starts:
            starts[counter] += arrays[counter][index] if counter in arrays else 0


@cache
@torch.inference_mode()
def predict(name: str, video: int, device: str = "cpu") -> list[Predictions]:
    """The predictions of the network `name` for each frame of a recorded video; temporal fusion has no part in them."""
    model = load_model(name, device=device)
    return [model(image[None].to(model.device)) for image in clip(video)]


@cache
def compare_tracking(
    name: str, nms: str, fusion: bool, device: str = "cpu", fixed_shapes: bool | None = None
) -> TrackingComparison:
    """Tracks each recorded clip with a `VideoTracker`, and compares detections, tracks and reported objects."""
    model = load_model(name, fusion, device)
    prefix = "" if fusion else "notf_"
    out = TrackingComparison()
    tracker = builder = None
    for video, frame, rows in recorded_frames(REFERENCE / name / f"{prefix}tracking_{nms}.npz"):
        if frame == 0:
            out.results += builder.finish() if builder else []
            tracker = VideoTracker(model, cross_class_nms=nms == "cc", fixed_shapes=fixed_shapes)
            builder = VideoResultBuilder(video, len(clip(video)), inputs.ORI_SHAPE[:2], tuple(range(1, 41)))
        where = f"video {video} frame {frame}"
        predictions = predict(name, video, device)[frame]
        with torch.inference_mode():
            tracks = tracker.update(predictions)
            detections = tracker.compute_step.detector(predictions)
        if fusion:
            candidates = predictions.class_logits[0].softmax(-1)[:, 1:].amax(1) > model.config.detection.conf_threshold
            out.same(f"{where} candidates", int(candidates.sum()), rows["n_cand"])
            out.same(f"{where} known objects", len(tracker.known), rows["n_prev"])
            out.same(f"{where} detections", detections.labels, rows["nms_class"])
            out.near("nms_box", detections.boxes, rows["nms_box"])
            out.near("nms_score", detections.scores, rows["nms_score"])
        out.same(f"{where} ids", tracks.track_ids, rows["box_ids"])
        out.same(f"{where} labels", tracks.labels, rows["class"])
        out.near("box", tracks.boxes, rows["box"])
        out.near("score", tracks.scores, rows["score"])
        out.near("mask_coeff", tracks.mask_coeffs, rows["mask_coeff"])
        if "centerness" in rows:
            out.near("centerness", tracks.centerness, rows["centerness"])
        binary = (tracks.masks > 0.5).flatten(1).cpu().numpy()
        out.mask_flips += int(np.unpackbits(np.packbits(binary, axis=1) ^ rows["mask_bits"]).sum())
        out.mask_pixels += binary.size
        out.near("mask_mean", tracks.masks.mean(dim=(1, 2)), rows["mask_mean"])

        objects = postprocess(tracks, frame_meta(video, frame), score_threshold=0.05)
        out.same(f"{where} reported ids", objects.track_ids, rows["post_ids"])
        out.same(f"{where} reported labels", objects.labels, rows["post_class"])
        out.near("post_box", objects.boxes_px, rows["post_box"])
        out.near("post_score", objects.scores, rows["post_score"])
        builder.add(frame, objects)
    out.results += builder.finish()
    return out


def compare_results(ours: list, recorded: list[dict]) -> tuple[list[int], float]:
    """(pixels that differ per mask, largest score difference) of two submission lists.

    Raises:
        AssertionError: they differ in anything else: videos, categories, order, frames with and without a mask.
    """
    assert len(ours) == len(recorded)
    pixels, score = [], 0.0
    for track, expected in zip(ours, recorded, strict=True):
        track = track if isinstance(track, dict) else {key: getattr(track, key) for key in expected}
        assert (track["video_id"], track["category_id"]) == (expected["video_id"], expected["category_id"])
        score = max(score, abs(track["score"] - expected["score"]))
        for mask, expected_mask in zip(track["segmentations"], expected["segmentations"], strict=True):
            assert (mask is None) == (expected_mask is None)
            if mask is not None:
                pixels.append(int((decode_mask(mask) != decode_mask(expected_mask)).sum()))
    return pixels, score


def load_for_training(name: str) -> STMask:
    """A fresh network `name` in training mode with the weights of the training recordings."""
    folder = REFERENCE / name
    recipe = json.loads((folder / "recipe.json").read_text())
    shapes = json.loads((folder / f"keys_{name}_config.json").read_text())
    weights = fill.fill_state_dict(shapes, recipe["seed"], recipe["overrides"] + recipe["train_extra_overrides"])
    assert fill.checksum(weights) == recipe["train_checksum"]
    model = STMask.from_config(get_config(f"{name}_config"))
    model.load_state_dict({key: torch.as_tensor(value) for key, value in weights.items()})
    return model.train()


def training_batch() -> tuple[Tensor, tuple[tuple[FrameTargets, ...], ...]]:
    """The recorded batch: (frames [2,2,3,128,192], targets[clip][frame])."""
    recorded = np.load(REFERENCE / "inputs.npz")
    frames = torch.stack([torch.as_tensor(inputs.normalise(clip)) for clip in recorded["train_frames"]])

    def target(clip: int, frame: int) -> FrameTargets:
        parts = (
            torch.as_tensor(recorded[f"train_clip{clip}_frame{frame}_{k}"]) for k in ("box", "label", "mask", "id")
        )
        return FrameTargets(*parts)

    return frames, tuple(tuple(target(clip, frame) for frame in range(2)) for clip in range(2))


@dataclass
class TrainingComparison:
    """Relative differences of a training step: losses before and after it, gradient and parameter norms.

    `matches` counts anchors that are assigned differently, `frozen` lists parameters that only one side trains.
    """

    losses: dict[str, float]
    losses_after: dict[str, float]
    gradient_norms: dict[str, float]
    parameter_norms: dict[str, float]
    matches: int
    frozen: list[str]


@cache
def compare_training(name: str, device: str = "cpu") -> TrainingComparison:
    """Compares one SGD step on the recorded batch."""
    recorded = json.loads((REFERENCE / name / "train.json").read_text())
    recorded_match = np.load(REFERENCE / name / "train_match.npz")
    model = load_for_training(name).to(pick_device(device))
    batch = ClipBatch(*training_batch()).to(model.device)
    frames, targets = batch.frames, batch.targets
    criterion = MultiBoxLoss.from_config(model.config)
    predictions = model(frames)
    ours = match(predictions.anchors, predictions.class_logits.detach(), ClipTargets.pack(targets))
    pairs = ((ours.labels, "conf_t"), (ours.targets, "idx_t"))
    matches = sum(int((x.cpu().numpy() != recorded_match[key]).sum()) for x, key in pairs)
    losses = criterion(model, predictions, targets)
    sum(losses.values()).backward()
    named = dict(model.named_parameters())
    gradients = {key: p.grad.double().norm().item() for key, p in named.items() if p.grad is not None}
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=1e-4).step()
    with torch.no_grad():
        after = criterion(model, model(frames), targets)

    def relative(ours: dict, theirs: dict) -> dict[str, float]:
        assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
        return {key: abs(ours[key] - value) / max(abs(value), 1e-12) for key, value in theirs.items()}

    norms = {key: p.double().norm().item() for key, p in named.items()}
    return TrainingComparison(
        losses=relative({k: v.item() for k, v in losses.items()}, recorded["losses"]),
        losses_after=relative({k: v.item() for k, v in after.items()}, recorded["losses_after_one_step"]),
        gradient_norms=relative(gradients, {k: v for k, v in recorded["grad_norm"].items() if v is not None}),
        parameter_norms=relative(norms, recorded["param_norm_after_step"]),
        matches=matches,
        frozen=sorted({key for key, p in named.items() if not p.requires_grad} ^ set(recorded["no_grad"])),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser(description=__doc__)
    parser.add_argument("device", nargs="?", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    device = parser.parse_args(arguments).device
    print(f"{'config':28} {'recording':18} {'array':22} {'relative':>10} {'absolute':>10}")
    for name in RECORDED:
        for key, comparison in compare_forward(name, device).items():
            print(f"{name:28} {'forward':18} {key:22} {comparison.relative:10.1e} {comparison.absolute:10.1e}")
    for name, nms, fusion in RUNS:
        run = compare_tracking(name, nms, fusion, device)
        recording = f"{'' if fusion else 'notf_'}tracking_{nms}"
        for key, comparison in run.values.items():
            print(f"{name:28} {recording:18} {key:22} {comparison.relative:10.1e} {comparison.absolute:10.1e}")
        print(f"{name:28} {recording:18} counts, ids, labels: {len(run.discrete)} differ")
        print(f"{name:28} {recording:18} mask pixels: {run.mask_flips} of {run.mask_pixels} flipped")
        submission = recording.replace("tracking", "results")
        recorded = json.loads((REFERENCE / name / f"{submission}.json").read_text())
        pixels, score = compare_results(run.results, recorded)
        print(
            f"{name:28} {submission:18} {sum(x > 0 for x in pixels)} of {len(pixels)} "
            f"masks differ, by at most {max(pixels)} pixels; score by at most {score:.1e}"
        )
    for name in RECORDED:
        step = compare_training(name, device)
        for key in ("losses", "losses_after", "gradient_norms", "parameter_norms"):
            values = getattr(step, key).values()
            print(f"{name:28} {'train':18} {key:22} {max(values):10.1e} (median {np.median(list(values)):.1e})")
        print(f"{name:28} {'train':18} anchors assigned differently: {step.matches}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
