# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classes that are stored with the ids: their sources, the folder, the dataset."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate

from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.tokens.class_labels import read_class_labels
from addp_mm.datasets.tokens.token_ids import TokenIds
from addp_mm.datasets.tokens.token_store import TokenStoreError, TokenWriter

CLASSES = ['coat', 'shirt']


class Images:
    """A list of images like those of ``open_images``."""

    def __init__(self, names, labels=None, classes=None):
        self.names, self.labels = names, labels
        self.metainfo = {} if classes is None else dict(classes=classes)

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]

    def get_data_info(self, index):
        info = dict(img_path=self.names[index])
        return info if self.labels is None else dict(info, gt_label=self.labels[index])


IMAGES = Images(['b/0.png', 'b/more/1.png', 'a/2.png', 'c d/3.png'])


def test_classes_are_the_folders_in_alphabetical_order():
    found = read_class_labels(IMAGES, 'folders')
    assert found.classes == ('a', 'b', 'c d')
    assert found.labels.tolist() == [1, 1, 0, 2]
    with pytest.raises(DatasetError, match=r'1 of 2 images are in no class folder below the root \(0.png\)'):
        read_class_labels(Images(['0.png', 'a/1.png']), 'folders')


def test_classes_of_a_dataset():
    found = read_class_labels(Images(list('xyz'), [1, np.array([0]), np.int64(1)], CLASSES), 'dataset')
    assert (found.labels.tolist(), found.classes) == ([1, 0, 1], ('coat', 'shirt'))
    assert read_class_labels(Images(list('xy'), [2, 0]), 'dataset').classes == ('0', '1', '2')
    with pytest.raises(DatasetError, match=r'2 of 2 images have no gt_label .* \(x, y\)'):
        read_class_labels(Images(list('xy')), 'dataset')
    for wrong in (1.5, -2, 10**9, float('nan'), 'shirt'):
        with pytest.raises(DatasetError, match=f'gt_label must be a whole number .* got y: {wrong!r}. Correct'):
            read_class_labels(Images(list('xy'), [2, wrong]), 'dataset')
    with pytest.raises(DatasetError, match='label 2, but the dataset names 2 classes'):
        read_class_labels(Images(list('xy'), [2, 0], CLASSES), 'dataset')


def test_classes_of_a_text_file(tmp_path):
    path = tmp_path / 'labels.txt'
    path.write_text('c d/3.png 4\nb/0.png 0\n\nb/more/1.png -1\na/2.png 1\nanother.png 9\n')
    found = read_class_labels(IMAGES, str(path))
    assert found.labels.tolist() == [0, -1, 1, 4]
    assert found.classes == ('0', '1', '2', '3', '4')
    path.write_text('b/0.png 0\na/2.png 1\n')
    with pytest.raises(DatasetError, match=r'has no label of 2 of 4 images \(b/more/1.png, c d/3.png\)'):
        read_class_labels(IMAGES, str(path))
    path.write_bytes(b'\xef\xbb\xbfb/0.png\t0\r\nb/more/1.png  -1\r\na/2.png 1\r\n c d/3.png\t4\r\n')
    assert read_class_labels(IMAGES, str(path)).labels.tolist() == [0, -1, 1, 4]
    for line in ('b/0.png', 'b/0.png shirt', 'b/0.png -2', '3', 'b/0.png ²', 'b/0.png 1000000', f'b/0.png {10**30}'):
        path.write_text(f'a/2.png 1\n{line}\n')
        with pytest.raises(DatasetError, match='line 2: .* is not of the form "image label"'):
            read_class_labels(IMAGES, str(path))
    path.write_text('a/2.png 1\nb/0.png 1\na/2.png 0\n')
    with pytest.raises(DatasetError, match='line 3: a/2.png has the label 0 here and 1 before'):
        read_class_labels(IMAGES, str(path))
    path.write_bytes('b/0.png é 0'.encode('latin-1'))
    with pytest.raises(DatasetError, match=r'labels.txt: cannot be read \(it is not in UTF-8\)'):
        read_class_labels(IMAGES, str(path))
    with pytest.raises(DatasetError, match='cannot be read .*Give .folders., .dataset. or a text file'):
        read_class_labels(IMAGES, str(tmp_path / 'lost.txt'))


def settings(index=0, of=1, labelled=True, fingerprint='f'):
    found = dict(tokenizer={}, images=dict(count=5), views={}, shard=dict(index=index, of=of))
    return dict(found, labels=dict(classes=CLASSES, fingerprint=fingerprint)) if labelled else found


