# Copyright (c) addp_mm contributors. Apache-2.0.
"""The class folders of training, validation and test number the same classes."""

import re

import pytest

from addp_mm.checks.class_folders import check_same_classes
from addp_mm.datasets import DatasetError


def folders(root, names, **options):
    for name in names:
        (root / name).mkdir(parents=True)
    return dict(dict(type='CustomDataset', data_prefix=str(root)), **options)


def test_class_folders_that_differ_are_named_with_their_classes(tmp_path):
    train = folders(tmp_path / 'train', ['bag', 'coat', 'dress'])
    check_same_classes(dict(train_dataloader=train))
    check_same_classes(dict(train_dataloader=train, val_dataloader=folders(tmp_path / 'val', ['dress', 'bag', 'coat'])))
    val = folders(tmp_path / 'other', ['bag', 'dress', 'shirt'])
    words = [
        tmp_path / 'train',
        'train_dataloader',
        tmp_path / 'other',
        'val_dataloader',
        "first: 'coat'",
        "second: 'shirt'",
        'metainfo=dict(classes=',
    ]
    with pytest.raises(DatasetError, match='.*'.join(re.escape(str(word)) for word in words)):
        check_same_classes(dict(train_dataloader=train, val_dataloader=dict(type='RepeatDataset', dataset=val)))


def test_one_dataset_with_classes_does_not_number_the_other(tmp_path):
    classes = dict(metainfo=dict(classes=['a', 'b', 'c']))
    train = folders(tmp_path / 'train', 'abc', **classes)
    val = folders(tmp_path / 'val', 'ab')
    with pytest.raises(DatasetError, match="only in the first: 'c'; only in the second: none"):
        check_same_classes(dict(train=train, val=val))
    check_same_classes(dict(train=train, val=dict(val, **classes)))


@pytest.mark.parametrize(
    'options',
    [
        dict(with_label=False),
        dict(ann_file='list.txt'),
        dict(data_root='s3://bucket'),
        dict(data_prefix='away'),
        dict(type='ADE20KDataset'),
    ],
)
def test_datasets_without_class_folders_are_not_compared(tmp_path, options):
    train = folders(tmp_path / 'train', 'abc')
    check_same_classes(dict(train=train, val=folders(tmp_path / 'val', 'ab', **options)))
