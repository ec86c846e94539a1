# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the images of a dataset have label maps for token labelling."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from addp_mm.checks.dataset_cfg import quoted, transforms_of
from addp_mm.checks.tolerance import is_tolerated
from addp_mm.config.type_names import type_name
from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.map_folder import TOOL
from addp_mm.datasets.token_labels.open_maps import open_label_maps
from addp_mm.datasets.token_labels.with_token_labels import name_below


def check_token_labels(cfg: Mapping, folder: Path, names: Sequence[str]) -> None:
    """Check the label maps that a dataset's pipeline reads; without such a transform do nothing.

    Of published label maps, which are one file for each image, 200 are looked at.

    Args:
        cfg: Config of the dataset.
        folder: The folder of its images.
        names: The images, relative to ``folder``.

    Raises:
        LabelMapError: There are no label maps, they have another number of classes, or images have
            no map.
    """
    for step in transforms_of(cfg.get('pipeline')):
        if type_name(step.get('type')) != 'WithTokenLabels':
            continue
        maps = open_label_maps(step['label_maps'], step['num_classes'])
        absent = maps.absent(name_below(step['images'], str(folder / name)) for name in names)
        if absent:
            words = (
                f'{step["label_maps"]} has no label map of {len(absent):,} of the images below {step["images"]}: '
                f'{quoted(absent)}. Write the maps of these images into another folder: {TOOL}'
            )
            if not is_tolerated(words, len(absent), len(names)):
                raise LabelMapError(words)
