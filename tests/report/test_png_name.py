# Copyright (c) addp_mm contributors. Apache-2.0.
from pathlib import Path

import pytest

from addp_mm.report.png_name import png_name


@pytest.mark.parametrize(
    'image, figure',
    [
        ('x.png', 'x.png'),
        ('a/x.jpg', 'a/x.jpg.png'),
        ('a/x.PNG', 'a/x.PNG.png'),
        ('/data/x.png', 'data/x.png'),
        ('../data/x', 'data/x.png'),
    ],
)
def test_a_figure_has_the_name_of_its_image(image, figure):
    assert png_name(Path(image)) == Path(figure)
