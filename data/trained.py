"""The config of a trained network, from its checkpoint: what the file says about itself (`utils.checkpoint_record`), or
else what its name tells, and names and shapes of its tensors (`utils.checkpoint_shapes`)."""

import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

from data.classes import config_for
from data.config import (
    DATASETS,
    MODELS,
    TRACKING_BY_OVERLAP,
    WEIGHT_NAMES,
    Config,
    config_keys,
    get_config,
    make_config,
    split_overrides,
)
from data.dataset import YTVISDataset
from utils.checkpoint import CheckpointName, load_state_dict
from utils.checkpoint_record import CheckpointRecord, read_record
from utils.checkpoint_shapes import keys_of
from utils.weight_sources import is_remote
from ytvis.annotations import normalised_name
from ytvis.files import InputError
from ytvis.messages import excerpt, short_name

logger = logging.getLogger(__name__)

# What a network is trained for: with other values it runs, but finds other things.
TRAINED_FOR = (
    *("input.size_hw", "dataset.class_names", "head.kernels", "head.square_kernels", "head.anchor_scales"),
    "quirks.square_anchors",
)
PARTS = ("head.centerness", "head.embedding_dim", "temporal_fusion.enabled")  # that a network may do without
WITHOUT_EMBEDDINGS = {
    key: value for key, value in TRACKING_BY_OVERLAP.items() if key.startswith(("tracking.", "quirks."))
}


def trained_config(
    path: str | os.PathLike,
    name: str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] | None = None,
    state: Mapping | None = None,
) -> Config:
    """The config that the checkpoint `path` was trained with, changed by `overrides` (as `get_config` takes them).

    `name` is that of the config, if it is known; without a record in the file it counts more than the file's name.
    `state` are the file's tensors, if they are loaded already. A difference in `TRAINED_FOR` is logged in one line.

    Raises:
        InputError: the record or an override cannot be used, or nothing tells the config.
    """
    overrides = split_overrides(overrides)
    record = read_record(path) or CheckpointRecord()
    is_known = WEIGHT_NAMES.get(record.config, record.config) in MODELS
    if not record.class_names or not (is_known or record.keys or record.changed):  # as the converter may write it
        if record.class_names:
            overrides = {"dataset.class_names": record.class_names, **overrides}
        return _told_by_shapes(path, name or (record.config if is_known else ""), overrides, state)
    trained = config_of_record(record, path)
    if name is None or get_config(name).name == trained.name:
        config = make_config(trained.name, trained.flat(), overrides)
    else:
        known = {"dataset.class_names": record.class_names, "dataset.category_ids": _ids_of(record)}
        config = get_config(name, overrides if "dataset.class_names" in overrides else {**known, **overrides})
    now, then = config.flat(), trained.flat()
    changed = [
        f"{key} is {excerpt(now[key])}, not {excerpt(then[key])}" for key in TRAINED_FOR if now[key] != then[key]
    ]
    if changed:
        logger.warning("%s: runs with other settings than it was trained with: %s", path, "; ".join(changed))
    return config


# ---------------------------------------------------------------------------------------------------- the record


def config_of_record(record: CheckpointRecord, path: str | os.PathLike) -> Config:
    """The config that a record, with class names, tells.

    Raises:
        InputError: a key has a value that it cannot have.
    """
    name = WEIGHT_NAMES.get(record.config, record.config)
    known = config_keys()
    keys = {**(record.keys or MODELS.get(name, {})), **record.changed}
    unknown = [key for key in keys if key not in known]
    if unknown:
        logger.warning("%s: has config keys of another version, left out: %s", path, excerpt(", ".join(unknown)))
    keys = {key: value for key, value in keys.items() if key in known}
    try:
        return make_config(
            name, keys, {"dataset.class_names": record.class_names, "dataset.category_ids": _ids_of(record)}
        )
    except InputError as error:
        raise InputError(f"{path}: what it says about itself cannot be used: {error}") from None


def _ids_of(record: CheckpointRecord) -> tuple[int, ...]:
    """The category ids of all classes of a record, () if it has none; classes that the data set's file lacks have ids
    that are greater than those of the others."""
    free = itertools.count(max((i for i in record.category_ids if i is not None), default=0) + 1)
    return tuple(next(free) if category_id is None else category_id for category_id in record.category_ids)


