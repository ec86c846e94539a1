# Copyright (c) addp_mm contributors. Apache-2.0.
"""A folder of label maps: many maps in a file, so that a million images need a thousand files.

- ``label_maps.json``: the settings that determine the maps.
- ``images.names``: the names of the images, sorted, as
  :mod:`~addp_mm.datasets.listed.packed_names` writes them.
- ``maps-I-of-N.safetensors``: ``scores`` float16 and ``classes`` int16, both (n, K, h, w), for n
  images after one another in the list. An image that could not be read has the class -1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from addp_mm.checkpoints.atomic_write import remove_partials, write_json, write_safetensors
from addp_mm.datasets.listed.packed_names import PackedNames, names_fingerprint, write_names
from addp_mm.datasets.token_labels.label_map import PROBABILITY, BrokenLabelMapError, LabelMap, LabelMapError
from addp_mm.datasets.tokens.token_store import differences
from addp_mm.errors import first_few

ABOUT, NAMES, FORMAT = 'label_maps.json', 'images.names', 1
TOOL = 'addp label-maps CONFIG CHECKPOINT IMAGES --out DIR'
MOST_CLASSES = 2**15  # of int16
_KEYS = ('num_classes', 'top_k', 'map_size', 'images_per_file', 'images', 'scores')


class MapFolder:
    """The files of a folder of label maps, for the writer and the reader.

    Args:
        folder: The folder, with ``label_maps.json`` and ``images.names``.

    Attributes:
        about: The content of ``label_maps.json``.
        names: The names of the images, sorted.

    Raises:
        LabelMapError: A file is missing or damaged, or of another format.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.about = read_about(self.folder)
        try:
            self.names = PackedNames(self.folder / NAMES)
        except ValueError as error:
            raise LabelMapError(f'{self.folder / NAMES} is missing or damaged. Write the maps again: {TOOL}') from error
        images = dict(count=len(self.names), fingerprint=self.names.fingerprint)
        if images != self.about['images']:
            raise LabelMapError(
                f'{self.folder / NAMES} is not the list of images of {self.folder / ABOUT}. '
                f'Write the maps again into another folder: {TOOL}'
            )

    @property
    def num_files(self) -> int:
        """Number of files with maps in the complete folder."""
        return -(-len(self.names) // self.about['images_per_file'])

    def path(self, number: int) -> Path:
        """The path of a file with maps."""
        return self.folder / f'maps-{number:05d}-of-{self.num_files:05d}.safetensors'

    def rows(self, number: int) -> range:
        """The images of a file, as numbers in the list."""
        size = self.about['images_per_file']
        return range(number * size, min((number + 1) * size, len(self.names)))

    def missing(self) -> list[int]:
        """Numbers of the files that are not written yet."""
        return [number for number in range(self.num_files) if not self.path(number).is_file()]

    def write(self, number: int, scores: Tensor, classes: Tensor) -> None:
        """Write a file, atomically.

        Args:
            number: Number of the file.
            scores: (n, K, h, w).
            classes: (n, K, h, w), integers.
        """
        remove_partials(self.folder, self.path(number).name)
        tensors = dict(scores=scores.half().contiguous(), classes=classes.to(torch.int16).contiguous())
        write_safetensors(self.path(number), tensors, dict(settings=self._digest()))

    def open(self, number: int) -> Any:
        """Open a file; tensors are read when they are asked for.

        Raises:
            LabelMapError: The file is missing, damaged or of another folder.
        """
        path = self.path(number)
        again = f'Run the tool with the same arguments to write it: {TOOL}'
        if not path.is_file():
            raise BrokenLabelMapError(f'{path} is missing: the label maps are not complete. {again}')
        try:
            file = safe_open(path, framework='pt')
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in ('scores', 'classes')}
            settings = (file.metadata() or {}).get('settings')
        except (SafetensorError, OSError) as error:
            raise BrokenLabelMapError(f'{path} is damaged ({error}). Delete it. {again}') from error
        shape = (len(self.rows(number)), self.about['top_k'], *self.about['map_size'])
        if set(shapes.values()) != {shape} or settings != self._digest():
            raise LabelMapError(f'{path} does not belong to {self.folder / ABOUT}. Delete it. {again}')
        return file

    def read(self, file: Any, offset: int, source: str) -> LabelMap | None:
        """Read a map of an open file.

        Args:
            file: From :meth:`open`.
            offset: Position of the image in the file.
            source: What is read, for errors.

        Returns:
            The map; None of an image that could not be read when the maps were written.

        Raises:
            LabelMapError: The map is damaged.
        """
        scores, classes = (file.get_slice(key)[offset] for key in ('scores', 'classes'))
        if int(classes.min()) < 0:
            return None
        label_map = LabelMap(scores.float(), classes.long(), self.about['scores'])
        return label_map.check(self.about['num_classes'], source)

    def _digest(self) -> str:
        settings = {key: value for key, value in self.about.items() if key != 'notes'}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def create_folder(folder: str | Path, names: Iterable[str], settings: Mapping, notes: Mapping) -> MapFolder:
    """Start a folder of label maps, or continue one with the same settings.

    Args:
        folder: The folder; it is created if it is missing.
        names: Names of the images.
        settings: As JSON: ``num_classes``, ``top_k``, ``map_size``, ``images_per_file``, and others
            that determine the maps.
        notes: More values for ``label_maps.json``, which are not compared.

    Raises:
        LabelMapError: The folder has maps of other settings or images, or other files.
    """
    folder = Path(folder)
    ordered = sorted(names, key=as_bytes)
    images = dict(count=len(ordered), fingerprint=names_fingerprint(ordered))
    about = dict(format=FORMAT, scores=PROBABILITY, images=images, **settings)
    if (folder / ABOUT).is_file():
        other = list(differences(read_about(folder), about))
        if other:
            raise LabelMapError(
                f'{folder} has label maps of other images or settings: {first_few(other, separator="; ")}. Give the '
                'same arguments to resume, or give another --out'
            )
    elif folder.is_dir() and any(not path.name.startswith('.') for path in folder.iterdir()):
        raise LabelMapError(f'{folder} is not empty and has no {ABOUT}: give another --out')
    if not (folder / ABOUT).is_file():
        write_json(folder / ABOUT, dict(about, notes=dict(notes)))
    if not (folder / NAMES).is_file():
        write_names(folder / NAMES, map(as_bytes, ordered), {})
    return MapFolder(folder)


def read_about(folder: Path) -> dict:
    """Read ``label_maps.json``.

    Raises:
        LabelMapError: It does not exist, is damaged or of another format.
    """
    path = folder / ABOUT
    if not path.is_file():
        raise LabelMapError(f'{folder} has no label maps ({ABOUT}). Write them: {TOOL}')
    try:
        about = json.loads(path.read_text())
        found, missing = about['format'], [key for key in _KEYS if key not in about]
    except (ValueError, KeyError, TypeError) as error:
        raise LabelMapError(f'{path} is damaged ({error}). Write the maps again into another folder: {TOOL}') from error
    if found != FORMAT or missing:
        reason = f'has no {first_few(missing)}' if missing else f'has format {found}, and this version reads {FORMAT}'
        raise LabelMapError(f'{path} {reason}. Write the maps again into another folder: {TOOL}')
    return about


def as_bytes(name: str) -> bytes:
    """A name as :class:`MapFolder` holds it, also one whose file name is not UTF-8."""
    return name.encode('utf-8', 'surrogateescape')
