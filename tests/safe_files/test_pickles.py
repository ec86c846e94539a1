# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pickles and YAML are read as data, by us and by the OpenMMLab packages."""

import builtins
import contextlib
import io
import os
import pickle
import tarfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path, PurePosixPath

import mmengine
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData

import addp_mm  # noqa: F401
from addp_mm.checkpoints import numpy_pickles
from addp_mm.safe_files import pickles
from addp_mm.safe_files.errors import UnsafeFileError


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Plants:
    """Sets an attribute of a class when it is unpickled."""

    def __reduce__(self):
        return InstanceData, (), (None, dict(planted=1))


def written(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return str(path)


@pytest.mark.parametrize('suffix', ['pkl', 'pickle'])
def test_code_is_refused_with_the_file_and_does_not_run(tmp_path, suffix):
    mark = tmp_path / 'ran'
    path = written(tmp_path / f'annotations.{suffix}', dict(data=[Calls(os.system, f'touch {mark}')]))
    with open(path, 'rb') as file:
        pickle.load(file)
    assert mark.exists(), 'without the check, this file must run code'
    mark.unlink()
    with pytest.raises(UnsafeFileError, match=rf'annotations\.{suffix}.*posix\.system.*Nothing of it was run'):
        mmengine.load(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    'content',
    [
        Calls(eval, '1'),
        Calls(getattr, InstanceData, '__init__'),
        Calls(__import__, 'os'),
        Calls(pickle.loads, b'N.'),
        Calls(np.load, 'x.npy'),
        Calls(torch.load, 'x.pth'),
        Calls(torch.hub.load, 'x'),
        Calls(builtins.open, 'x'),
        Calls(io.open, 'x'),
        Calls(bytes, 10**13),
        Calls(bytearray, 10**13),
        Calls(np.empty, 10**13),
        Path,
        os.path.join,
        yaml.load,
    ],
)
@pytest.mark.parametrize('protocol', [2, 5])
def test_other_functions_are_refused(content, protocol):
    with pytest.raises(UnsafeFileError, match='refused: it names|asks for'):
        pickles.loads(pickle.dumps(content, protocol))


def test_code_inside_of_a_tensor_is_refused(tmp_path):
    mark = tmp_path / 'ran'
    buffer = io.BytesIO()
    torch.save(Calls(os.system, f'touch {mark}'), buffer)
    from torch.storage import _load_from_bytes

    with pytest.raises(ValueError, match=r'posix\.system|refused'):
        _raise_value_error(lambda: pickles.loads(pickle.dumps(Calls(_load_from_bytes, buffer.getvalue()))))
    assert not mark.exists()


def _raise_value_error(call):
    try:
        call()
    except RuntimeError as error:  # of the reader of checkpoints
        raise ValueError(str(error)) from error


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4, 5])
def test_data_keep_their_values(protocol):
    data = dict(
        text='ä', raw=b'\x00\xff', empty=b'', numbers=[1, 2.5, True, None, 3 + 1j], names={'a'}, keys=(1, (2,)),
        array=np.arange(6, dtype='>i4').reshape(2, 3), scalar=np.float32(2.5), words=np.array(['a', 'bc']),
        objects=np.array([dict(a=1), None], object), tensor=torch.arange(6.0).reshape(2, 3).t(),
        half=torch.ones(2, dtype=torch.bfloat16), kind=torch.int64, size=torch.Size((2, 3)),
        ordered=OrderedDict(a=1), default=defaultdict(list, a=[1]), count=Counter('aab'), part=slice(0, 3),
    )  # fmt: skip
    read = pickles.loads(pickle.dumps(data, protocol))
    assert read.keys() == data.keys()
    for key in ('array', 'words', 'objects'):
        assert np.array_equal(read.pop(key), data[key])
        assert read.get(key, data[key]).dtype == data.pop(key).dtype
    for key in ('tensor', 'half'):
        assert torch.equal(read.pop(key), data.pop(key))
    assert type(read['scalar']) is np.float32
    assert read == data
    read['default']['b'].append(1)


def test_data_structures_keep_their_values_and_classes():
    boxes = InstanceData(metainfo=dict(ori_shape=(4, 5)), bboxes=torch.ones(2, 4), labels=torch.arange(2))
    maps = PixelData(data=torch.zeros(1, 4, 5))
    read = pickles.loads(pickle.dumps([boxes, maps], 2))
    assert [type(one) for one in read] == [InstanceData, PixelData]
    assert read[0].ori_shape == (4, 5)
    assert torch.equal(read[0].bboxes, boxes.bboxes)
    assert len(read[0][torch.tensor([True, False])]) == 1
    assert read[1].shape == (4, 5)


