# Copyright (c) addp_mm contributors. Apache-2.0.
"""The label maps that the authors of token labelling published for ImageNet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import safe_load
from addp_mm.datasets.token_labels.label_map import LOGIT, BrokenLabelMapError, LabelMap, LabelMapError

_NUM_LOOKED_AT = 200  # files whose existence is checked before a training


class PublishedMaps:
    """Reads a folder with one ``.pt`` for each image, in the folder of its class.

    A file has a float16 tensor (2, 5, 18, 18): the logits of the best five classes, and their
    numbers. Other numbers of classes and positions are read too. The files are read with
    ``weights_only``, so no code of theirs is run.

    Args:
        folder: The folder with the folders of the classes.
        num_classes: Number of classes. Defaults to 1000, as published.

    Raises:
        LabelMapError: The folder has no such files.
    """

    def __init__(self, folder: str | Path, num_classes: int = 1000) -> None:
        self.folder, self.num_classes = Path(folder), num_classes
        if not any(islice(self.folder.glob('*/*.pt'), 1)):
            raise LabelMapError(f'{folder} has no label maps: expected CLASS/IMAGE.pt in it')

    def path(self, name: str) -> Path:
        """The file of an image; ``name`` is the image's path below the folder of all images."""
        return (self.folder / name).with_suffix('.pt')

    def absent(self, names: Iterable[str]) -> list[str]:
        """Some names that have no map. Of many names, an even selection is looked at."""
        names = sorted(names)
        return [name for name in names[:: max(1, len(names) // _NUM_LOOKED_AT)] if not self.path(name).is_file()]

    def read(self, name: str) -> LabelMap:
        """The label map of an image.

        Raises:
            BrokenLabelMapError: The file does not exist, or is not such a map.
        """
        path = self.path(name)
        if not path.is_file():
            raise BrokenLabelMapError(
                f'{path} does not exist: the image {name} has no label map. Unpack all published maps, or write your '
                'own: addp label-maps CONFIG CHECKPOINT IMAGES --out DIR'
            )
        try:
            stored = safe_load(path, 'cpu')
        except CheckpointError as error:
            raise BrokenLabelMapError(f'{error} Unpack the published label maps again.') from error
        if not torch.is_tensor(stored) or stored.ndim != 4 or len(stored) != 2:
            found = tuple(stored.shape) if torch.is_tensor(stored) else type(stored).__name__
            raise BrokenLabelMapError(f'{path} is not a label map: expected a tensor (2, K, h, w), found {found}')
        return LabelMap(stored[0].float(), stored[1].long(), LOGIT).check(self.num_classes, str(path))
