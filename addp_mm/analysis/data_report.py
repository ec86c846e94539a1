# Copyright (c) addp_mm contributors. Apache-2.0.
"""Everything that can be counted of the datasets of a config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from addp_mm.analysis.annotated_images import Sample
from addp_mm.analysis.box_statistics import BoxStatistics
from addp_mm.analysis.image_sizes import ImageSizes
from addp_mm.analysis.image_sources import ImageSource
from addp_mm.analysis.label_map_statistics import LabelStatistics
from addp_mm.analysis.token_statistics import TokenStatistics
from addp_mm.checks.check_list import LOADERS
from addp_mm.checks.dataset_cfg import local_datasets
from addp_mm.config.nodes import node_at


@dataclass
class DataReport:
    """What was counted of one dataset.

    Attributes:
        split: Names of the splits that use it, such as 'train' or 'val and test'.
        kind: Name of the dataset's class.
        path: Its annotation file or folder.
        images: Number of images. Defaults to None: unknown.
        classes: Names of the classes. Defaults to (): none.
        by_class: Objects, pixels or images of each class. Defaults to (): nothing.
        unit: What ``by_class`` counts. Defaults to 'images'.
        sizes: Sizes of the images. Defaults to None: unknown.
        boxes: Numbers of boxes. Defaults to None.
        labels: Numbers of label maps. Defaults to None.
        tokens: Numbers of token ids. Defaults to None.
        notes: What could not be counted, and why.
        source: The image files. Defaults to None.
        samples: Images to draw with their annotations.
    """

    split: str
    kind: str
    path: str
    images: int | None = None
    classes: Sequence[str] = ()
    by_class: Sequence[int] = ()
    unit: str = 'images'
    sizes: ImageSizes | None = None
    boxes: BoxStatistics | None = None
    labels: LabelStatistics | None = None
    tokens: TokenStatistics | None = None
    notes: list[str] = field(default_factory=list)
    source: ImageSource | None = None
    samples: list[Sample] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """The numbers as JSON."""
        left_out = ('source', 'samples')
        shown = DataReport(**{name: value for name, value in vars(self).items() if name not in left_out})
        return {key: value for key, value in asdict(shown).items() if key not in left_out}


def datasets_of(cfg: Config, splits: Sequence[str]) -> Iterator[tuple[str, Mapping]]:
    """Yield the datasets of some splits without wrappers, each one once.

    Args:
        cfg: The whole config.
        splits: 'train', 'val' or 'test'.

    Yields:
        Names of the splits that use it, joined by 'and', and the config of the dataset. The second
        dataset of a split is called 'train (2)'.
    """
    found: list[tuple[list[str], Mapping]] = []
    for split in splits:
        for loader in LOADERS[split]:
            dataset = (node_at(cfg, loader) or {}).get('dataset') or {}
            for part in local_datasets(dataset):
                if part.get('dataset') is None and not part.get('datasets') and 'type' in part:
                    _add(found, split, part)
    times: Counter[str] = Counter()
    for names, part in found:
        name = ' and '.join(names)
        times[name] += 1
        yield (name if times[name] == 1 else f'{name} ({times[name]})'), part


def _add(found: list[tuple[list[str], Mapping]], split: str, part: Mapping) -> None:
    for names, other in found:
        if _data_of(part) == _data_of(other):
            names += [] if split in names else [split]
            return
    found.append(([split], part))


def _data_of(cfg: Mapping) -> dict:
    """The settings of a dataset without those of its use."""
    return {key: value for key, value in cfg.items() if key not in ('pipeline', 'test_mode', 'filter_cfg', 'work_dir')}


def evenly(count: int, most: int) -> np.ndarray:
    """At most ``most`` indices, evenly spread over ``count``."""
    kept = min(count, most)
    return np.arange(kept) * count // max(kept, 1)


def build_dataset(cfg: Mapping) -> Any:
    """Build a dataset with all its images and without a pipeline."""
    plain = {
        key: value for key, value in cfg.items() if key not in ('filter_cfg', 'indices', 'lazy_init', 'index_file')
    }
    if 'pipeline' in plain:
        plain['pipeline'] = []
    return DATASETS.build(plain)


def place_of(cfg: Mapping) -> str:
    """The annotation file, folder or database of a dataset config."""
    given = next((cfg[key] for key in ('root', 'path', 'shards') if cfg.get(key)), None)
    prefix = cfg.get('data_prefix')
    folder = prefix if isinstance(prefix, str) else next(iter((prefix or {}).values()), '')
    return str(given or Path(cfg.get('data_root') or '') / (cfg.get('ann_file') or folder or ''))
