# Copyright (c) addp_mm contributors. Apache-2.0.
"""A page that loads nothing from elsewhere, and its charts."""

import re

import pytest

from addp_mm.report import page as page_module
from addp_mm.report.charts import line_chart, ticks
from addp_mm.report.page import Page, external_references


@pytest.mark.parametrize(
    'low, high, expected',
    [(0, 100, [0, 25, 50, 75, 100]), (0.13, 0.87, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3, 3, [3, 4, 5, 6])],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_chart_places_points_and_refuses_what_is_not_a_number():
    chart = line_chart({'addp': [(0, 0.0), (10, 1.0)], 'random': [(0, 1.0), (10, 0.5)]}, 'a < b', 'iteration')
    lines = re.findall(r'polyline class="line (\w+)" points="([^"]+)"', chart)
    assert lines == [('addp', '40,196 348,26'), ('random', '40,26 348,111')]
    assert 'a &lt; b' in chart
    with pytest.raises(ValueError, match='not finite'):
        line_chart({'addp': [(0, float('nan'))]}, 'loss', 'iteration')
    with pytest.raises(ValueError, match='no points'):
        line_chart({'addp': []}, 'loss', 'iteration')


def test_a_name_that_is_no_unicode_does_not_cost_the_page(tmp_path):
    page = Page('Title', 'Lead')
    page.section('Broken', 'br\udcf6ken.png')
    size = page.write(tmp_path / 'page.html')
    assert 'br?ken.png' in (tmp_path / 'page.html').read_text(encoding='utf-8')
    assert size == (tmp_path / 'page.html').stat().st_size


@pytest.mark.parametrize(
    'part',
    [
        '<img src="picture.png">',
        '<img src=http://x.org/a.png>',
        '<link href="style.css">',
        "<script src='a.js'></script>",
        '<style>p { background: url(paper.png) }</style>',
        '<style>@import "a.css";</style>',
        '<svg><image href="a.png"/></svg>',
    ],
)
def test_page_that_would_load_something_is_not_written(part, tmp_path):
    assert external_references(part)
    page = Page('t', 'l')
    page.section('s')
    page.figure(part, 'caption', ['python a.py'])
    with pytest.raises(ValueError, match='would load'):
        page.write(tmp_path / 'report.html')
    assert not (tmp_path / 'report.html').exists()


def test_addresses_in_text_anchors_and_data_load_nothing():
    assert not external_references(
        '<p>see https://example.org, src=x</p><a href="#here">x</a>'
        '<img src="data:image/png;base64,AA=="><style>a { background: url(data:x) }</style>'
    )


def test_figure_needs_caption_command_and_section():
    page = Page('t', 'l')
    with pytest.raises(ValueError, match='commands'):
        page.figure('x', 'caption', ['python a.py'])
    page.section('s')
    for caption, commands in (('', ['python a.py']), ('caption', [])):
        with pytest.raises(ValueError, match='commands'):
            page.figure('x', caption, commands)


def test_page_that_grew_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, 'MAX_BYTES', 1000)
    with pytest.raises(ValueError, match='more than'):
        Page('t', 'l').write(tmp_path / 'report.html')
