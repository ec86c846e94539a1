# Copyright (c) addp_mm contributors. Apache-2.0.
"""Settings of the documentation site: ``make docs`` builds it into build/docs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = 'addp_mm'
author = copyright = 'addp_mm contributors'
release = version = '0.1'

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'sphinx_design',
]
myst_enable_extensions = ['colon_fence', 'deflist', 'attrs_inline']
myst_heading_anchors = 3
source_suffix = {'.md': 'markdown', '.rst': 'restructuredtext'}
exclude_patterns = []
suppress_warnings = ['myst.xref_missing']  # links to files outside docs/, such as configs; see `link_to_file`

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

html_theme = 'furo'
html_title = 'addp_mm'
html_theme_options = dict(source_repository='', navigation_with_keys=True)
html_static_path = ['_static']
html_css_files = ['site.css']
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_prompt_is_regexp = True

#: Tools whose ``--help`` becomes the page reference/tools.
TOOLS = {
    'Checking, training and testing': (
        'train',
        'test',
        'check',
        'generate',
        'inpaint',
        'app',
        'benchmark_backbones',
        'pretrain_from_folder',
    ),
    'Configs': ('misc/*',),
    'Data sets': ('label_maps', 'dataset_converters/*'),
    'Checkpoints': ('model_converters/*',),
    'Analysis': ('analysis_tools/*',),
    'Benchmarks': ('benchmarks/*',),
}


def write_tools_page(app) -> None:
    """Write tools_reference.md from the ``--help`` of every tool."""
    parts = [
        '# Tools',
        'Written from `--help` when the documentation is built. `addp --help` lists the tools that `addp` runs.',
    ]
    for title, patterns in TOOLS.items():
        parts.append(f'## {title}')
        paths = [path for pattern in patterns for path in sorted((ROOT / 'tools').glob(f'{pattern}.py'))]
        for path in paths:
            command = [sys.executable, str(path), '--help']
            shown = subprocess.run(
                command, capture_output=True, text=True, check=True, cwd=ROOT, env=_plain_environment()
            )
            parts += [f'### tools/{path.relative_to(ROOT / "tools")}', f'```text\n{shown.stdout.strip()}\n```']
    page = Path(app.srcdir) / 'tools_reference.md'
    text = '\n\n'.join(parts) + '\n'
    if not page.is_file() or page.read_text() != text:  # an unchanged page is not built again
        page.write_text(text)


def _plain_environment() -> dict[str, str]:
    import os

    return {**os.environ, 'COLUMNS': '100', 'NO_COLOR': '1'}


def setup(app) -> None:
    """Connect the page of the tools."""
    app.connect('builder-inited', write_tools_page)
