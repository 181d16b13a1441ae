"""Configs: data sets, models, and `get_config(name, overrides)`, which turns them into one immutable object.

    python -m data.config STMask_plus_base_ada_config --set tracking.max_hidden_age=5     # prints a config
    python -m data.config                                                                  # lists the names
    python -m data.config STMask_plus_base_ada_config --help_keys                          # explains each key

A config is a tree of frozen dataclasses: their fields are all the keys, each with its type, default, meaning and rules.
`MODELS` holds each named model's differences from the defaults, by dotted key; `--set key=value` overrides them.
"""

import argparse
import ast
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from utils.config_keys import (
    ANGLE,
    FRACTION,
    NOT_EMPTY,
    NOT_NEGATIVE,
    ODD,
    POSITIVE,
    PYRAMID,
    RISING,
    between,
    key,
)
from utils.loss_weights import LossWeights
from ytvis.annotations import MAX_ID
from ytvis.command_line import Parser, run_command
from ytvis.files import InputError
from ytvis.messages import shown

# The greatest numbers of a network and its input; larger ones exhaust the memory. Checkpoint files have these keys too.
MAX_INPUT_SIDE = 8192  # pixels
MAX_CHANNELS = 4096
MAX_CELLS = 63  # side of a convolution, a correlation window or a region
MAX_CANDIDATES = 10_000  # of a frame: NMS compares all pairs


@dataclass(frozen=True)
class SplitConfig:
    """The files of one split, as candidates relative to the data set's root; the first that exists is used."""

    ann_file: tuple[str, ...] = key((), "annotation file")
    image_root: tuple[str, ...] = key((), "folder of frames")


@dataclass(frozen=True)
class DatasetConfig:
    """A data set in the YouTube-VIS format, or of images in COCO's."""

    name: str = key("", "name in messages")
    root: str = key("", "folder that the files of the splits are relative to")
    class_names: tuple[str, ...] = key((), "classes in the order of their labels, from label 1", NOT_EMPTY)
    category_ids: tuple[int, ...] = key(
        (), "their category ids in results of your own videos; empty: 1…C", between(-MAX_ID, MAX_ID)
    )
    train: SplitConfig = field(default_factory=SplitConfig)
    valid: SplitConfig = field(default_factory=SplitConfig)
    test: SplitConfig = field(default_factory=SplitConfig)


