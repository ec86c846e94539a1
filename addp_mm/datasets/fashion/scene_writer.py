# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write FashionScenes to disk in the formats that the standard dataset classes read."""

import json
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.datasets.fashion.fashion_mnist import CLASSES, load_garments
from addp_mm.datasets.fashion.fashion_scenes import SCENES_VERSION, SPLITS, Scene, SceneGenerator
from addp_mm.processes import worker_context

MARKER = 'fashion_scenes.json'
_BATCH = 64  # images that a process writes before it reports
_QUEUED = 32 * _BATCH
_worker_job: '_Job'


@dataclass(frozen=True)
class SceneSetSpec:
    """Contents of a set. Equal specs with equal garments give byte-identical files.

    Args:
        image_size: Side of the square images in pixels. Defaults to 64.
        train: Number of training scenes, with COCO annotations and label maps. Defaults to 20000.
        val: Number of validation scenes. Defaults to 1000.
        objects_train: Number of training images of one garment, in a folder for each class.
            Defaults to 6000.
        objects_val: Number of validation images of one garment. Defaults to 1000.
        seed: Any non-negative integer. Defaults to 0.

    Raises:
        ValueError: A value is outside its range.
    """

    image_size: int = 64
    train: int = 20000
    val: int = 1000
    objects_train: int = 6000
    objects_val: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('train', 'val', 'objects_train', 'objects_val'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must not be negative, got {getattr(self, name)}')
            # Readers of folders number the classes that they find. A missing class would shift the
            # others.
            if name.startswith('objects') and 0 < getattr(self, name) < len(CLASSES):
                raise ValueError(
                    f'{name} must be 0 or at least {len(CLASSES)}, one for each class, got {getattr(self, name)}'
                )


def write_fashion_scenes(out: Path, spec: SceneSetSpec, source: str | None = None, num_workers: int = 1) -> bool:
    """Write a complete set, or nothing, with a progress bar in a terminal.

    Files are written to a temporary folder next to ``out``, which is renamed at the end. After an
    interruption there is no set that looks complete.

    Args:
        out: Folder to create. It may exist if it is empty or contains the same set.
        spec: Contents of the set.
        source: Folder of Fashion-MNIST's IDX files. Defaults to None: the embedded subset.
        num_workers: Number of processes. The files do not depend on it. Defaults to 1.

    Returns:
        False if the same set existed already and nothing was done.

    Raises:
        FileExistsError: ``out`` contains other files.
        ValueError: An option is outside its range.
    """
    if num_workers < 1:
        raise ValueError(f'num_workers must be at least 1, got {num_workers}')
    generators = {s: SceneGenerator(load_garments(s, source), spec.image_size, s, spec.seed) for s in SPLITS}
    manifest = _manifest(spec, generators)
    out = Path(out).resolve()
    if _same_set(out, manifest):
        return False
    with _moved_into_place(out) as folder, _writer(num_workers, _Job(folder, generators)) as write:
        for split in SPLITS:
            scenes = write('scenes', split, getattr(spec, split))
            annotations = folder / f'annotations/instances_{split}.json'
            annotations.parent.mkdir(exist_ok=True)
            annotations.write_text(json.dumps(_coco(scenes, spec.image_size, split)))
            write('objects', split, getattr(spec, f'objects_{split}'))
        write_json(folder / MARKER, manifest)
    return True


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO run lengths of a bool mask (H, W), column by column, zeros first."""
    flat = mask.ravel(order='F')
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return dict(size=list(mask.shape), counts=[0] + counts if flat[0] else counts)


def scene_instances(scene: Scene) -> list[dict[str, Any]]:
    """COCO annotations of a scene, without ids.

    Each has a category (1 to 10), a box (x, y, w, h) and an area in pixels, and run lengths.
    """
    instances = []
    for label, mask in zip(scene.labels, scene.masks(), strict=False):
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(xs[0]), int(ys[0])
        instances.append(
            dict(
                category_id=int(label) + 1,
                bbox=[x, y, int(xs[-1]) + 1 - x, int(ys[-1]) + 1 - y],
                area=int(mask.sum()),
                iscrowd=0,
                segmentation=encode_rle(mask),
            )
        )
    return instances


def _manifest(spec: SceneSetSpec, generators: dict[str, SceneGenerator]) -> dict[str, Any]:
    garments = {split: generator.garments for split, generator in generators.items()}
    return dict(
        name='FashionScenes',
        version=SCENES_VERSION,
        **asdict(spec),
        classes=list(CLASSES),
        garments={split: dict(count=len(one), sha256=one.fingerprint()) for split, one in garments.items()},
    )


def _same_set(out: Path, manifest: dict[str, Any]) -> bool:
    """Whether ``out`` contains this set already; an error if it contains other files."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        present = json.loads((out / MARKER).read_text())
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f'{out} contains files that are not FashionScenes ({error}). Nothing was written; give another folder.'
        ) from error
    keys = [key for key in manifest if present.get(key) != manifest[key]]
    if keys:
        differs = ', '.join(f'{key} {present.get(key)!r} instead of {manifest[key]!r}' for key in keys)
        raise FileExistsError(
            f'{out} contains another set ({differs}). Nothing was written; delete it or give another folder.'
        )
    return True


