"""The classes of your own data set, which its annotation file names."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.config import MODELS, Config, get_config, split_overrides
from ytvis.annotations import normalised_name, read_class_names

logger = logging.getLogger(__name__)


def config_for(name: str, overrides: Mapping[str, Any] | Sequence[str] | None = None) -> Config:
    """As `get_config`, but the classes of a data set elsewhere than the config's own are those of its annotation file.

    That is the case where `overrides` name another `dataset.root` and no `dataset.class_names`, or where the model's
    dict has none. The names are those of the train split's file, in the order of their ids; the config's own stay where
    they cover all of them, or where there is no such file.

    Raises:
        InputError: as `get_config`, or the file cannot be read.
    """
    overrides = split_overrides(overrides)
    if "dataset.class_names" in overrides:
        return get_config(name, overrides)
    own = MODELS.get(name) or MODELS.get(f"{name}_config") or {}
    is_elsewhere = "dataset.root" in overrides and Path(overrides["dataset.root"]) != Path(own.get("dataset.root", ""))
    known = own.get("dataset.class_names", ())
    if known and not is_elsewhere:
        return get_config(name, overrides)
    config = get_config(name, {**overrides, "dataset.class_names": known or ("unknown",)})
    root = Path(config.dataset.root).expanduser()
    path = next((root / file for file in config.dataset.train.ann_file if os.path.isfile(root / file)), None)
    if path is None:
        return get_config(name, overrides)
    found = read_class_names(path)
    if {normalised_name(word) for word in found} <= {normalised_name(word) for word in known}:
        return config
    logger.info("classes of %s: %s", path, ", ".join(found))
    return get_config(name, {**overrides, "dataset.class_names": found})
