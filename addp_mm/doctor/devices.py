# Copyright (c) addp_mm contributors. Apache-2.0.
"""PyTorch and the GPUs."""

import os
from collections.abc import Iterator
from importlib.metadata import requires

from addp_mm.compat.versions import installed_version
from addp_mm.doctor.finding import Finding, first_line, fits

# exist where the NVIDIA driver is loaded
NVIDIA = ('/dev/nvidia0', '/proc/driver/nvidia/version')
PYTORCH = 'https://pytorch.org/get-started/locally/'
INSTALL_TORCH = (
    'install torch and torchvision of the same release: pip install --upgrade torch torchvision, '
    f'or for one CUDA version with the --index-url of {PYTORCH}'
)


def check_torch() -> Iterator[Finding]:
    """Whether torch and torchvision can be imported and belong together."""
    try:
        import torch
    except Exception as error:
        path = os.environ.get('LD_LIBRARY_PATH', '')
        other_cuda = 'unset LD_LIBRARY_PATH, which names another CUDA; or ' if 'cuda' in path.lower() else ''
        yield Finding('error', 'torch', f'cannot be imported: {first_line(error)}', other_cuda + INSTALL_TORCH)
        return
    cuda = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'built for the CPU or another accelerator'
    yield Finding('ok', 'torch', f'{torch.__version__}, {cuda}')
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        yield Finding('error', 'torchvision', f'does not work with this torch: {first_line(error)}', INSTALL_TORCH)
    else:
        yield from _compare_torchvision(torch.__version__, torchvision.__version__)


def _compare_torchvision(torch: str, torchvision: str) -> Iterator[Finding]:
    """Whether torchvision was made for this release and this build of torch."""
    from packaging.requirements import Requirement

    lines = (requires('torchvision') or []) if installed_version('torchvision') else []
    wanted = next((each.specifier for each in map(Requirement, lines) if each.name == 'torch'), '')
    builds = [version.partition('+')[2] for version in (torch, torchvision)]
    if not fits(torch, str(wanted)):
        text = f'{torchvision} is made for torch {wanted}, but torch {torch} is installed'
        yield Finding('error', 'torchvision', text, INSTALL_TORCH)
    elif all(builds) and builds[0] != builds[1]:
        text = f'{torchvision} is another build than torch {torch}; its operators fail on a GPU'
        yield Finding('warning', 'torchvision', text, INSTALL_TORCH)
    else:
        yield Finding('ok', 'torchvision', f'{torchvision}, its operators work')


def check_gpus() -> Iterator[Finding]:
    """GPUs, their memory and compute capability, and whether this torch has code for them."""
    import torch

    if not torch.cuda.is_available():
        yield _other_accelerator(torch) or _without_gpu(torch)
        return
    codes = {name.partition('_')[2].rstrip('af') for name in torch.cuda.get_arch_list()}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        text = f'{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}.{facts.minor}'
        # code for 8.0 also runs on 8.6, but not on 9.0
        if torch.version.hip is None and codes and not any(code[:-1] == str(facts.major) for code in codes):
            text += f'; this torch has code for {", ".join(sorted(codes))} only'
            yield Finding('warning', f'GPU {index}', text, f'install a torch for this GPU: see {PYTORCH}')
        else:
            yield Finding('ok', f'GPU {index}', text)


def _other_accelerator(torch) -> Finding | None:
    """An accelerator of another kind than CUDA and ROCm: torch has one kind at most."""
    from addp_mm.devices import accelerator_name, default_device, is_accelerator

    device = default_device()
    if not is_accelerator(device):
        return None
    count = torch.accelerator.device_count()
    name = f'{count} x {accelerator_name()}' if count > 1 else accelerator_name()
    return Finding('ok', 'GPU', f'{name}, as --device {device.type}; addp_mm was never run on this kind of device')


def _without_gpu(torch) -> Finding:
    text = 'none that torch can use; training runs on the CPU'
    if not any(map(os.path.exists, NVIDIA)):
        return Finding('ok', 'GPU', text)
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    if hidden in ('', '-1'):
        return Finding('ok', 'GPU', f'{text}, since CUDA_VISIBLE_DEVICES={hidden} hides the NVIDIA GPU')
    if torch.version.cuda is None:
        remedy = f'pip install --force-reinstall torch torchvision, with the --index-url for CUDA of {PYTORCH}'
        return Finding('warning', 'GPU', f'{text}: there is an NVIDIA GPU, but this torch has no CUDA', remedy)
    text = f'{text}: there is an NVIDIA GPU, but CUDA {torch.version.cuda} does not start'
    return Finding(
        'warning',
        'GPU',
        text,
        f'update the NVIDIA driver, or install torch for an older CUDA: see {PYTORCH}; '
        'in a container, start it with --gpus all',
    )
