# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest

from addp_mm.wording import first_few


@pytest.mark.parametrize('things, options, words', [
    ([], {}, 'none'),
    (['a'], {}, 'a'),
    (range(6), {}, '0, 1, 2, 3, 4, 5'),
    (iter('abcdefgh'), {}, 'a, b, c, d, e, f and 2 more'),
    (['a', 'b', 'c'], dict(count=2, separator='; '), 'a; b and 1 more'),
])
def test_first_few(things, options, words):
    assert first_few(things, **options) == words