@dataclass(frozen=True)
class InputConfig:
    """How frames are resized, normalised and padded."""

    size_hw: tuple[int, int] = key((360, 640), "height and width of resized frames, pixels", between(1, MAX_INPUT_SIDE))
    mean: tuple[float, float, float] = key((123.675, 116.28, 103.53), "subtracted from R, G, B of 0…255")
    std: tuple[float, float, float] = key((58.395, 57.12, 57.375), "divisor of R, G, B after that", POSITIVE)
    size_divisor: int = key(
        32, "height and width are padded with zeros to multiples of this", between(1, MAX_INPUT_SIDE)
    )
    whole_pixels: bool = key(True, "resized pixels are rounded to whole numbers; off for the weights of YOLACT")


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet; see `backbone.make_backbone`."""

    block: Literal["bottleneck", "basic"] = key("bottleneck", "kind of block; basic as in ResNet-18 and 34")
    blocks: tuple[int, int, int, int] = key((3, 4, 23, 3), "blocks in the stages C2, C3, C4, C5", between(1, 256))
    stem_channels: int = key(
        64, "channels of the first convolution, and of the 3×3 ones in C2", between(1, MAX_CHANNELS)
    )
    dcn_interval: int = key(3, "every n-th block of C3…C5, from the first on, is deformable; 0: none", between(0))


@dataclass(frozen=True)
class HeadConfig:
    """Feature pyramid and prediction head."""

    channels: int = key(256, "channels of the pyramid and of the head", between(1, MAX_CHANNELS))
    kernels: tuple[tuple[int, int], ...] = key(
        ((3, 3), (3, 5), (5, 3)),
        "FCA: shapes of the convolutions and of their anchors, height and width in cells",
        *(NOT_EMPTY, between(1, MAX_CELLS), ODD),
    )
    square_kernels: bool = key(False, "no FCA: all convolutions are 3×3; anchors keep their shapes")
    calibration: Literal["none", "ali", "ada"] = key("none", "FCB: how features are aligned to the anchors' boxes")
    num_prototypes: int = key(32, "K, number of mask prototypes", between(1, MAX_CHANNELS))
    embedding_dim: int = key(128, "E, length of an embedding; 0: no embeddings", between(0, MAX_CHANNELS))
    centerness: bool = key(True, "predict a centerness, which multiplies the scores")
    anchor_scales: tuple[tuple[float, ...], ...] = key(
        (),
        "YOLACT's head in place of FCA's, with a single convolution for each output: the scales of the anchors of "
        "each of P3…P7, pixels of the input",
        *(POSITIVE, PYRAMID),
    )
    mask_iou_net: bool = key(False, "YOLACT++'s mask rescoring: scores are multiplied by the expected IoU of the mask")


@dataclass(frozen=True)
class TemporalFusionConfig:
    """The net that predicts the known objects in the next frame."""

    enabled: bool = key(True, "use temporal fusion")
    detach_features: bool = key(False, "its losses train only the net, not its input features; off as published")
    patch_size: int = key(11, "side of the correlation's window, cells", between(1, MAX_CELLS), ODD)
    channels: tuple[int, int, int] = key(
        (512, 512, 1024), "channels of the net's three convolutions", between(1, MAX_CHANNELS)
    )
    roi_size: int = key(7, "side of RoIAlign's output, cells", between(1, MAX_CELLS))


@dataclass(frozen=True)
class DetectionConfig:
    """Detection in one frame."""

    conf_threshold: float = key(0.05, "least class score of a candidate", FRACTION)
    nms_threshold: float = key(0.5, "box IoU above which NMS drops the worse candidate", FRACTION)
    top_k: int = key(200, "number of best candidates that go through NMS", between(1, MAX_CANDIDATES))
    max_detections: int = key(100, "most detections of a frame", between(1, MAX_CANDIDATES))
    cross_class_nms: bool = key(True, "run fast NMS over all classes together; off: for each class")


@dataclass(frozen=True)
class TrackingConfig:
    """How tracks are matched and kept. Without temporal fusion, score_decay and score_threshold do nothing, and
    max_hidden_age only limits motion; with it, motion does nothing. Without embeddings their cosine term is 0."""

    match_coeff: tuple[float, float, float, float] = key(
        (0.0, 1.0, 2.0, 0.0),
        "weights of score, mask IoU, box IoU and same label in the affinity, beside the embeddings' cosine",
    )
    new_object_similarity: float = key(0.5, 'cosine term of the affinity to the dummy "new object"')
    new_object_iou: float = key(0.3, 'IoUs of the affinity to the dummy "new object"')
    joint: bool = key(
        False, "detections share the known objects so that all fit best; off, as published: each takes its best object"
    )
    motion: float = key(
        0.0,
        "without temporal fusion, known objects move on at their mean velocity, in which the newest step has this "
        "share; 0, as published: they stay where they were last seen",
        FRACTION,
    )
    memory: int = key(
        1,
        "a detection's cosine with an object is the greatest of those with its embeddings in the last so many frames "
        "that it was detected in; 1, as published: with the last one alone",
        between(1, 1000),
    )
    score_decay: float = key(0.95, "factor of the score of an unseen object in each frame", FRACTION)
    score_threshold: float = key(0.05, "least score of a visible object", FRACTION)
    max_hidden_age: int = key(
        10, "frames that an unseen object stays visible for; without temporal fusion, that it moves on for", between(0)
    )
    max_track_age: int = key(0, "frames until an unseen object is forgotten; 0, as published: never", between(0))


@dataclass(frozen=True)
class PostprocessConfig:
    """Which tracks are reported."""

    score_threshold: float = key(0.05, "least score of a reported track in a frame", FRACTION)
    top_k: int = key(0, "most reported tracks of a frame; 0: all", between(0))
    one_sided_clamps: bool = key(False, "report boxes outside the frame and clamp edges on one side only, as in YOLACT")
    length_power: float = key(
        0.0,
        "a track's score in results is its mean score × (share of the video's frames that show it) to this power, "
        "as tracks of a few frames are seldom right; 0, as published: the mean alone",
        NOT_NEGATIVE,
    )


@dataclass(frozen=True)
class TrainConfig:
    """The training recipe. Iterations are given for batches of 4 clips (8 images) and divided by batch/4."""

    optimizer: Literal["sgd", "adamw"] = key("sgd", "SGD with momentum, or AdamW")
    learning_rate: float = key(1e-4, "learning rate after the warm-up", NOT_NEGATIVE)
    momentum: float = key(0.9, "momentum of SGD", NOT_NEGATIVE)
    weight_decay: float = key(1e-4, "weight decay", NOT_NEGATIVE)
    lr_schedule: Literal["steps", "cosine"] = key("steps", "lower the learning rate in steps, or along half a cosine")
    gamma: float = key(0.1, "factor of the learning rate at each step", NOT_NEGATIVE)
    lr_steps: tuple[int, ...] = key((150_000, 200_000), "iterations at which the learning rate steps down", between(0))
    warmup_iterations: int = key(500, "iterations of the linear warm-up", between(0))
    iterations: int = key(250_000, "iterations of the whole run", between(1))
    clip_grad_norm: float = key(
        0.0, "greatest norm of the gradients, of the temporal net's and of all others apart; 0: no limit", NOT_NEGATIVE
    )
    ema_decay: float = key(
        0.0,
        "decay of an exponential moving average of the weights over the steps, which checkpoints hold and validation "
        "scores; less early in a run, where it is (1 + k) / (10 + k) after k steps; 0, as published: no average",
        FRACTION,
    )
    freeze_batch_norm: bool = key(True, "freeze the statistics and weights of batch norms")
    pretrained: str = key(
        "weights/yolact_plus_base_54_800000.pth",
        "checkpoint to start from, or torchvision:resnet50, hf:OWNER/REPO/FILE, https://…; empty: none",
    )
    clip_frames: int = key(
        2,
        "frames of a clip: a key frame and others near it, drawn without repetition while there are enough; all losses "
        "run over all of them. --batch_size counts clips, the schedule counts images: with twice the frames, warm-up, "
        "steps and the recipe's number of iterations are halved",
        between(2, 64),
    )
    max_frame_distance: int = key(
        2, "greatest distance of a clip's frames from its key frame, annotated frames", between(0)
    )
    scales: tuple[tuple[int, int], ...] = key(
        (),
        "sizes of frames, height and width, of which each batch draws one; empty: input.size_hw",
        between(1, MAX_INPUT_SIDE),
    )
    flip_probability: float = key(0.5, "probability that a clip is mirrored", FRACTION)
    photometric: bool = key(False, "change brightness, contrast, hue and saturation")
    zoom_out: bool = key(False, "shrink clips onto a larger background")
    crop: bool = key(False, "enlarge random parts of clips")
    static_rotation: float = key(10.0, "views of a static image: rotation up to ±, degrees", ANGLE)
    static_scale: tuple[float, float] = key((0.8, 1.25), "views: least and greatest scale", POSITIVE, RISING)
    static_translation: float = key(0.1, "views: translation up to ±, fraction of the sides", FRACTION)
    static_shear: float = key(5.0, "views: shear up to ±, degrees", ANGLE)
    box_iou_loss: bool = key(True, "train boxes with the distance IoU; off: with smooth L1 of their deltas")
    contrastive: bool = key(False, "train embeddings with a softmax over all others; off: with pairs")
    semantic_loss: float = key(
        0.0,
        "weight of S, a semantic loss on P3 (after YOLACT) that helps training from scratch; 0: no such loss",
        NOT_NEGATIVE,
    )
    loss_weights: LossWeights = field(default_factory=LossWeights)
    only: tuple[str, ...] = key((), "train only parameters whose names begin with one of these; empty: all")


@dataclass(frozen=True)
class QuirksConfig:
    """Behaviour of the published code that looks unintended, on as its weights were trained; see docs/quirks.md."""

    centerness_kernel_major: bool = key(
        True, "within a level, centerness is ordered by kernel first, all other outputs by cell"
    )
    double_tanh_without_fusion: bool = key(True, "without temporal fusion, mask coefficients go through tanh twice")
    plain_scores_without_fusion: bool = key(True, "without temporal fusion, scores leave out the centerness")
    binary_masks_without_fusion: bool = key(True, "without temporal fusion, masks are binarised, then resized")
    square_anchors: bool = key(True, "YOLACT's anchors, of head.anchor_scales, are as high as wide; off for YOLACT++")
    hidden_low_scores: bool = key(True, "objects of any score, after centerness, are tracked, though not reported")
    ohem_weights_by_position: bool = key(True, "weights of class losses are assigned to anchors by position")
    mask_bce_outside_crop: bool = key(True, "mask losses are cropped by the predicted box, not by the true one")
    lr_not_autoscaled: bool = key(True, "the learning rate does not scale with the batch size")


@dataclass(frozen=True)
class Config:
    """All settings of a model and its data. Immutable; create it with `get_config`."""

    name: str
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    input: InputConfig = field(default_factory=InputConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    temporal_fusion: TemporalFusionConfig = field(default_factory=TemporalFusionConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quirks: QuirksConfig = field(default_factory=QuirksConfig)

    @property
    def num_classes(self) -> int:
        """C, the number of classes without background."""
        return len(self.dataset.class_names)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category id of each class in the data set's files, as far as known."""
        return self.dataset.category_ids or tuple(range(1, self.num_classes + 1))

    def flat(self) -> dict[str, Any]:
        """{dotted key: value} of every key, in order; `get_config(self.name, self.flat())` equals self."""
        return dict(_leaves(self))

    def __str__(self) -> str:
        return "\n".join(f"{key} = {value!r}" for key, value in self.flat().items())

    def explained(self) -> str:
        """The keys with their values and, indented below each, its meaning, type and rules."""
        values, lines = self.flat(), []
        for name, key_field in config_keys().items():
            about = key_field.metadata
            parts = (about["meaning"], _type_name(key_field.type), *(rule.text for rule in about["rules"]))
            lines += [f"{name} = {values[name]!r}", f"    {'; '.join(parts)}"]
        return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- data sets