def test_a_pickle_changes_no_class():
    with pytest.raises(UnsafeFileError, match='has no attributes'):
        pickles.loads(pickle.dumps(Plants()))
    class_itself = b'\x80\x02cmmengine.structures.instance_data\nInstanceData\n(N}X\x05\x00\x00\x00pixelK\x01stb.'
    with contextlib.suppress(Exception):
        pickles.loads(class_itself)
    assert not hasattr(InstanceData, 'pixel')
    assert '__setstate__' not in vars(InstanceData)


def test_a_pickle_changes_no_global(monkeypatch):
    names = ['pathlib PosixPath', 'pathlib PurePosixPath', 'collections Counter']
    names += [f'numpy._core.multiarray {name}' for name in ('_reconstruct', 'scalar')]
    names += [' '.join(name) for name in {*pickles._PLAIN, *pickles._functions()}]
    for name in names:
        state = pickle.dumps((None, dict(parent='x', planted='x')), 2)[2:-1]
        with contextlib.suppress(UnsafeFileError):
            pickles.loads(b'\x80\x02c' + name.replace(' ', '\n').encode() + b'\n' + state + b'b.')
    assert Path('/a').parent == Path('/')
    assert PurePosixPath('/a/b').parent == PurePosixPath('/a')
    found = [Path, PurePosixPath, type(Path()), Counter, OrderedDict, *pickles._functions().values()]
    found += [one for one, _ in numpy_pickles.stand_ins()]
    assert not any(hasattr(one, 'planted') for one in found)


def test_other_structures_and_parameters_are_read():
    for module, name in (
        ('mmdet.structures', 'TrackDataSample'), ('mmdet.structures', 'ReIDDataSample'),
        ('mmpretrain.structures', 'MultiTaskDataSample'),
    ):  # fmt: skip
        cls = getattr(pytest.importorskip(module), name)
        read = pickles.loads(pickle.dumps(cls(metainfo=dict(img_id=3))))
        assert type(read) is cls
        assert read.img_id == 3
    for weight in (torch.nn.Parameter(torch.arange(3.0)), torch.nn.Parameter(torch.ones(2), requires_grad=False)):
        read = pickles.loads(pickle.dumps(weight))
        assert type(read) is torch.nn.Parameter
        assert torch.equal(read, weight)
        assert read.requires_grad is weight.requires_grad


def test_a_config_dict_can_be_written_again():
    values = ConfigDict(a=1, b=ConfigDict(c=[ConfigDict(d=2)]))
    read = pickles.loads(pickle.dumps(dict(meta=values)))['meta']
    assert read == values
    assert type(read) is type(read.b) is type(read.b.c[0]) is ConfigDict
    assert pickle.loads(pickle.dumps(read)) == values


@pytest.mark.parametrize('content', [np.dtype('f4'), 'text'])
def test_shared_tuples_are_visited_once(content):
    shared = boxed = content
    for _ in range(200):
        shared, boxed = (shared, shared), np.array([boxed, boxed, None], object)
    for read in (pickles.loads(pickle.dumps(shared)), pickles.loads(pickle.dumps(boxed))):
        for _ in range(200):
            assert read[0] is read[1]
            read = read[0]
        assert read == content
    inner = [np.dtype('f4')]
    inner.append((inner, inner[0]))
    read = pickles.loads(pickle.dumps(inner))
    assert read[1][0] is read
    assert read[0] == read[1][1] == np.dtype('f4')


@pytest.mark.parametrize('size', [(10**10,), (3,), (2, 2)])  # the last one overlaps, and needs three values
def test_a_tensor_has_no_more_values_than_its_storage(size):
    rebuild, (storage, *_) = torch.ones(2).__reduce_ex__(2)[:2]
    pickled = pickle.dumps(Calls(rebuild, storage, 0, size, (1,) * len(size), False, OrderedDict()))
    with pytest.raises(UnsafeFileError, match='a tensor of the size .* has 2 stored values'):
        pickles.loads(pickled)


def test_tensors_keep_their_views():
    for tensor in (torch.arange(6.0)[2:4], torch.ones(1).expand(3, 2), torch.ones(0, 3), torch.tensor(2.5)):
        read = pickles.loads(pickle.dumps(tensor))
        assert torch.equal(read, tensor)
        assert read.stride() == tensor.stride()