def make_record(config: Config, dataset: YTVISDataset | None = None, split: str = "") -> CheckpointRecord:
    """What a checkpoint of `config`, trained on `split` of `dataset`, says about itself; no path outside the folder
    that the program runs in is part of it."""
    defaults = make_config(config.name, {}, {"dataset.class_names": config.dataset.class_names}).flat()
    keys = MODELS.get(config.name, {})
    named = make_config(config.name, keys, {"dataset.class_names": config.dataset.class_names}).flat()
    skipped = ("name", "dataset.class_names", "dataset.category_ids")
    keys = {key: value for key, value in named.items() if value != defaults[key] and key not in skipped}
    changed = {
        key: without_place(key, value)
        for key, value in config.flat().items()
        if value != named[key] and key not in skipped
    }
    classes = {"class_names": config.dataset.class_names, "category_ids": config.dataset.category_ids}
    record = CheckpointRecord(config.name, changed, **classes, keys=keys)
    if dataset is None:
        return record
    root = config.dataset.root
    data = {
        "name": config.dataset.name if root == named["dataset.root"] else Path(root).name,
        "split": split,
        "ann_file": dataset.ann_file.name,
    }
    ids = dataset.category_ids
    names = tuple(None if category_id is None else dataset.categories[category_id] for category_id in ids)
    return replace(record, data=data, category_ids=ids, category_names=names)


def check_classes(record: CheckpointRecord, config: Config, dataset: YTVISDataset, path: str | os.PathLike) -> None:
    """Raises InputError where `config` or `dataset` has other classes, or another order of them, than the network of
    the checkpoint `path` was trained with."""
    if record.class_names and record.class_names != config.dataset.class_names:
        _refuse_classes(path, record.class_names, "--set dataset.class_names", config.dataset.class_names)
    if not (record.category_ids and record.category_names):
        return
    now = make_record(config, dataset)
    ids = enumerate(zip(record.category_ids, now.category_ids, strict=True))
    both = [i for i, (then, present) in ids if then is not None and present is not None]
    order = sorted(both, key=lambda i: now.category_ids[i])
    names = [[normalised_name(part.category_names[i]) for i in both] for part in (record, now)]
    if names[0] != names[1] or order != sorted(both, key=lambda i: record.category_ids[i]):
        trained = [name for name in record.category_names if name is not None]
        _refuse_classes(path, trained, str(dataset.ann_file), tuple(dataset.categories.values()))


def _refuse_classes(path: str | os.PathLike, trained: Sequence[str], where: str, found: Sequence[str]) -> None:
    texts = [excerpt(", ".join(map(short_name, names)), 200) for names in (trained, found)]
    raise InputError(
        f"{path}: was trained with the classes {texts[0]}; {where} has {texts[1]}: resume it with the same classes in "
        f"the same order, or start a training from it with --set train.pretrained={path}"
    )


def without_place(key: str, value: Any) -> Any:
    """`value` of a config key without what it tells of the machine: paths outside the working directory are cut to
    their last part, and the place of a data set there is left out."""
    if isinstance(value, tuple):
        return tuple(without_place(key, item) for item in value)
    if not isinstance(value, str):
        return value
    if is_remote(value):
        return value.partition("?")[0]
    inside = os.path.relpath(os.path.expanduser(value)) if value else value
    is_path = os.path.isabs(inside) or PureWindowsPath(value).is_absolute() or inside.startswith("..")
    if not is_path:
        return inside if os.path.isabs(value) or value.startswith("~") else value
    return "" if key == "dataset.root" else PureWindowsPath(value).name


# ---------------------------------------------------------------------------------------------------- names and shapes


def shape_keys(config: Config) -> dict[str, Any]:
    """What `keys_of` tells of the tensors of a network of `config`."""
    head, fusion = config.head, config.temporal_fusion
    own = config.flat()
    keys = {key: own[key] for key in own if key.startswith("backbone.")}
    keys["backbone.dcn_interval"] = min(config.backbone.dcn_interval, max(config.backbone.blocks))
    for key in ("channels", "num_prototypes", "centerness", "mask_iou_net", "calibration", "embedding_dim"):
        keys[f"head.{key}"] = getattr(head, key)
    if head.anchor_scales:
        keys["num_anchors"] = 3 * len(head.anchor_scales[0])
    else:
        keys["num_anchors"] = 0
        keys["head.kernels"] = ((3, 3),) * len(head.kernels) if head.square_kernels else head.kernels
    if fusion.enabled:
        keys.update({f"temporal_fusion.{key}": getattr(fusion, key) for key in ("channels", "patch_size")})
    return {**keys, "temporal_fusion.enabled": fusion.enabled, "num_classes": config.num_classes}


