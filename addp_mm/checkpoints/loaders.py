# Copyright (c) addp_mm contributors. Apache-2.0.
"""Make mmengine read checkpoints through :mod:`addp_mm.checkpoints.reading`.

On torch 2.6 and newer mmengine cannot resume from its own checkpoints. For http addresses it
switches torch's check off, and the onedl forks do so after each refusal. With these loaders, the
same reader reads every file, and it never runs code from a file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.compat.importing import ModuleView


def register_checkpoint_loaders(module: Any) -> None:
    """Make mmengine read every checkpoint with :mod:`addp_mm.checkpoints.reading`.

    Args:
        module: ``mmengine.runner.checkpoint``, or the module of that name in a fork.
    """
    from addp_mm.checkpoints.hub import HUB_SCHEME
    from addp_mm.checkpoints.reading import ASSET_SCHEME, safe_load

    # The loaders of rare addresses (ceph, pavi, openmmlab://) stay. They call torch.load.
    module.torch = ModuleView('torch', load=safe_load)
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = safe_load  # noqa: SLF001  (the forks have no public name for it)
    # The loaders of torchvision://, open-mmlab:// and mmcls:// find these by name.
    module.load_from_http = load_from_http
    module.load_from_local = load_from_local
    module.load_url = load_url
    register = module.CheckpointLoader.register_scheme
    register(prefixes=['', ASSET_SCHEME], loader=load_from_local, force=True)
    register(prefixes=['http://', 'https://'], loader=load_from_http, force=True)
    register(prefixes=HUB_SCHEME, loader=load_from_hub, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a local file, or a file that addp_mm ships."""
    # mmengine logs the name of the loader, so the loader is a named function.
    from addp_mm.checkpoints.reading import load_checkpoint_file

    return load_checkpoint_file(filename, map_location)


def load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> dict:
    """Load a file from the network, or from torch's download cache if it was downloaded before.

    Args:
        url: Address of the file.
        model_dir: Folder for the file. Defaults to None: ``checkpoints`` in torch.hub's folder.
        map_location: As in ``torch.load``. Defaults to None.
        progress: Whether to show a progress bar. Defaults to True.

    Returns:
        The content of the file.

    Raises:
        CheckpointError: The download failed, or the file is not a checkpoint or holds more than
            data.
    """
    from urllib.parse import urlparse

    import torch

    from addp_mm.checkpoints.download import download
    from addp_mm.checkpoints.reading import load_checkpoint_file

    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    name = os.path.basename(urlparse(url).path)
    if name in ('', '.', '..'):
        raise CheckpointError(f'{url} is not the address of a file. Give an address that ends in the name of a file.')
    path = os.path.join(folder, name)
    is_new = not os.path.exists(path)
    if is_new:
        sys.stderr.write(f'Downloading {url} to {path}\n')
        download(url, path, progress)
    try:
        return load_checkpoint_file(path, map_location)
    except CheckpointError as error:
        if is_new:
            # If the server sends no length, a broken connection looks like the end of the file.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise CheckpointError(f'{error} (The file came from {url} and was not kept.)') from error
        raise CheckpointError(
            f'{error} (The file is from an earlier download; delete it to load {url} again.)'
        ) from error


def load_from_http(
    filename: str, map_location: Any = None, model_dir: str | None = None, progress: bool | None = None
) -> dict:
    """Load a file from the network. Only the first process of each machine downloads it.

    Args:
        filename: Address of the file; http or https.
        map_location: As in ``torch.load``. Defaults to None.
        model_dir: As in :func:`load_url`. Defaults to None.
        progress: Whether to show a progress bar. Defaults to None: in a terminal.
    """
    progress = sys.stderr.isatty() if progress is None else progress
    return _first_of_each_machine_first(lambda: load_url(filename, model_dir, map_location, progress))


def load_from_hub(filename: str, map_location: Any = None) -> dict:
    """Load ``hf://owner/repo[@revision]/path``. The first process of each machine downloads it."""
    from addp_mm.checkpoints.reading import load_checkpoint_file

    return _first_of_each_machine_first(lambda: load_checkpoint_file(filename, map_location))


def _first_of_each_machine_first(load: Callable[[], dict]) -> dict:
    from mmengine.dist import barrier, get_world_size

    if get_world_size() == 1:
        return load()
    checkpoint = None
    try:
        if _local_rank() == 0:
            checkpoint = load()
    finally:
        # Also after an error: otherwise the other processes would wait until the time-out.
        barrier()
    return checkpoint if checkpoint is not None else load()


def _local_rank() -> int:
    # mmengine's get_local_rank needs a process group that its launchers do not create. torchrun and
    # mmengine's Slurm launcher set LOCAL_RANK. Under MPI our tools have set it to 0.
    return int(os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', os.environ.get('LOCAL_RANK', 0)))
