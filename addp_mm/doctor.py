# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp doctor``: a report on the environment, with one training step on each kind of device.

Every line is 'ok', 'warning' or 'error'. An error or a warning comes with a remedy. Only the
standard library and :mod:`addp_mm.compat` are imported at the top: the report has to work where
torch or an OpenMMLab package does not.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import logging
import os
import platform
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires
from importlib.util import find_spec
from typing import Literal

from addp_mm.compat.versions import (
    FORKS,
    INSTALL_FORKS,
    INSTALL_FORKS_MMCV,
    INSTALL_MMCV,
    INSTALL_ORIGINALS,
    ORIGINALS,
    check_packages,
    installed_version,
)
from addp_mm.version import __version__

RECIPE = 'addp_mm::cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'
INSTALL_HEADLESS = 'pip uninstall -y opencv-python && pip install --force-reinstall opencv-python-headless'
INSTALL_TORCH = 'install torch and torchvision of the same release: see https://pytorch.org/get-started/locally/'


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        status: Severity.
        subject: The checked object.
        text: The result.
        remedy: A remedy. Defaults to '': none.
    """

    status: Literal['ok', 'warning', 'error']
    subject: str
    text: str
    remedy: str = ''


def _first_line(error: BaseException) -> str:
    return f'{type(error).__name__}: {(str(error).strip() or "no message").splitlines()[0]}'


def check_system() -> Iterator[Finding]:
    """Operating system, Python and addp_mm itself."""
    version = platform.python_version()
    text = f'{version} in {sys.prefix}, on {platform.platform()}'
    try:
        supported = metadata('addp_mm')['Requires-Python'] or ''
    except PackageNotFoundError:
        supported = ''
        yield Finding('ok', 'addp_mm', f'{__version__}, not installed: imported from {os.path.dirname(__file__)}')
    else:
        yield Finding('ok', 'addp_mm', f'{__version__} in {os.path.dirname(__file__)}')
    if _fits(version, supported):
        yield Finding('ok', 'Python', text)
    else:
        yield Finding('error', 'Python', text, f'create an environment with Python {supported}')


def _fits(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def check_requirements() -> Iterator[Finding]:
    """Packages that addp_mm needs in every installation, except OpenMMLab's."""
    from packaging.requirements import Requirement

    try:
        lines = requires('addp_mm') or []
    except PackageNotFoundError:
        lines = ['torch', 'torchvision', 'timm', 'numpy', 'safetensors']
    good = []
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        if requirement.name == 'opencv-python':  # see check_opencv, which also accepts the headless package
            continue
        version = installed_version(requirement.name)
        install = f"pip install '{requirement.name}{requirement.specifier}'"
        if version is None:
            yield Finding('error', requirement.name, 'not installed', install)
        elif not _fits(version, str(requirement.specifier)):
            yield Finding('error', requirement.name, f'{version} is not supported', install)
        else:
            good.append(f'{requirement.name} {version}')
    yield Finding('ok', 'packages', ', '.join(good) or 'none')


def check_torch() -> Iterator[Finding]:
    """Whether torch and torchvision can be imported and are compatible."""
    try:
        import torch
    except Exception as error:
        yield Finding('error', 'torch', f'cannot be imported: {_first_line(error)}', INSTALL_TORCH)
        return
    cuda = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'built for the CPU only'
    yield Finding('ok', 'torch', f'{torch.__version__}, {cuda}')
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        yield Finding('error', 'torchvision', f'does not work with this torch: {_first_line(error)}', INSTALL_TORCH)
    else:
        yield Finding('ok', 'torchvision', f'{torchvision.__version__}, its operators work')


def check_opencv() -> Iterator[Finding]:
    """Whether OpenCV can be imported; the usual package needs libGL, which servers often lack."""
    try:
        import cv2
    except Exception as error:
        yield Finding('error', 'opencv', f'cv2 cannot be imported: {_first_line(error)}', INSTALL_HEADLESS)
    else:
        yield Finding('ok', 'opencv', cv2.__version__)


