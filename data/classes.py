"""Takes the classes of your own data set from its annotation file."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.config import MODELS, Config, get_config, split_overrides
from ytvis.annotations import normalised_name, read_class_names

logger = logging.getLogger(__name__)


def config_for(name: str, overrides: Mapping[str, Any] | Sequence[str] | None = None) -> Config:
    """As `get_config`, but takes the classes of another data set than the config's own from its annotation file.

    It does so if `overrides` give another `dataset.root` and no `dataset.class_names`, or if the model's dict has no
    class names. The names are those in the train split's file, in the order of their ids. The config's own names are
    kept if they cover all of them, or if the file does not exist.

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
