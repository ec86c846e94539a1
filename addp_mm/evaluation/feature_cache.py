# Copyright (c) addp_mm contributors. Apache-2.0.
"""Features of a set of images, computed part by part and kept in files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor
from tqdm import tqdm

from addp_mm.checkpoints.atomic_write import atomic_path, write_json
from addp_mm.evaluation.feature_extractors import FeatureExtractor
from addp_mm.evaluation.feature_statistics import StatisticsError
from addp_mm.evaluation.image_sets import ImageSet
from addp_mm.safe_files.arrays import read_npz

PART = 2048  # images in a file
_ABOUT = 'about.json'


def default_cache_dir() -> Path:
    """Folder of cached features."""
    return Path.home() / '.cache/addp_mm/features'


def extract(
    images: ImageSet,
    extractor: FeatureExtractor,
    start: int = 0,
    stop: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = 'cpu',
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield features (B, D), and logits (B, K) of a classifier, of a range of images, on the CPU.

    Args:
        images: The images.
        extractor: The network.
        start: First image. Defaults to 0.
        stop: Image after the last. Defaults to None: all.
        batch_size: Images in a batch. Defaults to 64.
        device: Device of the network. Defaults to 'cpu'.

    Raises:
        StatisticsError: Features are NaN or Inf, or the network does not take the images.
    """
    extractor.to(device)
    for batch in images.batches(start, len(images) if stop is None else stop, batch_size):
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)
        try:
            vectors, logits = extractor.with_logits(pixels)
        except (AssertionError, ValueError) as error:  # timm's and our networks of a fixed size
            size = 'x'.join(map(str, batch.shape[1:3]))
            raise StatisticsError(
                f'{extractor.name} does not take the images of {images.path}, {size} px: {error}. Give the size of the '
                'network: img_size, or input_size of the extractor'
            ) from error
        yield finite(vectors.cpu().float(), extractor.name), None if logits is None else logits.cpu().float()


def finite(vectors: Tensor, name: str) -> Tensor:
    """Return features; refuse NaN and Inf."""
    if not vectors.isfinite().all():
        raise StatisticsError(
            f'features of {name} are not finite (NaN or Inf). Check the images and the weights of the network'
        )
    return vectors


class CachedFeatures:
    """Features of a set of images, in parts of 2048 images that are kept in a folder.

    An interrupted computation goes on after its last part. The entry of the folder is named by the
    path of the images, their size and the extractor's fingerprint. If names, sizes or times of the
    image files have changed, it is computed again. With several processes each computes its share,
    if the folder is on a disk of all.

    Args:
        images: The images.
        extractor: The network.
        folder: Folder of the cache; None: nothing is kept.
        batch_size: Images in a batch. Defaults to 64.
        device: Device of the network. Defaults to 'cpu'.
    """

    def __init__(
        self,
        images: ImageSet,
        extractor: FeatureExtractor,
        folder: Path | None,
        batch_size: int = 64,
        device: torch.device | str = 'cpu',
    ) -> None:
        self.images, self.extractor = images, extractor
        self.batch_size, self.device = batch_size, device
        key = f'{images.path.resolve()} {images.img_size} {extractor.fingerprint}'
        name = f'{images.path.resolve().name}-{extractor.name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}'
        self.folder = None if folder is None else Path(folder) / name
        if self.folder is not None and dist.is_main_process():
            self._claim(self.folder / _ABOUT)
        # all processes agree on whether there is a folder
        agreed = [self.folder]
        dist.broadcast_object_list(agreed)
        self.folder = agreed[0]

    def __len__(self) -> int:
        return -(-len(self.images) // PART)

    def prepare(self) -> None:
        """Compute what is missing, each process its share."""
        if self.folder is not None:
            for index in self._progress(range(dist.get_rank(), len(self), dist.get_world_size())):
                self._part(index)
            dist.barrier()
            self.images.warn()

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the features (B, D) of each part, float32."""
        for index in range(len(self)) if self.folder else self._progress(range(len(self))):
            yield self._part(index)

    def _progress(self, parts: range) -> tqdm:
        words = f'features of {len(self.images)} images in {self.images.path}'
        missing = [index for index in parts if not _part_file(self.folder, index).is_file()] if self.folder else parts
        return tqdm(parts, desc=words, unit='part', disable=not (dist.is_main_process() and missing))

    def _part(self, index: int) -> Tensor:
        start = index * PART
        stop = min(start + PART, len(self.images))
        file = None if self.folder is None else _part_file(self.folder, index)
        stored = None if file is None else self._load(file, stop - start)
        if stored is not None:
            return stored
        parts = extract(self.images, self.extractor, start, stop, self.batch_size, self.device)
        vectors = torch.cat([vectors for vectors, _ in parts])
        if file is not None:
            self._save(file, vectors)
        return vectors

    def _claim(self, file: Path) -> None:
        """Describe the entry in a file; remove its parts if they are of other images."""
        about = dict(
            images=str(self.images.path.resolve()),
            count=len(self.images),
            img_size=self.images.img_size,
            files=self.images.fingerprint(),
            extractor=self.extractor.name,
            fingerprint=self.extractor.fingerprint,
        )
        try:
            known = json.loads(file.read_text()) if file.is_file() else about
        except ValueError:
            known = None
        if known != about:
            print_log(f'{self.images.path} has changed: its features are computed again', logger='current')
            for part in file.parent.glob('*.npz'):
                part.unlink(missing_ok=True)
        try:
            write_json(file, about)
        except OSError as error:
            self._give_up(error)

    def _load(self, file: Path, count: int) -> Tensor | None:
        if not file.is_file():
            return None
        try:
            _, arrays = read_npz(file, ['features'])
            vectors = torch.from_numpy(arrays['features'])
            if vectors.dim() == 2 and len(vectors) == count and vectors.dtype == torch.float32:
                return finite(vectors, self.extractor.name)
            reason = f'features {tuple(vectors.shape)} of {count} images'
        except Exception as error:  # zipfile and numpy raise many types of errors for a damaged file
            reason = str(error)
        print_log(f'{file} is damaged ({reason}): computed again', logger='current', level=logging.WARNING)
        return None

    def _save(self, file: Path, vectors: Tensor) -> None:
        try:
            with atomic_path(file) as partial, partial.open('wb') as stream:
                np.savez(stream, features=vectors.numpy())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        print_log(
            f'features cannot be kept in {self.folder}: {error}. Set the folder: cache_dir in a config, --cache-dir of '
            'the tool',
            logger='current',
            level=logging.WARNING,
        )
        self.folder = None


def _part_file(folder: Path, index: int) -> Path:
    return folder / f'features_{index:05}.npz'
