# Copyright (c) addp_mm contributors. Apache-2.0.
"""Equal texts of configs are formatted once, and every config has its own text."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config, config

from addp_mm.compat.config_text import patch_config_text

pytestmark = pytest.mark.skipif(
    not hasattr(config, 'FormatCode'), reason="the fork's mmengine imports the formatter where it uses it"
)
VALUES = dict(model=dict(layers=[dict(size=(1, 2)), None], name='nano'), lr=1e-3, train_cfg=dict(by_epoch=True))


@pytest.fixture
def formatted(monkeypatch):
    """The patch on yapf's function, and the texts with which that is called."""
    texts, original = [], config.FormatCode.__wrapped__

    def recorded(text, **options):
        texts.append(text)
        return original(text, **options)

    monkeypatch.setattr(config, 'FormatCode', recorded)
    assert patch_config_text(config)
    return texts


def test_an_equal_text_is_formatted_once(formatted):
    first, second = Config(VALUES), Config(VALUES)
    assert first.pretty_text == first.pretty_text == second.pretty_text
    assert len(formatted) == 1


def test_the_text_is_that_of_the_formatter(formatted, monkeypatch):
    ours = [Config(VALUES).pretty_text for _ in range(2)]
    monkeypatch.setattr(config, 'FormatCode', config.FormatCode.__wrapped__)
    assert ours == [Config(VALUES).pretty_text] * 2
    assert Config.fromstring(ours[0], '.py').to_dict() == VALUES


def test_a_changed_config_has_another_text(formatted):
    cfg = Config(VALUES)
    before = cfg.pretty_text
    cfg.lr = 2e-3
    assert 'lr = 0.002' in cfg.pretty_text
    assert before != cfg.pretty_text
    assert len(formatted) == 2


def test_a_text_that_cannot_be_formatted_is_an_error_each_time(formatted):
    cfg = Config(dict(a=object()))
    for _ in range(2):
        with pytest.raises(SyntaxError, match='Failed to format'):
            cfg.pretty_text  # noqa: B018
    assert len(formatted) == 2


def test_a_version_without_the_fault_is_not_patched():
    class Cached(Config):
        pretty_text = 'a = 1\n'

    module = SimpleNamespace(Config=Cached, FormatCode=len)
    assert not patch_config_text(module)
    assert module.FormatCode is len
    assert not patch_config_text(SimpleNamespace(Config=Cached))
