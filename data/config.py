"""Config dicts: data sets, models, and `get_config(name, overrides)`, which turns them into one immutable object.

    python -m data.config STMask_plus_base_ada_config --set tracking.max_hidden_age=5     # prints a config
    python -m data.config                                                                  # lists the names

A config is a tree of frozen dataclasses: their fields are all the keys there are, with type and default. `MODELS` says,
as dicts of dotted keys, how each named model differs from the defaults; `--set key=value` does the same by hand.
"""

import argparse
import ast
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from ytvis.command_line import Parser, run_command
from ytvis.files import InputError


@dataclass(frozen=True)
class SplitConfig:
    """One split. Each entry may list candidates relative to the data set's root; the first that exists counts."""

    ann_file: tuple[str, ...] = ()
    image_root: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetConfig:
    """A data set in the YouTube-VIS format, or of images in COCO's: where its files lie, and its classes in label order
    (label 1 is the first)."""

    name: str = ""
    root: str = ""
    class_names: tuple[str, ...] = ()
    train: SplitConfig = field(default_factory=SplitConfig)
    valid: SplitConfig = field(default_factory=SplitConfig)
    test: SplitConfig = field(default_factory=SplitConfig)


@dataclass(frozen=True)
class InputConfig:
    """The network input: every frame is resized to size_hw, normalised (RGB, 0…255) and zero-padded to size_divisor."""

    size_hw: tuple[int, int] = (360, 640)
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    size_divisor: int = 32


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet of bottlenecks: `blocks` per stage C2…C5; `stem_channels` 64 is the usual width; every
    `dcn_interval`-th block of C3…C5 is deformable, 0 for none."""

    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    stem_channels: int = 64
    dcn_interval: int = 3


@dataclass(frozen=True)
class HeadConfig:
    """Pyramid and prediction head. `kernels` (height, width) are FCA's: the anchor of that many cells has a
    convolution of its own shape. `square_kernels` turns FCA off: every anchor keeps its shape, and has a 3×3
    convolution. `calibration` is FCB's kind. `num_prototypes` K, `embedding_dim` E."""

    channels: int = 256
    kernels: tuple[tuple[int, int], ...] = ((3, 3), (3, 5), (5, 3))
    square_kernels: bool = False
    calibration: Literal["none", "ali", "ada"] = "none"
    num_prototypes: int = 32
    embedding_dim: int = 128


@dataclass(frozen=True)
class TemporalFusionConfig:
    """The temporal fusion net: correlation window in cells, channels of its three convolutions, RoIAlign's size.

    `detach_features`: its losses train the net alone and not the features it reads. As published they train both, but
    in a network that starts from scratch they drown what the other losses say."""

    enabled: bool = True
    detach_features: bool = False
    patch_size: int = 11
    channels: tuple[int, int, int] = (512, 512, 1024)
    roi_size: int = 7


@dataclass(frozen=True)
class DetectionConfig:
    """Detection in one frame: candidates over `conf_threshold`, the `top_k` best through fast NMS at IoU
    `nms_threshold`; per-class NMS reports at most `max_detections`."""

    conf_threshold: float = 0.05
    nms_threshold: float = 0.5
    top_k: int = 200
    max_detections: int = 100
    cross_class_nms: bool = True


@dataclass(frozen=True)
class TrackingConfig:
    """Track life. `match_coeff` weighs (score, mask IoU, box IoU, same label) in the affinity beside the embeddings'
    cosine; `new_object_iou` is the IoU, and `new_object_similarity` the cosine term, of the dummy "new object".

    With temporal fusion an unseen object's score decays by `score_decay` a frame, and it is visible while its age is at
    most `max_hidden_age`, its mask has `min_mask_pixels` and its score is over `score_threshold`. Without, an object's
    state stands still where its detection overlaps two objects by more than `ambiguous_mask_iou`. An object not seen
    for more than `max_track_age` frames is forgotten; 0 is never, as published."""

    match_coeff: tuple[float, float, float, float] = (0.0, 1.0, 2.0, 0.0)
    new_object_similarity: float = 0.5
    new_object_iou: float = 0.3
    ambiguous_mask_iou: float = 0.3
    score_decay: float = 0.95
    score_threshold: float = 0.05
    max_hidden_age: int = 10
    max_track_age: int = 0
    min_mask_pixels: int = 2


