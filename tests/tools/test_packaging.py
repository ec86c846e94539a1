# Copyright (c) addp_mm contributors. Apache-2.0.
"""Package metadata, the Makefile and the launch scripts are consistent with each other."""

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from addp_mm.compat.versions import FORKS, INSTALL_MMCV, ORIGINALS

ROOT = Path(__file__).parents[2]


def requirements(section: str, key: str) -> set[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    lines = parser[section][key].split('\n')
    return {re.split(r'[<>=!~\[ ]', line)[0] for line in lines if line and not line.startswith('#')}


def test_providers_of_the_same_import_names_are_extras_and_share_nothing():
    base = requirements('options', 'install_requires')
    openmmlab = requirements('options.extras_require', 'openmmlab')
    onedl = requirements('options.extras_require', 'onedl')
    assert {'mmengine', 'mmcv-lite', 'mmdet', 'mmsegmentation', 'mmpretrain'} <= openmmlab
    assert {f'onedl-{name}' for name in ('mmengine', 'mmcv', 'mmdetection', 'mmsegmentation', 'mmpretrain')} <= onedl
    assert not {name for name in base if name.startswith(('mm', 'onedl'))}
    assert not {name for name in openmmlab & onedl if name.startswith(('mm', 'onedl'))}


@pytest.mark.parametrize('extra, family', [('openmmlab', ORIGINALS), ('onedl', FORKS)])
def test_the_check_at_import_accepts_what_the_extras_install(extra, family):
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    lines = [line for line in parser['options.extras_require'][extra].split('\n') if line and not line.startswith('#')]
    installed = {each.name: each.specifier for each in map(Requirement, lines)}
    for providers in family.values():
        wanted = [provider for provider in providers if provider.name in installed]
        assert len(wanted) == 1
        lowest = next(each.version for each in installed[wanted[0].name] if each.operator in ('>=', '=='))
        assert lowest in SpecifierSet(wanted[0].supported), wanted[0]
        if family is FORKS:  # lower versions have not been tested
            assert f'>={lowest},' in wanted[0].supported
    if family is ORIGINALS:
        assert INSTALL_MMCV.removeprefix('pip install ') in lines


def test_scripts_are_executable_and_explain_themselves():
    for script, words in (
        ('dist_train.sh', 'CONFIG PROCESSES'),
        ('dist_test.sh', 'CONFIG CHECKPOINT PROCESSES'),
        ('slurm_train.sh', 'PARTITION JOB_NAME CONFIG'),
    ):
        finished = subprocess.run([ROOT / 'tools' / script], capture_output=True, text=True)
        assert finished.returncode == 2
        assert words in finished.stderr


@pytest.mark.parametrize('version, works', [('3.9', False), ('3.10', True), ('3.14', True), ('3.15', False)])
def test_make_refuses_an_unsupported_python(tmp_path, version, works):
    """A fake interpreter runs the checks of the Makefile with another ``sys.version_info``."""
    python = tmp_path / 'python'
    major, minor = version.split('.')
    python.write_text(
        '#!/bin/sh\n'
        f'[ "$1" = -m ] && {{ mkdir -p "$3/bin"; echo made; exit 0; }}\n'
        f'exec python3 -c "import sys; sys.version_info = ({major}, {minor}, 0); $2"\n'
    )
    python.chmod(0o755)
    finished = subprocess.run(
        ['make', '-C', ROOT, f'{tmp_path}/venv/bin/python', f'VENV={tmp_path}/venv', f'PYTHON={python}'],
        capture_output=True,
        text=True,
    )
    assert (finished.returncode == 0) is works, finished.stderr
    if not works:
        assert f'is {version}' in finished.stderr


def test_make_keeps_the_stacks_apart():
    # make passes its options, such as STACK=onedl, to its commands, which may include this test
    environ = {name: value for name, value in os.environ.items() if name not in ('MAKEFLAGS', 'MAKEOVERRIDES', 'STACK')}

    def make(*arguments):
        return subprocess.run(['make', '-C', ROOT, '-n', *arguments], capture_output=True, text=True, env=environ)

    assert "'.[openmmlab,rotated,dev]'" in make('setup', '-B').stdout
    onedl = make('setup', '-B', 'STACK=onedl').stdout
    assert "'.[onedl,rotated-onedl,dev]'" in onedl
    assert '.venv/' not in onedl
    assert '.venv-onedl/bin/python' in onedl
    refused = make('setup', 'STACK=mmcv')
    assert refused.returncode != 0
    assert 'STACK is mmcv; it can be openmmlab' in refused.stderr


def test_the_installation_page_has_the_versions_of_setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    lines = [line for key in ('openmmlab', 'onedl') for line in parser['options.extras_require'][key].split('\n')]
    lines += [
        line
        for line in parser['options']['install_requires'].split('\n')
        if line.startswith(('torch>', 'torchvision', 'timm', 'numpy'))
    ]
    versions = [found.groups() for line in lines if (found := re.match(r'([\w-]+)[>=]=([\d.]+)', line))]
    page = (ROOT / 'docs/installation.md').read_text()
    assert len(versions) == 14
    assert not [pair for pair in versions if not re.search(rf'{pair[0]} (≥ )?{re.escape(pair[1])}\b', page)]
