# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of the command line: any text is taken or refused, and values come back as written."""

import copy

import pytest
from helpers.strategies import plain_values, texts, words
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from addp_mm.config.option_values import read_value
from addp_mm.config.options import merge_options, split_options
from addp_mm.errors import ConfigError

CONFIG = dict(
    model=dict(type='A', depth=3, lr=0.1, frozen=True, name='x', sizes=[1, 2], parts=[dict(type='B', p=1)], off=None),
    train_dataloader=dict(batch_size=2, sampler=dict(type='S')),
    work_dir='w',
)
keys = st.lists(
    st.sampled_from(['model', 'depth', 'sizes', 'parts', '0', '1', 'p', 'off', 'work_dir', '_delete_', '²']) | texts,
    min_size=1,
    max_size=4,
).map('.'.join)


def as_lists(value):
    """Tuples as lists: brackets of one kind are enough for the command line."""
    if isinstance(value, dict):
        return {key: as_lists(one) for key, one in value.items()}
    return [as_lists(one) for one in value] if isinstance(value, list | tuple) else value


def quoted(value):
    """Text of a value as Python writes it, with dicts, lists and quoted words."""
    return repr(as_lists(value))


@given(st.lists(plain_values(), max_size=3))
def test_a_value_in_brackets_is_read_as_python_reads_it(value):
    assert as_lists(read_value(quoted(value))) == as_lists(value)


@given(words, plain_values())
def test_a_merged_value_is_the_given_one(key, value):
    cfg = Config(copy.deepcopy(CONFIG))
    try:
        merge_options(cfg, [f'model.new.{key}={quoted(value)}'])
    except ConfigError:
        return
    assert as_lists(cfg.to_dict()['model']['new'][key]) == as_lists(value)


@given(texts, st.sampled_from([None, 1, 0.5, True, 'x', ['x'], [1], dict(a=1), (1, 2)]))
def test_any_text_is_a_value_or_is_refused(text, present):
    try:
        value = read_value(text, present)
    except ConfigError:
        return
    assert isinstance(value, str | int | float | bool | list | tuple | dict | None)


@given(st.lists(st.tuples(keys, texts).map('='.join) | texts, max_size=3))
def test_any_options_are_merged_or_refused_as_a_whole(options):
    cfg = Config(copy.deepcopy(CONFIG))
    try:
        merge_options(cfg, options)
    except ConfigError:
        return
    for key, text in split_options(options):
        assert '='.join([key, text]) in options
    repr(cfg)


@given(keys, texts)
def test_an_option_is_split_into_its_key_and_its_text(key, text):
    try:
        (pair,) = split_options([f'{key}={text}'])
    except ConfigError:
        return
    assert '='.join(pair) == f'{key}={text}'


@pytest.mark.parametrize('text', ['{[1]:2}', '{(1,[2]):3}', 'dict({}=3)'])
def test_a_key_of_a_dict_must_be_a_word(text):
    with pytest.raises(ConfigError, match='a key is a word or a number'):
        read_value(text)


@pytest.mark.parametrize('text', ['[' * 999 + ']' * 999, '{"a":' * 60 + '1' + '}' * 60, '(' * 99])
def test_brackets_are_counted(text):
    with pytest.raises(ConfigError, match='more than 50 brackets inside each other'):
        read_value(text)


def test_a_superscript_is_not_an_index():
    with pytest.raises(ConfigError, match="'²' is not an index into it"):
        merge_options(Config(copy.deepcopy(CONFIG)), ['model.parts.².p=1'])
