# Copyright (c) addp_mm contributors. Apache-2.0.
"""Count what a dataset config reads: one function for each kind of annotations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from tqdm import tqdm

from addp_mm.analysis.annotated_images import Colour, Sample, colours
from addp_mm.analysis.box_statistics import BoxTable, box_statistics
from addp_mm.analysis.coco_file import read_coco_file
from addp_mm.analysis.data_report import DataReport, build_dataset, evenly, place_of
from addp_mm.analysis.image_sizes import image_sizes
from addp_mm.analysis.image_sources import FileSource, ImageSource, ListedSource
from addp_mm.analysis.label_map_statistics import count_labels, label_statistics, read_label_map, seen_labels
from addp_mm.analysis.parallel import in_threads
from addp_mm.analysis.token_statistics import token_statistics
from addp_mm.checks.dataset_cfg import classes_of, dataset_class, join, prefix_of
from addp_mm.checks.type_lookup import is_kind
from addp_mm.config.type_names import type_name
from addp_mm.datasets.listed.listed_images import ListedImages
from addp_mm.datasets.tokens.token_ids import TokenIds

_MEASURED = 20_000  # images whose size is read from their file
_NAN = float('nan')


class Counting:
    """How to count.

    Args:
        num_samples: Number of images to draw. Defaults to 0.
        seed: Which images these are. Defaults to 0.
        num_workers: Number of threads. Defaults to 1.
    """

    def __init__(self, num_samples: int = 0, seed: int = 0, num_workers: int = 1) -> None:
        self.num_samples, self.seed, self.num_workers = num_samples, seed, num_workers

    def __call__(self, split: str, cfg: Mapping) -> DataReport:
        """Count what a dataset config reads.

        Args:
            split: Names of the splits that use it.
            cfg: Config of the dataset, without wrappers.
        """
        report = DataReport(split, type_name(cfg['type']), place_of(cfg))
        if is_kind(cfg['type'], DATASETS, 'mmdet.datasets', 'CocoDataset', keeping='load_data_list'):
            self._coco(report, cfg)
            return report
        dataset = build_dataset(cfg)
        report.images = len(dataset)
        if isinstance(dataset, TokenIds):
            report.tokens = token_statistics(dataset.data_root)
        elif isinstance(dataset, ListedImages):
            self._images(report, ListedSource(dataset))
        elif not hasattr(dataset, 'get_data_info') or not len(dataset):
            report.notes.append(f'only the images of {report.kind} are counted: it has no get_data_info')
        else:
            self._by_info(report, dataset)
        return report

    def _by_info(self, report: DataReport, dataset: Any) -> None:
        """Count by what ``get_data_info`` returns."""
        first = dataset.get_data_info(0)
        keys = [key for key in ('img_path', 'seg_map_path', 'gt_label', 'instances') if key in first]
        numbers = tqdm(range(len(dataset)), desc='Listing', unit='', unit_scale=True, disable=None, leave=False)
        infos = [[info.get(key) for key in keys] for info in map(dataset.get_data_info, numbers)]
        columns = dict(zip(keys, map(list, zip(*infos, strict=True)), strict=True))
        meta = getattr(dataset, 'metainfo', None) or {}
        report.classes = list(meta.get('classes') or ())
        palette = _palette(meta.get('palette'), len(report.classes))
        source = FileSource([str(path) for path in columns['img_path']]) if 'img_path' in columns else None
        if 'instances' in columns:  # before label maps: those of a panoptic dataset are no class indices
            self._instances(report, columns['instances'], source, palette)
        elif 'seg_map_path' in columns:
            self._label_maps(report, dataset, columns['seg_map_path'], source, palette)
        elif 'gt_label' in columns:
            self._labels(report, columns['gt_label'], source, palette)
        elif source is not None:
            self._images(report, source)
        else:
            report.notes.append(f'only the images of {report.kind} are counted: they have no img_path')

    def _coco(self, report: DataReport, cfg: Mapping) -> None:
        classes, prefix = classes_of(cfg, 'mmdet'), prefix_of(cfg)
        found = read_coco_file(join(cfg, cfg.get('ann_file', '')), classes, self.num_samples, self.seed)
        folder = join(cfg, prefix.get('img') or prefix.get('img_path') or '')
        report.images = len(found.images)
        report.source = FileSource([os.path.join(folder, str(image.get('file_name'))) for image in found.images])
        self._boxes(report, found.table)
        meta = cfg.get('metainfo') or getattr(dataset_class(cfg, 'mmdet'), 'METAINFO', {})
        palette = _palette(meta.get('palette'), len(report.classes))
        labels = {name: index for index, name in enumerate(report.classes)}
        names = found.category_names
        for image, records in found.samples:
            objects = [
                (labels.get(names.get(one['category_id'], ''), -1), one['bbox'], one.get('segmentation'))
                for one in records
                if len(one.get('bbox') or ()) == 4
            ]
            path = os.path.join(folder, str(image.get('file_name')))
            read = partial(Path.read_bytes, Path(path))
            report.samples.append(Sample(path, read, report.classes, palette, objects))

    def _boxes(self, report: DataReport, table: BoxTable) -> None:
        report.boxes = box_statistics(table)
        report.sizes = image_sizes(table.sizes)
        report.classes, report.by_class, report.unit = table.classes, report.boxes.by_class, 'objects'

    def _instances(
        self, report: DataReport, instances: Sequence[list], source: FileSource | None, palette: Sequence[Colour]
    ) -> None:
        """Boxes of a dataset of mmdet that is not in COCO's format."""
        rows = [
            (image, one.get('bbox_label', -1), *one.get('bbox', [_NAN] * 4), bool(one.get('ignore_flag')))
            for image, some in enumerate(instances)
            for one in some
        ]
        numbers = np.array(rows, np.float64).reshape(-1, 7)
        corners = numbers[:, 2:6]
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        sizes = self._sizes(source) if source else np.full((len(instances), 2), _NAN)
        table = BoxTable(
            report.classes,
            sizes if len(sizes) == len(instances) else np.full((len(instances), 2), _NAN),
            numbers[:, 0].astype(int),
            numbers[:, 1].astype(int),
            xywh,
            xywh[:, 2] * xywh[:, 3],
            numbers[:, 6].astype(bool),
        )
        self._boxes(report, table)
        report.sizes, report.source = image_sizes(sizes), source

        def objects_of(index: int) -> dict:
            own = numbers[:, 0] == index
            boxes = zip(numbers[own, 1].tolist(), xywh[own].tolist(), strict=True)
            return dict(objects=[(int(label), box, None) for label, box in boxes])

        self._add_samples(report, palette, objects_of)

    def _label_maps(
        self,
        report: DataReport,
        dataset: Any,
        paths: Sequence[str],
        source: FileSource | None,
        palette: Sequence[Colour],
    ) -> None:
        counts = count_labels(paths, self.num_workers)
        ignore_index = getattr(dataset, 'ignore_index', 255)
        labels = seen_labels(getattr(dataset, 'label_map', None), bool(getattr(dataset, 'reduce_zero_label', False)))
        report.labels = label_statistics(counts, labels, report.classes, ignore_index)
        report.by_class, report.unit = report.labels.by_class, 'pixels'
        report.sizes, report.source = image_sizes(counts.sizes), source

        def labels_of(index: int) -> dict:
            return dict(labels=partial(_seen, paths[index], labels), ignore_index=ignore_index)

        self._add_samples(report, palette, labels_of)

    def _labels(
        self, report: DataReport, labels: Sequence[Any], source: FileSource | None, palette: Sequence[Colour]
    ) -> None:
        """Images of classes; an image may have several."""
        flat = np.array([one for label in labels for one in np.ravel(label)], np.int64)
        report.by_class = np.bincount(flat, minlength=len(report.classes)).tolist()
        report.classes = [*report.classes, *map(str, range(len(report.classes), len(report.by_class)))]
        palette = palette if len(palette) >= len(report.classes) else colours(len(report.classes))
        if source is not None:
            self._images(report, source, palette, lambda index: dict(labels_of_image=np.ravel(labels[index]).tolist()))

    def _images(
        self,
        report: DataReport,
        source: ImageSource,
        palette: Sequence[Colour] = (),
        annotations: Callable[[int], dict] = lambda _: {},
    ) -> None:
        report.source, report.sizes = source, image_sizes(self._sizes(source))
        measured = min(len(source), _MEASURED)
        if measured < len(source):
            report.notes.append(f'image sizes are those of {measured:,} images, evenly spread over {len(source):,}')
        self._add_samples(report, palette, annotations)

    def _sizes(self, source: ImageSource) -> np.ndarray:
        """Width and height of the images, (N, 2)."""
        indices = evenly(len(source), _MEASURED).tolist()
        found = in_threads(source.size, indices, self.num_workers, 'Image sizes')
        return np.array([(_NAN, _NAN) if size is None else size[::-1] for size in found]).reshape(-1, 2)

    def _add_samples(self, report: DataReport, palette: Sequence[Colour], annotations: Callable[[int], dict]) -> None:
        """Choose the images to draw; ``annotations`` returns more arguments of :class:`Sample`."""
        source = report.source
        if source is None:
            return
        count = len(source)
        chosen = np.random.default_rng(self.seed).choice(count, min(count, self.num_samples), replace=False)
        for index in sorted(chosen.tolist()):
            read = partial(source.read, index)
            report.samples.append(Sample(source.name(index), read, report.classes, palette, **annotations(index)))


def _seen(path: str, labels: np.ndarray) -> np.ndarray:
    return labels[read_label_map(path)]


def _palette(given: Any, count: int) -> list[Colour]:
    """The colours of a dataset, or others if it has none for each class."""
    if isinstance(given, list | tuple) and len(given) >= count and all(len(one) == 3 for one in given):
        return [(int(red), int(green), int(blue)) for red, green, blue in given]
    return colours(count)
