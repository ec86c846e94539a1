# Copyright (c) addp_mm contributors. Apache-2.0.
"""The map of token ids and its classes."""

import pytest
import torch

from addp_mm.diffusion.token_space import ClassLabelError, TokenSpace, TokenSpaceError


def test_the_published_space_is_unconditional():
    space = TokenSpace()
    assert (space.vocab_size, space.mask_id, space.fake_class_id, space.num_classes) == (2025, 2024, 1100, 0)
    assert space.class_ids(torch.tensor([-1, -1])).tolist() == [1100, 1100]
    with pytest.raises(ClassLabelError, match='class 76 does not exist: this model is unconditional'):
        space.class_ids(torch.tensor([-1, 76]))


@pytest.mark.parametrize(
    'slots, fake, classes, ids',
    [
        (11, 10, 10, range(16, 26)),
        (11, 0, 10, range(17, 27)),
        (11, 3, 10, [16, 17, 18, *range(20, 27)]),
        (1000, 76, 100, [*range(16, 92), *range(93, 117)]),
    ],
)
def test_classes_have_the_first_slots_without_that_of_the_fake_class(slots, fake, classes, ids):
    space = TokenSpace(16, slots, fake, classes)
    found = space.class_ids(torch.arange(classes)).tolist()
    assert found == list(ids)
    assert space.class_ids(torch.tensor([-1])).tolist() == [space.fake_class_id] == [16 + fake]
    assert not {space.fake_class_id, space.mask_id} & set(found)
    assert 16 <= min(found) <= max(found) < space.mask_id


@pytest.mark.parametrize('label', [10, -2, 999])
def test_classes_that_do_not_exist_are_refused(label):
    space = TokenSpace(16, 11, 10, 10)
    with pytest.raises(ClassLabelError, match=f'class {label} does not exist: this model has the classes 0 to 9'):
        space.class_ids(torch.tensor([0, label]))


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(num_classes=1000), r'num_classes must be in \[0, 1000\).*set num_class_slots=1001'),
        (dict(num_classes=-1), 'num_classes must be in'),
        (dict(fake_class_slot=1000), r'fake_class_slot must be in \[0, 1000\), got 1000'),
        (dict(codebook_size=0), 'codebook_size and num_class_slots must be at least 1'),
    ],
)
def test_sizes_that_make_no_map_are_refused(settings, words):
    with pytest.raises(TokenSpaceError, match=words):
        TokenSpace(**settings)