@dataclass(frozen=True)
class PostprocessConfig:
    """What is reported: tracks with a score over `score_threshold`, at most `top_k` a frame (0: all).

    In the results of a data set a track's score is its mean over the frames that show it, times the share of the
    video's frames that do, to the power `length_power`: tracks of a few frames seldom are right. 0 is the mean alone,
    as published."""

    score_threshold: float = 0.05
    top_k: int = 0
    length_power: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """The recipe. `iterations`, `lr_steps` and `warmup_iterations` hold for batches of 4 clips (8 images) and are
    divided by batch/4. The learning rate falls by `gamma` at `lr_steps`, or along half a cosine (`lr_schedule`).
    `pretrained` is the checkpoint that training starts from, "" for none. A clip pairs frames at most
    `max_frame_distance` annotated frames apart; `photometric`, `zoom_out` and `crop` are off as published. A clip of a
    static image shows it in affine views, drawn from ± `static_rotation` degrees, factors `static_scale` (least,
    most), ± `static_translation` of the sides and ± `static_shear` degrees. `box_iou_loss` off trains boxes with smooth
    L1. `contrastive` trains the embeddings with a softmax over all others instead of by pairs. `semantic_loss` weighs
    a loss S of the class of every cell of P3, which helps a network that starts from nothing (after YOLACT's; 0, as
    published, is none). `only` trains nothing but the parameters whose names begin with one of these. Gradients longer
    than `clip_grad_norm`, the temporal net's and those of all else apart, are shortened to it, 0 leaves them as
    published."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    lr_schedule: Literal["steps", "cosine"] = "steps"
    gamma: float = 0.1
    lr_steps: tuple[int, ...] = (150_000, 200_000)
    warmup_iterations: int = 500
    iterations: int = 250_000
    clip_grad_norm: float = 0.0
    freeze_batch_norm: bool = True
    pretrained: str = "weights/yolact_plus_base_54_800000.pth"
    max_frame_distance: int = 2
    flip_probability: float = 0.5
    photometric: bool = False
    zoom_out: bool = False
    crop: bool = False
    static_rotation: float = 10.0
    static_scale: tuple[float, float] = (0.8, 1.25)
    static_translation: float = 0.1
    static_shear: float = 5.0
    box_iou_loss: bool = True
    contrastive: bool = False
    semantic_loss: float = 0.0
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuirksConfig:
    """Behaviour of the published code that looks unintended, on as the weights were trained; see docs/quirks.md."""

    centerness_kernel_major: bool = True
    double_tanh_without_fusion: bool = True
    plain_scores_without_fusion: bool = True
    binary_masks_without_fusion: bool = True
    hidden_low_scores: bool = True
    ohem_weights_by_position: bool = True
    mask_bce_outside_crop: bool = True
    lr_not_autoscaled: bool = True


@dataclass(frozen=True)
class Config:
    """Everything a model and its data are made of. Immutable; `get_config` is the only maker."""

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

    def flat(self) -> dict[str, Any]:
        """{dotted key: value} of every key, in order; `get_config(self.name, self.flat())` equals self."""
        return dict(_leaves(self))

    def __str__(self) -> str:
        return "\n".join(f"{key} = {value!r}" for key, value in self.flat().items())


# ---------------------------------------------------------------------------------------------------- data sets

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


def _read_only(dicts: dict[str, dict[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The dict of dicts, as nobody can change it."""
    return types.MappingProxyType({name: types.MappingProxyType(keys) for name, keys in dicts.items()})


def _dataset(name: str, root: str, class_names: str, image_root: Sequence[str]) -> dict[str, Any]:
    """Dotted keys of a data set in the layouts its publishers' archives unpack to."""
    keys = {"dataset.name": name, "dataset.root": root, "dataset.class_names": tuple(class_names.split())}
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
    """The dotted keys of the data set `name` of `DATASETS`, whatever its case: overrides that put it in the place of a
    config's own, and give the network its classes.

    Raises:
        InputError: there is no such data set (the message gives the nearest).
    """
    for known, keys in DATASETS.items():
        if known.lower() == name.lower():
            return dict(keys)
    raise InputError(f"unknown data set {name!r}{_nearest(name, DATASETS)}")


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


