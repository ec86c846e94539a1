# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read the label maps that ``addp label-maps`` wrote."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from addp_mm.datasets.token_labels.label_map import BrokenLabelMapError, LabelMap, LabelMapError
from addp_mm.datasets.token_labels.map_folder import TOOL, MapFolder, as_bytes
from addp_mm.errors import first_few

_MOST_OPEN = 256  # files; systems allow about a thousand for a process


class StoredMaps:
    """Reads label maps that ``addp label-maps`` wrote.

    The maps stay on disk. A pickle holds only the path.

    Args:
        folder: The folder.

    Attributes:
        num_classes: Number of classes of the classifier.

    Raises:
        LabelMapError: The folder has no complete label maps.

    Example:
        >>> maps = StoredMaps('data/imagenet/label_maps')                    # doctest: +SKIP
        >>> maps.read('n01440764/n01440764_18.JPEG').scores.shape            # doctest: +SKIP
        torch.Size([5, 14, 14])
    """

    def __init__(self, folder: str | Path) -> None:
        self.files = MapFolder(folder)
        self.num_classes = self.files.about['num_classes']
        self._open: dict[int, Any] = {}
        missing = self.files.missing()
        if missing:
            raise LabelMapError(
                f'{folder}: {len(missing)} of {self.files.num_files} files of label maps are missing (number '
                f'{first_few(missing)}). Run the tool with the same arguments to write them: {TOOL}'
            )

    def __len__(self) -> int:
        return len(self.files.names)

    def __reduce__(self) -> tuple:
        return type(self), (self.files.folder,)

    def absent(self, names: Iterable[str]) -> list[str]:
        """The names that have no map, sorted."""
        own = set(self.files.names)
        return [name for name in sorted(names) if as_bytes(name) not in own]

    def read(self, name: str) -> LabelMap:
        """The label map of an image.

        Args:
            name: Path of the image below the folder that was given to the tool.

        Raises:
            BrokenLabelMapError: The image has no map, or the map is damaged.
        """
        row = self._row(name)
        number, offset = divmod(row, self.files.about['images_per_file'])
        if number not in self._open:
            if len(self._open) == _MOST_OPEN:
                self._open.clear()
            self._open[number] = self.files.open(number)
        path = self.files.path(number)
        label_map = self.files.read(self._open[number], offset, f'{path}, image {name}')
        if label_map is None:
            raise BrokenLabelMapError(
                f'{path}: {name} could not be read when the label maps were written. Repair the image, delete '
                f'this file and run the tool again: {TOOL}'
            )
        return label_map

    def _row(self, name: str) -> int:
        names, wanted = self.files.names, as_bytes(name)
        row = bisect_left(names, wanted)
        if row == len(names) or names[row] != wanted:
            raise BrokenLabelMapError(
                f'{self.files.folder} has no label map of {name}; it has those of {len(names):,} images, such as '
                f'{names[0].decode(errors="replace")}. Write the maps of these images: {TOOL}'
            )
        return row
