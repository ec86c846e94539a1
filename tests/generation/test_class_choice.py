# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.generation.class_choice import choose_classes

NAMES = ['bag', 'coat', 'dress']


@pytest.mark.parametrize('wanted, classes', [(['all'], [0, 1, 2]), (['2'], [2]), (['dress', '0', 'bag'], [2, 0, 0])])
def test_numbers_and_names(wanted, classes):
    assert choose_classes(wanted, 3, NAMES) == classes


def test_all_is_given_alone():
    with pytest.raises(ValueError, match='--classes 1 all: all is given alone'):
        choose_classes(['1', 'all'], 3, NAMES)


@pytest.mark.parametrize(
    'wanted, num_classes, names, message',
    [
        ('3', 3, NAMES, 'no such class. Give numbers from 0 to 2, or a name: bag, coat, dress, or all'),
        ('-1', 3, NAMES, '--classes -1: the model has no such class'),
        ('dres', 3, NAMES, 'did you mean dress?'),
        ('dress', 3, (), 'Give numbers from 0 to 2, or all'),
        ('dress', 4, NAMES, 'Give numbers from 0 to 3, or all'),
        ('all', 0, (), 'the model has no classes'),
    ],
)
def test_what_is_wrong_is_named(wanted, num_classes, names, message):
    with pytest.raises(ValueError, match=message.replace('?', r'\?')):
        choose_classes([wanted], num_classes, names)