def differences(keys: Mapping[str, Any], config: Config) -> set[str]:
    """Those of `keys` (of `keys_of`) whose values differ in `config`; keys of parts that it lacks are left out."""
    own = shape_keys(config)
    return {key for key, value in keys.items() if value != own.get(key, value)}


def named_like(keys: Mapping[str, Any]) -> str | None:
    """The name of the config whose network has `keys` (of `keys_of`), if possible with as many classes.

    None if there is none.
    """
    found = []
    for name, own in MODELS.items():
        if own.get("dataset.class_names"):  # your own config may leave them to its data set
            different = differences(keys, get_config(name))
            if different <= {"num_classes"}:
                found.append((len(different), name))
    return min(found, key=lambda entry: entry[0])[1] if found and keys else None


def _told_by_shapes(path: str | os.PathLike, name: str, overrides: Mapping[str, Any], state: Mapping | None) -> Config:
    """As `trained_config`, of a file without a record."""
    parsed = CheckpointName.parse(path)
    given = WEIGHT_NAMES.get(name, name)
    name = given or WEIGHT_NAMES.get(parsed.model if parsed else "", "")
    if state is None and (os.path.isfile(path) or not name):
        state = load_state_dict(path)
    keys = keys_of(state or {})
    like = named_like(keys)
    if not name:
        name = like or _similar(keys)
    elif not given and like is None and differences(keys, get_config(name)) & {"num_anchors"}:
        name = _similar(keys) or name  # STMask's COCO files have the names of YOLACT's
    if name is None:
        raise InputError(
            f"{path}: neither its name nor its tensors tell which model this is; if it is one of those that "
            "`python -m data.config` lists, add --config=NAME"
        )
    config = config_for(name, overrides)
    different = differences(keys, config)
    if like and different - {"num_classes", *PARTS}:
        return config  # of another model than the name says, which `STMask.from_pretrained` reports
    adapted = {key: keys[key] for key in different if key not in ("num_classes", "num_anchors")}
    kernels = adapted.get("head.kernels")
    if kernels:
        adapted["head.square_kernels"] = set(kernels) == {(3, 3)}
    if adapted.get("head.embedding_dim") == 0:
        adapted.update(WITHOUT_EMBEDDINGS)
    if "num_classes" in different and "dataset.class_names" not in overrides:
        adapted["dataset.class_names"] = _names_of(keys["num_classes"], path)
    adapted = {key: value for key, value in adapted.items() if key not in overrides}
    if not adapted:
        return config
    told = ", ".join(f"{key} = {excerpt(value)}" for key, value in adapted.items() if key != "dataset.class_names")
    logger.info("%s: its tensors tell %s%s", path, config.name, f" with {told}" if told else "")
    return make_config(config.name, config.flat(), adapted)


def _similar(keys: Mapping[str, Any]) -> str | None:
    """The config with FCA that `keys` fit best; None if they are of a network without FCA."""
    if not keys or keys["num_anchors"]:
        return None
    named = ((name, own) for name, own in MODELS.items() if own.get("dataset.class_names"))
    names = [name for name, own in named if not own.get("head.anchor_scales")]
    return min(names, key=lambda name: len(differences(keys, get_config(name))))


def _names_of(num_classes: int, path: str | os.PathLike) -> tuple[str, ...]:
    """Names for so many classes: those of the published data set that has as many, or numbers."""
    for name in ("YTVIS2019", "OVIS", "COCO2017"):
        names = DATASETS[name]["dataset.class_names"]
        if len(names) == num_classes:
            logger.info("%s: has %d classes; they are taken for those of %s", path, num_classes, name)
            return names
    logger.warning(
        "%s: the names of its %d classes are not in it; to name them, in label order: --set dataset.class_names=NAME,…",
        *(path, num_classes),
    )
    return tuple(f"class_{number}" for number in range(1, num_classes + 1))