@pytest.mark.parametrize('content', [b'', b'\x80', b'N', b'junk', b'cmmengine.config.config\nConfigDict\n(K\x01tR.'])
def test_a_damaged_pickle_is_one_line(tmp_path, content):
    (tmp_path / 'x.pkl').write_bytes(content)
    with pytest.raises(UnsafeFileError, match=r'x\.pkl: the pickle is damaged or refused: .'):
        mmengine.load(tmp_path / 'x.pkl')


def test_a_bad_state_is_refused():
    state = b'\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85RK\x01b.'
    with pytest.raises(UnsafeFileError, match='is damaged or refused: .*subscriptable'):
        pickles.loads(state)


def test_a_forged_type_of_numpy_is_refused():
    # an array of bytes that numpy would take for addresses of objects
    forged = (3, '|', None, ('a',), {'a': (np.dtype('O'), 0)}, 8, 1, 0)
    kind = pickle.dumps(np.dtype('V8'), 2)
    with pytest.raises(UnsafeFileError, match='only numbers, text and objects are read'):
        pickles.loads(kind[:-1] + pickle.dumps(forged, 2)[2:-1] + b'b.')
    plain = pickle.dumps(np.dtype('i8'), 2)
    assert pickles.loads(plain[:-1] + pickle.dumps(forged, 2)[2:-1] + b'b.') == np.dtype('i8')


def test_a_class_can_be_allowed(tmp_path):
    path = written(tmp_path / 'a.pkl', pytest.Item)
    with pytest.raises(UnsafeFileError, match='add_safe_globals'):
        mmengine.load(path)
    with torch.serialization.safe_globals([pytest.Item]):
        assert mmengine.load(path) is pytest.Item


def test_results_and_proposals_of_detectors_are_read(tmp_path):
    pytest.importorskip('mmdet', reason='mmdet is not installed')
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    sample = DetDataSample(metainfo=dict(img_id=3))
    sample.pred_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.ones(1, 4)), masks=BitmapMasks(np.ones((1, 4, 5), np.uint8), 4, 5)
    )
    path = str(tmp_path / 'results.pkl')
    mmengine.dump([sample, sample.to_dict()], path)
    read, as_dict = mmengine.load(path)
    assert type(read) is DetDataSample
    for found in (read.pred_instances.to_dict(), as_dict['pred_instances']):
        assert torch.equal(found['bboxes'].tensor, torch.ones(1, 4))
        assert found['masks'].masks.sum() == 20


@pytest.mark.parametrize(
    'text', ['a: !!python/object/apply:os.system ["touch MARK"]', 'a: !!python/name:os.system', '!!python/module:os']
)
def test_yaml_runs_nothing(tmp_path, text):
    mark = tmp_path / 'ran'
    (tmp_path / 'x.yaml').write_text(text.replace('MARK', str(mark)))
    with pytest.raises(UnsafeFileError, match=r'x\.yaml, line 1, is refused: .*python/'):
        mmengine.load(tmp_path / 'x.yaml')
    assert not mark.exists()


def test_yaml_keeps_tuples(tmp_path):
    (tmp_path / 'x.yml').write_text(yaml.dump(dict(a=(1, (2, 3)), b=[1.5, 'x', None])))
    assert mmengine.load(tmp_path / 'x.yml') == dict(a=(1, (2, 3)), b=[1.5, 'x', None])


def test_nested_json_is_one_line(tmp_path):
    (tmp_path / 'x.json').write_text('[' * 200_000)
    with pytest.raises(UnsafeFileError, match=r'x\.json is nested too deeply'):
        mmengine.load(tmp_path / 'x.json')


def test_cifar_is_read_as_data(tmp_path):
    cifar = pytest.importorskip('mmpretrain.datasets.cifar', reason='mmpretrain is not installed')
    content = dict(data=np.zeros((2, 3072), np.uint8), labels=[0, 1])
    assert cifar.pickle.loads(pickle.dumps(content, 2), encoding='latin1')['labels'] == [0, 1]
    with pytest.raises(UnsafeFileError, match=r'posix\.system'):
        cifar.pickle.loads(pickle.dumps(Calls(os.system, 'true'), 2), encoding='latin1')


def test_archives_stay_in_their_folder(tmp_path):
    utils = pytest.importorskip('mmpretrain.datasets.utils', reason='mmpretrain is not installed')
    for name in ('../out', f'{tmp_path}/absolute'):
        with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
            archive.addfile(tarfile.TarInfo(name))
        try:
            utils.extract_archive(str(tmp_path / 'a.tar'), str(tmp_path / 'inside'))
        except tarfile.FilterError:
            assert name == '../out'
    assert sorted(path.name for path in tmp_path.iterdir()) in (['a.tar'], ['a.tar', 'inside'])