MODELS = _read_only(
    {
        **_published_models(),
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
            # Its weights are its own: nothing asks it to repeat what looks unintended in how others were trained.
            "quirks.centerness_kernel_major": False,
            "quirks.ohem_weights_by_position": False,
            "quirks.mask_bce_outside_crop": False,
            # Chosen on other videos than the valid split's, see weights/README.md: embeddings trained by a softmax
            # say more than boxes do, and tracks of a few frames are often second ones of an object.
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

# File names of published weights that are not the config's own name.
WEIGHT_NAMES: Mapping[str, str] = types.MappingProxyType(
    {
        "STMask_r101_FCA+TF": "STMask_plus_base_config",
        "STMask_r101_ali": "STMask_plus_base_ali_config",
        "STMask_r101_ada": "STMask_plus_base_ada_config",
        "STMask_r50_FCA+TF": "STMask_plus_resnet50_config",
        "STMask_r50_ali": "STMask_plus_resnet50_ali_config",
        "STMask_r50_ada": "STMask_plus_resnet50_ada_config",
        "yolact_JDT_base": "STMask_base_config",
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
        raise InputError(f"unknown config {name!r}{_nearest(name, MODELS)}")
    values = dict(MODELS[name])
    overrides = split_overrides(overrides)
    if overrides.pop("name", name) != name:
        raise InputError("the key 'name' cannot be set: it is the config's own name")
    valid = dict(_leaf_types(Config))
    for key, value in {**values, **overrides}.items():
        if key not in valid:
            raise InputError(f"unknown config key {key!r}{_nearest(key, valid)}")
        values[key] = _typed(key, value, valid[key])
    config = _build(Config, {"name": name, **values}, "")
    _check(config)
    return config


def split_overrides(overrides: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """{dotted key: value} of overrides as `get_config` takes them; the last of a key counts.

    Raises:
        InputError: a text is not of the form key=value.
    """
    if isinstance(overrides, Mapping):
        return dict(overrides)
    return dict(_split_assignment(text) for text in overrides or ())


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives a command line the options --config, --set and --print_config."""
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


def overrides_from(options: argparse.Namespace, shortcuts: Mapping[str, str], dataset: str | None = None) -> list[str]:
    """Overrides for `get_config`: those of `dataset`, if given (see `dataset_overrides`), all of --set, then each
    option of `shortcuts` (option → key) that was given.

    Raises:
        InputError: there is no such data set.
    """
    of_dataset = dataset_overrides(dataset) if dataset else {}
    given = ((key, getattr(options, option)) for option, key in shortcuts.items())
    return [
        *(f"{key}={value}" for key, value in of_dataset.items()),
        *options.set,
        *(f"{key}={value}" for key, value in given if value is not None),
    ]


def _split_assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text!r} is not of the form key=value")
    return key.strip(), value.strip()


def _nearest(word: str, candidates) -> str:
    """'; did you mean …?' with the candidate that ends so, or else the closest."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.0)
    if not close:
        return ""
    ends = [name for lower, name in by_lower.items() if "." in lower and lower.rsplit(".", 1)[1] == word.lower()]
    return f"; did you mean {(ends or [by_lower[close[0]]])[0]!r}?"


def _leaf_types(cls: type, prefix: str = ""):
    """(dotted key, type) of every leaf of a config dataclass, except the config's own name."""
    for f in fields(cls):
        if is_dataclass(f.type):
            yield from _leaf_types(f.type, f"{prefix}{f.name}.")
        elif prefix or f.name != "name":
            yield prefix + f.name, f.type


def _leaves(config, prefix: str = ""):
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value


def _build(cls: type, values: Mapping[str, Any], prefix: str):
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
        raise InputError(f"config key {key!r} takes {_type_name(kind)}, not {value!r}") from None


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


_NOT_EMPTY = ("dataset.class_names", "head.kernels")
_ODD = ("temporal_fusion.patch_size", "head.kernels")  # windows and kernels are centred
_POSITIVE = (
    *("input.size_hw", "input.std", "input.size_divisor"),
    *("backbone.blocks", "backbone.stem_channels"),
    *("head.channels", "head.kernels", "head.num_prototypes", "head.embedding_dim"),
    *("temporal_fusion.patch_size", "temporal_fusion.channels", "temporal_fusion.roi_size"),
    *("detection.top_k", "detection.max_detections"),
    "train.static_scale",
)
_FRACTIONS = (
    *("detection.conf_threshold", "detection.nms_threshold", "postprocess.score_threshold"),
    *("tracking.score_threshold", "tracking.score_decay", "train.flip_probability", "train.static_translation"),
)
_NOT_NEGATIVE = (
    *("train.learning_rate", "train.momentum", "train.weight_decay", "train.gamma", "train.max_frame_distance"),
    *("train.clip_grad_norm", "train.semantic_loss", "tracking.max_track_age", "postprocess.length_power"),
)
_ANGLES = ("train.static_rotation", "train.static_shear")
_RANGES = ("train.static_scale",)


def _check(config: Config) -> None:
    """Refuses values that no network can be built or run with."""
    values = config.flat()
    rules = (
        (_NOT_EMPTY, lambda value: value != (), "must hold at least one entry"),
        (_ODD, lambda value: all(number % 2 for number in _numbers(value)), "must be odd: it is centred"),
        (_POSITIVE, lambda value: all(number > 0 for number in _numbers(value)), "must be positive"),
        (_FRACTIONS, lambda value: 0 <= value <= 1, "must lie in 0…1"),
        (_NOT_NEGATIVE, lambda value: value >= 0, "must not be negative"),
        (_ANGLES, lambda value: 0 <= value < 90, "must be at least 0 and less than 90 degrees"),
        (_RANGES, lambda value: value[0] <= value[1], "must not be lower at its end than at its start"),
    )
    for keys, holds, rule in rules:
        for key in keys:
            if not holds(values[key]):
                raise InputError(f"config key {key!r} {rule}, not {values[key]}")


def _numbers(value: Any) -> list:
    """The numbers of a number or of nested tuples of them."""
    return [number for item in value for number in _numbers(item)] if isinstance(value, tuple) else [value]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m data.config [NAME]`: prints the names, or one config."""
    parser = Parser(prog="python -m data.config", description="List the configs, or print one.")
    parser.add_argument("name", nargs="?", help="config to print; without it, all names")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key (repeatable)")
    options = parser.parse_args(arguments)
    return run_command(
        "data.config", lambda: print(get_config(options.name, options.set) if options.name else "\n".join(MODELS))
    )


if __name__ == "__main__":
    sys.exit(main())