# Classes in the order of the ids in the published annotation files, "_" for a space.
_YTVIS2019_CLASSES = (
    "person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat cow fish train horse "
    "turtle bear motorbike giraffe leopard fox deer owl surfboard airplane truck zebra tiger elephant snowboard boat "
    "shark mouse frog eagle earless_seal tennis_racket"
)
_YTVIS2021_CLASSES = (
    "airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox frog giant_panda "
    "giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit shark skateboard snake snowboard "
    "squirrel surfboard tennis_racket tiger train truck turtle whale zebra"
)
_OVIS_CLASSES = (
    "Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda Lizard Parrot Monkey Rabbit "
    "Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehicle"
)
_COCO_CLASSES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
)


_COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


def _read_only(dicts: dict[str, dict[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """A read-only view of a dict of dicts."""
    return types.MappingProxyType({name: types.MappingProxyType(keys) for name, keys in dicts.items()})


def _dataset(name: str, root: str, class_names: str, image_root: Sequence[str]) -> dict[str, Any]:
    """Dotted keys of a data set in the layouts its publishers' archives unpack to."""
    keys = {"dataset.name": name, "dataset.root": root, "dataset.class_names": tuple(class_names.split())}
    keys["dataset.category_ids"] = ()  # 1…C
    for split in ("train", "valid", "test"):
        keys[f"dataset.{split}.ann_file"] = (
            f"annotations/{split}.json",
            f"{split}.json",
            f"{split}/instances.json",
            f"annotations/instances_{split}.json",
            f"annotations_{split}.json",
        )
        keys[f"dataset.{split}.image_root"] = tuple(folder.format(split) for folder in image_root)
    return keys


def _coco2017() -> dict[str, Any]:
    """Dotted keys of COCO's images of 2017; only the truth of its test images is withheld."""
    keys = {
        "dataset.name": "COCO2017",
        "dataset.root": "data/COCO2017",
        "dataset.class_names": tuple(_COCO_CLASSES.split()),
        "dataset.category_ids": tuple(number for number in range(1, 91) if number not in _COCO_UNUSED_IDS),
    }
    for split, folder, kind in (
        ("train", "train2017", "instances"),
        ("valid", "val2017", "instances"),
        ("test", "test2017", "image_info"),
    ):
        keys[f"dataset.{split}.ann_file"] = (f"annotations/{kind}_{folder}.json",)
        keys[f"dataset.{split}.image_root"] = (folder, f"images/{folder}")
    return keys


DATASETS = _read_only(
    {
        "YTVIS2019": _dataset("YTVIS2019", "data/YouTube_VIS2019", _YTVIS2019_CLASSES, ("{}/JPEGImages",)),
        "YTVIS2021": _dataset("YTVIS2021", "data/YouTube_VIS2021", _YTVIS2021_CLASSES, ("{}/JPEGImages",)),
        "OVIS": _dataset("OVIS", "data/OVIS", _OVIS_CLASSES, ("{}/JPEGImages", "{}")),
        "ShapesVIS": _dataset(
            "ShapesVIS",
            "data/ShapesVIS",
            "circle ring square bar triangle star cross crescent",
            ("{}/JPEGImages",),
        ),
        "COCO2017": _coco2017(),
    }
)


def dataset_overrides(name: str) -> dict[str, Any]:
    """Returns overrides that replace a config's data set, and its classes, by the data set `name` of `DATASETS`.

    Upper and lower case are the same.

    Raises:
        InputError: the data set is unknown (the message gives the nearest name).
    """
    for known, keys in DATASETS.items():
        if known.lower() == name.lower():
            return dict(keys)
    raise InputError(f"unknown data set {name!r}{nearest(name, DATASETS)}")


# ---------------------------------------------------------------------------------------------------- models

_RESNET101 = {"backbone.blocks": (3, 4, 23, 3), "backbone.dcn_interval": 3}
_RESNET50 = {
    "backbone.blocks": (3, 4, 6, 3),
    "backbone.dcn_interval": 2,
    "train.pretrained": "weights/yolact_plus_resnet50_54_800000.pth",
}


def _published_models() -> dict[str, dict[str, Any]]:
    """The 20 configs of the published model tables: name → dotted keys that differ from the defaults."""
    models = {
        f"STMask_{backbone}_config": {
            **DATASETS["YTVIS2019"],
            **depth,
            "backbone.dcn_interval": 0,
            "train.pretrained": f"weights/yolact_{backbone}_54_800000.pth",
        }
        for backbone, depth in (("base", _RESNET101), ("resnet50", _RESNET50))
    }
    for dataset, suffix in (("YTVIS2019", ""), ("YTVIS2021", "_YTVIS2021"), ("OVIS", "_OVIS")):
        for backbone, depth in (("base", _RESNET101), ("resnet50", _RESNET50)):
            for calibration in ("none", "ali", "ada"):
                part = "" if calibration == "none" else f"_{calibration}"
                models[f"STMask_plus_{backbone}{part}{suffix}_config"] = {
                    **DATASETS[dataset],
                    **depth,
                    "head.calibration": calibration,
                }
    return models


# How objects are tracked by boxes, masks and labels alone, without embeddings and temporal fusion; chosen on drawn
# videos, see docs/your-video.md. What was published for networks without temporal fusion is left out.
TRACKING_BY_OVERLAP: Mapping[str, Any] = types.MappingProxyType(
    {
        "head.embedding_dim": 0,
        "temporal_fusion.enabled": False,
        # Whatever overlaps an object of its class continues it; with another class it needs a greater overlap.
        "tracking.match_coeff": (0.0, 1.0, 1.0, 0.4),
        "tracking.new_object_similarity": 0.0,
        "tracking.new_object_iou": 0.0,
        "tracking.joint": True,
        "tracking.motion": 0.3,
        "tracking.max_track_age": 30,
        "quirks.double_tanh_without_fusion": False,
        "quirks.plain_scores_without_fusion": False,
        "quirks.binary_masks_without_fusion": False,
    }
)


def _yolact_models() -> dict[str, dict[str, Any]]:
    """The published YOLACT and YOLACT++ (ICCV 2019; TPAMI 2020): detectors of COCO's classes, tracked by boxes, masks
    and classes. Detections are class by class as published with --cross_class_nms=False; a track takes one class for
    each candidate."""
    common = {
        **DATASETS["COCO2017"],
        "input.size_hw": (550, 550),
        "input.mean": (123.68, 116.78, 103.94),
        "input.std": (58.40, 57.12, 57.38),
        "input.size_divisor": 1,
        "input.whole_pixels": False,
        **TRACKING_BY_OVERLAP,
        "head.centerness": False,
        "postprocess.one_sided_clamps": True,
        "train.pretrained": "",
    }
    sides = (24.0, 48.0, 96.0, 192.0, 384.0)
    plus = {
        "head.anchor_scales": tuple(tuple(side * 2 ** (step / 3) for step in range(3)) for side in sides),
        "head.mask_iou_net": True,
        "quirks.square_anchors": False,
    }
    plain = {"head.anchor_scales": tuple((side,) for side in sides), "backbone.dcn_interval": 0}
    resnet50, resnet101 = {"backbone.blocks": (3, 4, 6, 3)}, {"backbone.blocks": (3, 4, 23, 3)}
    return {
        "YOLACT_plus_resnet50_config": {**common, **plus, **resnet50, "backbone.dcn_interval": 1},
        "YOLACT_plus_base_config": {**common, **plus, **resnet101, "backbone.dcn_interval": 3},
        "YOLACT_resnet50_config": {**common, **plain, **resnet50},
        "YOLACT_base_config": {**common, **plain, **resnet101},
    }


MODELS = _read_only(
    {
        **_published_models(),
        **_yolact_models(),
        "STMask_demo_config": {
            **DATASETS["ShapesVIS"],
            "input.size_hw": (192, 320),
            "backbone.blocks": (2, 2, 2, 2),
            "backbone.stem_channels": 20,
            "backbone.dcn_interval": 2,
            "head.channels": 48,
            "head.calibration": "ada",
            "head.num_prototypes": 16,
            "head.embedding_dim": 32,
            "temporal_fusion.channels": (64, 64, 128),
            "temporal_fusion.detach_features": True,
            # Its weights were trained here, so it needs none of the quirks of the published weights.
            "quirks.centerness_kernel_major": False,
            "quirks.ohem_weights_by_position": False,
            "quirks.mask_bce_outside_crop": False,
            # Chosen on videos outside the valid split, see weights/README.md: embeddings trained with a softmax tell
            # objects apart better than boxes, and tracks of a few frames are often duplicates.
            "tracking.match_coeff": (0.0, 0.5, 0.5, 0.5),
            "tracking.new_object_similarity": 0.85,
            "tracking.new_object_iou": 0.0,
            "tracking.max_hidden_age": 3,
            "postprocess.length_power": 0.5,
            "train.optimizer": "adamw",
            "train.learning_rate": 1e-3,
            "train.weight_decay": 0.01,
            "train.clip_grad_norm": 10.0,
            "train.warmup_iterations": 100,
            "train.iterations": 2000,
            "train.lr_schedule": "cosine",
            "train.semantic_loss": 3.0,
            "train.freeze_batch_norm": False,
            "train.pretrained": "",
        },
    }
)

# File names of published weights that differ from the config's name.
WEIGHT_NAMES: Mapping[str, str] = types.MappingProxyType(
    {
        "STMask_r101_FCA+TF": "STMask_plus_base_config",
        "STMask_r101_ali": "STMask_plus_base_ali_config",
        "STMask_r101_ada": "STMask_plus_base_ada_config",
        "STMask_r50_FCA+TF": "STMask_plus_resnet50_config",
        "STMask_r50_ali": "STMask_plus_resnet50_ali_config",
        "STMask_r50_ada": "STMask_plus_resnet50_ada_config",
        "yolact_JDT_base": "STMask_base_config",
        **{name.removesuffix("_config").lower(): name for name in _yolact_models()},
        **{name.removesuffix("_config"): name for name in MODELS},
        **{name: name for name in MODELS},
    }
)


# ---------------------------------------------------------------------------------------------------- making one


def get_config(name: str, overrides: Mapping[str, Any] | Sequence[str] | None = None) -> Config:
    """The config `name`, changed by `overrides`: {dotted key: value} or a list of "key=value" as `--set` takes them.

    Values are checked against the key's type, and text is parsed to it: a list is a Python literal in brackets, or
    plain, with a comma between its items and a semicolon between lists of lists.

    Raises:
        InputError: an unknown name or key (the message gives the nearest valid one), or a value of another type.
    """
    if name not in MODELS and f"{name}_config" in MODELS:
        name = f"{name}_config"
    if name not in MODELS:
        raise InputError(f"unknown config {name!r}{nearest(name, MODELS)}")
    return make_config(name, MODELS[name], overrides)


def make_config(
    name: str, keys: Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[str] | None = None
) -> Config:
    """The config called `name` that differs from the defaults by `keys`, and then by `overrides`, as `get_config`.

    Raises:
        InputError: as `get_config`.
    """
    overrides = split_overrides(overrides)
    if overrides.pop("name", name) != name:
        raise InputError("the key 'name' cannot be set: it is the config's own name")
    values, valid = {}, config_keys()
    for dotted, value in {**keys, **overrides}.items():
        if dotted == "name":
            continue
        if dotted not in valid:
            raise InputError(f"unknown config key {dotted!r}{nearest(dotted, valid)}")
        values[dotted] = _typed(dotted, value, valid[dotted].type)
    has_other_classes = values.get("dataset.class_names") != keys.get("dataset.class_names")
    if has_other_classes and "dataset.category_ids" not in overrides:
        values.pop("dataset.category_ids", None)
    config = _build(Config, {"name": name, **values}, "")
    for dotted, value in _leaves(config):
        for rule in valid[dotted].metadata["rules"] if dotted in valid else ():
            if not rule.holds(value):
                raise InputError(f"config key {dotted!r} {rule.text}, not {shown(value)}")
    if config.head.anchor_scales and config.head.calibration != "none":
        raise InputError("config key 'head.calibration' must be 'none' where 'head.anchor_scales' are given")
    ids = config.dataset.category_ids
    if ids and not len(ids) == len(set(ids)) == config.num_classes:
        raise InputError(
            f"config key 'dataset.category_ids' must give each of the {config.num_classes} classes its own"
        )
    if config.tracking.memory > 1 and not config.head.embedding_dim:
        raise InputError("config key 'tracking.memory' must be 1 without embeddings (head.embedding_dim=0)")
    return config


def config_keys() -> dict[str, Field]:
    """{dotted key: its field} of all keys of a config."""
    return dict(_leaf_fields(Config))


def split_overrides(overrides: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """{dotted key: value} of overrides as `get_config` takes them; the last value of a key is used.

    Raises:
        InputError: a text is not of the form key=value.
    """
    if isinstance(overrides, Mapping):
        return dict(overrides)
    return dict(_split_assignment(text) for text in overrides or ())


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options --config, --set and --print_config to a command line."""
    group = parser.add_argument_group("config")
    group.add_argument("--config", metavar="NAME", help="config name, as `python -m data.config` lists them")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a config key, e.g. --set tracking.max_hidden_age=5 (repeatable)",
    )
    group.add_argument("--print_config", action="store_true", help="print the config and stop")


def overrides_from(
    assignments: Sequence[str], shortcuts: Mapping[str, Any], of_dataset: Mapping[str, Any] | None = None
) -> list[str]:
    """Returns overrides for `get_config`: those of a data set (see `dataset_overrides`), all `assignments` key=value,
    then the values of `shortcuts` (key → value) that are not None."""
    return [
        *(f"{key}={value}" for key, value in (of_dataset or {}).items()),
        *assignments,
        *(f"{key}={value}" for key, value in shortcuts.items() if value is not None),
    ]


def _split_assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text!r} is not of the form key=value")
    return key.strip(), value.strip()


def nearest(word: str, candidates: Iterable[str]) -> str:
    """'; did you mean …?' with the candidate that ends in `word`, or else the closest."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.0)
    if not close:
        return ""
    ends = [name for lower, name in by_lower.items() if "." in lower and lower.rsplit(".", 1)[1] == word.lower()]
    return f"; did you mean {(ends or [by_lower[close[0]]])[0]!r}?"


def _leaf_fields(cls: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """(dotted key, field) of every leaf of a config dataclass, except the config's own name."""
    for f in fields(cls):
        if is_dataclass(f.type):
            yield from _leaf_fields(f.type, f"{prefix}{f.name}.")
        elif prefix or f.name != "name":
            yield prefix + f.name, f


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    arguments = {}
    for f in fields(cls):
        if is_dataclass(f.type):
            arguments[f.name] = _build(f.type, values, f"{prefix}{f.name}.")
        elif prefix + f.name in values:
            arguments[f.name] = values[prefix + f.name]
        elif f.default is MISSING and f.default_factory is MISSING:
            raise InputError(f"config key {prefix + f.name!r} has no value")
    return cls(**arguments)


def _typed(key: str, value: Any, kind: Any) -> Any:
    """`value` as the type `kind`, or InputError."""
    try:
        return _convert(value, kind)
    except (ValueError, TypeError, OverflowError, SyntaxError):
        raise InputError(f"config key {key!r} takes {_type_name(kind)}, not {shown(value)}") from None


def _convert(value: Any, kind: Any, separators: str = ";,") -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ValueError
        return value
    if origin is tuple:
        nested = typing.get_origin(arguments[0]) is tuple
        if isinstance(value, str) and value.strip()[:1] in ("(", "["):
            value = ast.literal_eval(value.strip())
        if isinstance(value, str):
            separator = separators[0] if nested else separators[1]
            value = [item.strip() for item in value.split(separator) if item.strip()]
        variable = arguments[-1] is Ellipsis
        if not variable and len(value) != len(arguments):
            raise ValueError
        kinds = [arguments[0]] * len(value) if variable else arguments
        return tuple(_convert(item, item_kind) for item, item_kind in zip(value, kinds, strict=True))
    if kind is bool:
        if isinstance(value, str):
            value = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(value.lower())
        if not isinstance(value, bool):
            raise ValueError
        return value
    if kind is int:
        if isinstance(value, bool) or (not isinstance(value, str) and int(value) != value):
            raise ValueError
        return int(value)
    if kind is float:
        if isinstance(value, bool) or not math.isfinite(float(value)):
            raise ValueError
        return float(value)
    if kind is str:
        if not isinstance(value, str | Path):
            raise ValueError
        return str(value)
    raise TypeError(kind)


def _type_name(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin is tuple:
        count = "several of" if arguments[-1] is Ellipsis else f"{len(arguments)} times"
        separator = "semicolon" if typing.get_origin(arguments[0]) is tuple else "comma"
        return f"{count} ({_type_name(arguments[0])}), {separator}-separated"
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[kind]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m data.config [NAME]`: prints the names, or one config, with --help_keys explained."""
    parser = Parser(prog="python -m data.config", description="List the configs, or print one.")
    parser.add_argument("name", nargs="?", help="config to print; without it, all names")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key (repeatable)")
    parser.add_argument("--help_keys", action="store_true", help="explain each key of the config")
    options = parser.parse_args(arguments)

    def show() -> None:
        if options.name is None:
            print("\n".join(MODELS))
        else:
            config = get_config(options.name, options.set)
            print(config.explained() if options.help_keys else config)

    return run_command("data.config", show)


if __name__ == "__main__":
    sys.exit(main())