def check_setuptools() -> Iterator[Finding]:
    """Whether ``pkg_resources`` exists, which mmengine and mim import."""
    version = installed_version('setuptools')
    if find_spec('pkg_resources'):
        yield Finding('ok', 'setuptools', f'{version}, with pkg_resources')
    else:
        text = f'{version or "not installed"}: no pkg_resources; mmengine works with a patch, mim does not'
        yield Finding('warning', 'setuptools', text, "pip install 'setuptools<81'")


def check_openmmlab() -> Iterator[Finding]:
    """Which OpenMMLab packages are installed, importable and compatible."""
    for module in ORIGINALS:
        found = [
            f'{provider.name} {version} ({family})'
            for family, providers in (('original', ORIGINALS[module]), ('onedl fork', FORKS[module]))
            for provider in providers
            if (version := installed_version(provider.name))
        ]
        if not found and find_spec(module):
            found = ['without package metadata']
        if found:
            try:
                importlib.import_module(module)
            except Exception as error:
                remedy = 'see the errors above, or reinstall it'
                yield Finding('error', module, f'{", ".join(found)}, cannot be imported: {_first_line(error)}', remedy)
            else:
                yield Finding('ok', module, ', '.join(found))
        else:
            status: Literal['warning', 'error'] = 'error' if module == 'mmengine' else 'warning'
            yield Finding(status, module, 'not installed', f'{INSTALL_ORIGINALS}, or {INSTALL_FORKS}')
    try:
        check_packages(installed_version)
    except ImportError as error:
        problem, _, remedy = str(error).partition('Type\n')
        yield Finding('error', 'OpenMMLab', problem.strip(), remedy)
    else:
        yield Finding('ok', 'OpenMMLab', 'the versions fit together')


def check_operators() -> Iterator[Finding]:
    """Whether mmcv's operators are compiled or those of :mod:`addp_mm.compat.ops`."""
    from addp_mm.compat.ops import OPS

    spec = find_spec('mmcv._ext')
    if spec is None:
        yield Finding('warning', 'mmcv operators', 'none: most detectors cannot be built', 'unset ADDP_MM_COMPAT')
        return
    try:
        importlib.import_module('mmcv._ext')
    except Exception as error:
        remedy = f'install an mmcv that was compiled for this torch, or: {INSTALL_MMCV} (or {INSTALL_FORKS_MMCV})'
        yield Finding('error', 'mmcv operators', f'compiled, but do not load: {_first_line(error)}', remedy)
        return
    if spec.origin == 'addp_mm.compat.ops':
        names = sorted({re.sub('_(forward|backward).*', '', name) for name in OPS if not name.startswith('get_')})
        text = f'none is compiled; addp_mm has {", ".join(names)}; others raise MissingOpError when they are called'
        yield Finding('ok', 'mmcv operators', text)
    else:
        yield Finding('ok', 'mmcv operators', f'compiled in {spec.origin}; those of addp_mm are not used')


def check_patches() -> Iterator[Finding]:
    """Which patches of :mod:`addp_mm.compat` were applied to the packages imported so far."""
    from addp_mm import compat

    if compat.is_off():
        remedy = 'unset ADDP_MM_COMPAT, unless you want the packages unchanged'
        yield Finding('warning', 'patches', 'none: ADDP_MM_COMPAT=off', remedy)
        return
    faults = '; '.join(f'{patch.name} ({patch.fault})' for patch in compat.applied()) or 'none'
    yield Finding('ok', 'patches', f'applied: {faults}')
    names = ', '.join(patch.name for patch in compat.waiting()) or 'none'
    yield Finding('ok', 'more patches', f'applied when their module is imported, if it has the fault: {names}')


