# Copyright (c) addp_mm contributors. Apache-2.0.
"""A report in one file: sections, figures and tables, without external files."""

import pytest
from helpers.html_page import ParsedPage
from matplotlib import rc_context
from PIL import Image

from addp_mm.report.figures import image_picture, line_charts
from addp_mm.report.page import Figure, Page, Section, Table


def page(**changes):
    picture = image_picture(Image.new('RGB', (8, 4)), 'black <image>', 'Title of it')
    curves = line_charts({'Loss': {'a': [(0, 1.0), (10, 0.5)], 'b': [(0, 2.0)]}}, 'iteration', dict(a='red', b='blue'))
    figures = [
        Figure('A caption', ['python a.py "x"'], [picture]),
        Figure('Curves', ['python b.py', 'python c.py'], [curves]),
        Figure('Numbers', ['python d.py'], table=Table(['', 'PSNR'], [['tokenizer', '24.5']])),
    ]
    return Page(**{**dict(title='A & B', lead='Lead', sections=[Section('First', figures, 'Text')]), **changes})


def test_a_page_shows_its_figures_with_captions_and_commands(tmp_path):
    size = page(warning='Short run').write(tmp_path / 'report.html')
    html = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert size == len(html.encode())
    parsed = ParsedPage(html)
    assert parsed.external() == []
    for shown in ('A & B', 'Short run', 'First', 'A caption', 'python a.py "x"', '2 commands', 'tokenizer', '24.5'):
        assert shown in parsed.text
    images = parsed.attributes('img')
    assert [image['alt'] for image in images] == ['black <image>', 'line charts: Loss']
    assert (images[0]['width'], images[0]['height']) == ('8', '4')
    assert len(parsed.attributes('figcaption')) == 3


def test_external_addresses_are_found_by_the_check_itself():
    html = (
        '<style>a { background: url(paper.png) }</style><img src="a.png"><a href="#here">x</a><p>see https://x.org</p>'
    )
    assert len(ParsedPage(html).external()) == 2


def test_charts_are_svg_figures():
    (figure,) = [figure for figure in page().sections[0].figures if figure.caption == 'Curves']
    svg = figure.pictures[0].content.decode()
    assert svg.count('<svg') == 1
    with pytest.raises(ValueError, match="line 'a' has no points"):
        line_charts({'Loss': {'a': []}}, 'iteration', dict(a='red'))


def test_the_legend_names_the_lines_of_all_charts_once():
    charts = {'Left': {'both': [(0, 1.0)], 'left': [(0, 2.0)]}, 'Right': {'both': [(0, 3.0)], 'right': [(0, 4.0)]}}
    with rc_context({'svg.fonttype': 'none'}):
        picture = line_charts(charts, 'steps', dict(both='red', left='blue', right='green'))
    svg = picture.content.decode()
    assert [svg.count(f'>{name}<') for name in ('both', 'left', 'right')] == [1, 1, 1]


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    page(title='br\udcf6ken.png').write(tmp_path / 'page.html')
    assert 'br\\udcf6ken.png' in (tmp_path / 'page.html').read_text(encoding='utf-8')


@pytest.mark.parametrize('changes', [dict(caption=''), dict(commands=[]), dict(table=None)])
def test_a_figure_needs_caption_commands_and_content(changes):
    complete = dict(caption='c', commands=['python a.py'], table=Table(['a'], [['b']]))
    Figure(**complete)
    with pytest.raises(ValueError, match='needs a caption'):
        Figure(**{**complete, **changes})