def write(folder, labels=(0, 1, 1, 0, 1), first=0, broken=(), **options):
    """Ids that are the number of their image."""
    rows = np.arange(first, first + len(labels))[:, None, None] * np.ones((1, 2, 4), int)
    array = np.array(labels) if options.get('labelled', True) else None
    writer = TokenWriter(folder, settings(**options), rows.shape, 'uint16', array)
    if not writer.complete:
        writer.write(rows, {k: (f'{k}.png', 'cut off') for k in broken})
        writer.save()
    return folder


def items(data):
    return [
        (int(item['inputs'][0]), item['data_samples'].gt_label.tolist())
        for item in map(data.__getitem__, range(len(data)))
    ]


def test_an_item_has_the_class_of_its_image(tmp_path):
    data = TokenIds(write(tmp_path / 'ids', broken=[1]), labels=dict(classes=CLASSES))
    assert items(data) == [(0, [0]), (2, [1]), (3, [0]), (4, [1])]
    assert data.metainfo['classes'] == CLASSES
    assert items(pickle.loads(pickle.dumps(data))) == items(data)
    batch = default_collate([data[0], data[1]])
    assert torch.stack([sample.gt_label for sample in batch['data_samples']]).tolist() == [[0], [1]]


def test_classes_follow_their_images_through_shards(tmp_path):
    for index, (first, labels, broken) in enumerate([(0, (0, 1), [0]), (2, (1, 0, 1), [3])]):
        write(tmp_path / f'shard-000{index}-of-0002', labels, first, broken, index=index, of=2)
    assert items(TokenIds(tmp_path)) == [(1, [1]), (2, [1]), (4, [1])]
    write(tmp_path / 'other/shard-0000-of-0002', (0, 1), index=0, of=2)
    write(tmp_path / 'other/shard-0001-of-0002', (1, 0, 1), 2, index=1, of=2, labelled=False)
    with pytest.raises(TokenStoreError, match='do not belong together: labels is'):
        TokenIds(tmp_path / 'other')


def test_ids_without_labels_stay_readable_and_get_labels_later(tmp_path):
    folder = write(tmp_path / 'ids', labelled=False)
    before = (folder / 'ids.npy').read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ['ids.npy', 'tokens.json']
    assert set(TokenIds(folder)[0]) == {'inputs'}
    assert 'classes' not in TokenIds(folder).metainfo
    with pytest.raises(TokenStoreError, match='has ids without labels. Add them: .* --labels'):
        TokenIds(folder, labels=dict(classes=CLASSES))
    write(folder)
    assert [label for _, label in items(TokenIds(folder))] == [[0], [1], [1], [0], [1]]
    assert (folder / 'ids.npy').read_bytes() == before
    # the same command without labels keeps them
    write(folder, labelled=False)
    assert json.loads((folder / 'tokens.json').read_text())['labels']['classes'] == CLASSES
    assert len(items(TokenIds(folder))) == 5


def test_an_interrupted_writer_keeps_the_labels(tmp_path):
    labels = np.array([0, 1, 1])
    writer = TokenWriter(tmp_path, settings(), (3, 2, 4), 'uint16', labels)
    writer.write(np.zeros((1, 2, 4)), {})
    writer.save()
    (tmp_path / 'labels.npy').unlink()  # killed before they were written
    again = TokenWriter(tmp_path, settings(), (3, 2, 4), 'uint16', labels)
    again.write(np.zeros((2, 2, 4)), {})
    again.save()
    assert [label for _, label in items(TokenIds(tmp_path))] == [[0], [1], [1]]
    with pytest.raises(TokenStoreError, match='labels.fingerprint is .f., but .g. is needed'):
        TokenWriter(tmp_path, settings(fingerprint='g'), (3, 2, 4), 'uint16', labels)


@pytest.mark.parametrize(
    'damage, words',
    [
        (lambda path: path.unlink(), r'labels\.npy: cannot be read'),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), r'labels\.npy: cannot be read'),
        (lambda path: np.save(path, np.zeros(4, np.int32)), r'labels\.npy has int32 of shape \(4,\), not 5 labels'),
        (lambda path: np.save(path, np.zeros(5)), r'labels\.npy has float64'),
    ],
)
def test_damaged_labels_are_named(tmp_path, damage, words):
    damage(write(tmp_path / 'ids') / 'labels.npy')
    with pytest.raises(TokenStoreError, match=words):
        TokenIds(tmp_path / 'ids')


def test_other_classes_than_those_of_the_config_are_refused(tmp_path):
    folder = write(tmp_path / 'ids')
    with pytest.raises(TokenStoreError, match=r"labels.classes is \['coat', 'shirt'\], but \['bag'\] is needed"):
        TokenIds(folder, labels=dict(classes=['bag']))