def check_gpus() -> Iterator[Finding]:
    """GPUs, their memory and compute capability, and whether this torch has code for them."""
    import torch

    if not torch.cuda.is_available():
        text = 'none that torch can use; training runs on the CPU'
        if os.path.exists('/dev/nvidia0') and os.environ.get('CUDA_VISIBLE_DEVICES') != '':
            yield Finding('warning', 'GPU', text, f'there is an NVIDIA GPU: update its driver, or {INSTALL_TORCH}')
        else:
            yield Finding('ok', 'GPU', text)
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        text = f'{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}.{facts.minor}'
        yield Finding('ok', f'GPU {index}', text)


def check_training() -> Iterator[Finding]:
    """One training step of the nano classifier on the CPU, and on the first GPU if there is one."""
    import torch

    for device in ['cpu', *(['cuda:0'] if torch.cuda.is_available() else [])]:
        try:
            loss = train_step(device)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = f'{_first_line(error)} ({frame.filename}:{frame.lineno})'
            yield Finding('error', f'training on {device}', text, 'see the lines above; if they are ok, report this')
        else:
            yield Finding('ok', f'training on {device}', f'one step of the nano classifier, loss {loss:.3f}')


def train_step(device: str) -> float:
    """Fine-tune the nano ADDPViT for one step on random images, from its shipped weights.

    Args:
        device: Such as 'cpu' or 'cuda:0'.

    Returns:
        The loss.

    Raises:
        RuntimeError: The loss is not finite, or the step changed no weight.
    """
    import torch
    from mmengine.optim import OptimWrapper
    from mmengine.registry import DefaultScope
    from mmpretrain.structures import DataSample

    from addp_mm.config.config_file import load_config
    from addp_mm.registry import MODELS

    torch.manual_seed(0)
    cfg = load_config(RECIPE)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
    model = model.to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in (0, 1)])
    losses = model.train_step(batch, OptimWrapper(torch.optim.AdamW(weights, lr=1e-3)))
    loss = float(losses['loss'])
    if not torch.isfinite(torch.tensor(loss)):
        raise RuntimeError(f'the loss is {loss}')
    if all(torch.equal(old, new) for old, new in zip(before, weights, strict=True)):
        raise RuntimeError('the step changed no weight')
    return loss


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_system,
    check_requirements,
    check_torch,
    check_opencv,
    check_setuptools,
    check_openmmlab,
    check_operators,
    check_patches,
    check_gpus,
    check_training,
)


def examine() -> Iterator[Finding]:
    """Run every check. If a check raises an exception, the report shows it as an error."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:
            subject = check.__name__.removeprefix('check_')
            yield Finding('error', subject, f'not checked: {_first_line(error)}', 'first follow the other remedies')


def _quiet(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Hide output, log lines and warnings of the packages during the checks."""
    while True:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            logging.disable(logging.INFO)
            finding = next(findings, None)
            logging.disable(logging.NOTSET)
        if finding is None:
            return
        yield finding


def shown(finding: Finding) -> str:
    """A finding as lines of text, with an indented remedy."""
    lines = [f'{finding.status:<8} {finding.subject}: {finding.text}']
    if finding.remedy:
        lines += [f'         -> {line.strip()}' for line in finding.remedy.strip().splitlines()]
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the report; the exit status is 1 if it has an error."""
    parser = argparse.ArgumentParser(prog='addp doctor', description='Check the environment and run one training step.')
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    args = parser.parse_args(argv)
    findings = []
    for finding in _quiet(examine()):
        findings.append(finding)
        if not args.json:
            print(shown(finding), flush=True)
    counts = {status: sum(finding.status == status for finding in findings) for status in ('error', 'warning')}
    if args.json:
        print(json.dumps(dict(findings=[dataclasses.asdict(finding) for finding in findings], **counts), indent=2))
    else:
        print(f'\n{counts["error"]} error(s), {counts["warning"]} warning(s)')
    sys.exit(1 if counts['error'] else 0)