@contextmanager
def _moved_into_place(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.parent / f'.{out.name}.partial-{secrets.token_hex(4)}'
    folder.mkdir()
    try:
        yield folder
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Job:
    """Arguments of a process that writes images."""

    folder: Path
    generators: dict[str, SceneGenerator]

    def write(self, kind: str, split: str, index: int) -> list[dict[str, Any]]:
        """Write an image of a kind, 'scenes' or 'objects'; return its COCO instances."""
        file = f'{index:06d}.png'
        if kind == 'objects':
            scene = self.generators[split].object_image(index)
            _write_png(self.folder / 'objects' / split / CLASSES[int(scene.labels[0])] / file, scene.image)
            return []
        scene = self.generators[split].scene(index)
        _write_png(self.folder / 'scenes' / split / file, scene.image)
        _write_png(self.folder / 'labels' / split / file, scene.label_map())
        return scene_instances(scene)


@contextmanager
def _writer(num_workers: int, job: _Job) -> Iterator[Callable[[str, str, int], list]]:
    """A function that calls ``job.write`` for the images 0 to ``total`` - 1 of a kind and split.

    It works in this process or in others. Its results are in the order of the images.
    """

    def collect(run: Callable[..., Iterable], write: Callable, kind: str, split: str, total: int) -> list:
        return list(tqdm(run(partial(write, kind, split), range(total)), f'{split} {kind}', total, disable=None))

    if num_workers == 1:
        cv2.setNumThreads(1)
        yield partial(collect, map, job.write)
        return
    # Unlike multiprocessing.Pool, an executor detects a killed worker and does not hang.
    executor = ProcessPoolExecutor(num_workers, worker_context(), _init_worker, (job,))

    def run(write: Callable, indices: range) -> Iterator:
        # A long queue can deadlock when a worker is killed (cpython issue 105829).
        for start in range(0, len(indices), _QUEUED):
            yield from executor.map(write, indices[start : start + _QUEUED], chunksize=_BATCH)

    try:
        yield partial(collect, run, _write_in_worker)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _init_worker(job: _Job) -> None:
    """Keep the garments in the process instead of sending them with every batch."""
    global _worker_job
    _worker_job = job
    cv2.setNumThreads(1)
    # The parent handles interruptions: it stops the workers and removes their files.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write_in_worker(kind: str, split: str, index: int) -> list[dict[str, Any]]:
    return _worker_job.write(kind, split, index)


def _coco(scenes: list[list[dict[str, Any]]], size: int, split: str) -> dict[str, Any]:
    images = [dict(id=i + 1, file_name=f'{i:06d}.png', width=size, height=size) for i in range(len(scenes))]
    flat = [dict(instance, image_id=i + 1) for i, instances in enumerate(scenes) for instance in instances]
    return dict(
        info=dict(description=f'FashionScenes, {split}', version=str(SCENES_VERSION)),
        images=images,
        annotations=[dict(instance, id=k + 1) for k, instance in enumerate(flat)],
        categories=[dict(id=k + 1, name=name, supercategory='garment') for k, name in enumerate(CLASSES)],
    )


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, 'PNG')
