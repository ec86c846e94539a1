# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest
import torch
from helpers.tiny_alternating_model import tiny_conditional_model, tiny_model

from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule, image_generator
from addp_mm.generation.figures import to_uint8
from addp_mm.generation.image_folder import BatchWriter, ImageFiles, missing_batches

SCHEDULE = SamplingSchedule(num_steps=3)


def test_batches_do_not_depend_on_what_is_missing():
    assert missing_batches(range(7), 7, 3) == [range(3), range(3, 6), range(6, 7)]
    assert missing_batches([4, 5], 7, 3) == [range(3, 6)]
    assert missing_batches([], 7, 3) == []


def written(folder, model, batch_size, batches=slice(None), missing=range(8), **options):
    folder.mkdir(exist_ok=True)
    sampler = AlternatingSampler(model, model.grid_size, SCHEDULE, options.pop('guidance', None))
    writer = BatchWriter(sampler, ImageFiles(folder), seed=5, **options)
    counted = []
    writer.write(missing_batches(missing, 8, batch_size)[batches], missing, counted.append)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}, counted


def test_batch_size_order_and_interruption_change_no_byte(tmp_path):
    model = tiny_model()
    whole, counted = written(tmp_path / 'whole', model, 8)
    assert list(whole) == [f'{index:06d}.png' for index in range(8)]
    assert len(set(whole.values())) == 8
    assert sum(counted) == pytest.approx(8)
    for batch_size in (1, 3):
        assert written(tmp_path / str(batch_size), model, batch_size)[0] == whole
    backwards = slice(None, None, -1)
    assert written(tmp_path / 'backwards', model, 3, backwards)[0] == whole
    part, counted = written(tmp_path / 'part', model, 3, missing=[1, 7])
    assert list(part) == ['000001.png', '000007.png']
    assert sum(counted) == pytest.approx(2)
    assert written(tmp_path / 'part', model, 3, missing=[0, 2, 3, 4, 5, 6])[0] == whole


def test_an_image_is_that_of_its_own_stream(tmp_path):
    model = tiny_model()
    written(tmp_path, model, 3)
    sampler = AlternatingSampler(model, model.grid_size, SCHEDULE)
    for index in (0, 7):
        alone = sampler.complete(*sampler.blank(1), [image_generator(5, index)])
        assert (ImageFiles(tmp_path).read(index) == to_uint8(alone.images)[0]).all()


def test_images_have_the_classes_in_turn_with_guidance(tmp_path):
    model = tiny_conditional_model()
    guidance = Guidance(2.0, 'linear')
    whole, _ = written(tmp_path / 'whole', model, 3, classes=[2, 0], guidance=guidance)
    sampler = AlternatingSampler(model, model.grid_size, SCHEDULE, guidance)
    generators = [image_generator(5, index) for index in range(8)]
    expected = sampler.complete(*sampler.blank(8), generators, [2, 0] * 4)
    with torch.no_grad():
        for index, ids in enumerate(expected.ids):
            image = model.decode(model.tokenizer.lookup(ids[None], *model.grid_size))
            assert (ImageFiles(tmp_path / 'whole').read(index) == to_uint8(image)[0]).all()
    assert whole != written(tmp_path / 'other', model, 3)[0]


def test_bfloat16_reaches_the_model(tmp_path):
    seen = []
    model = tiny_model()
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    written(tmp_path, model, 8, amp=True)
    assert {*seen} == {torch.bfloat16}
