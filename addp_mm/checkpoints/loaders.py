# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmengine reads its checkpoints through :mod:`addp_mm.checkpoints.reading`.

The originals cannot resume from what they saved on torch 2.6 and newer; for http they switch
torch's check off, and the onedl forks do so whenever it complains. Here every way into a checkpoint
ends in the same reader.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from addp_mm.compat.importing import TorchView


def register_checkpoint_loaders(module: ModuleType) -> None:
    """Read every checkpoint with the allow-list. Applied to ``mmengine.runner.checkpoint``."""
    from addp_mm.checkpoints.hub import HUB_SCHEME
    from addp_mm.checkpoints.reading import ASSET_SCHEME, safe_load

    # Loaders of rare schemes (ceph, pavi, a mirror in the home folder) keep their code and get
    # another torch.load.
    module.torch = TorchView(load=safe_load)
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = safe_load
    # torchvision://, open-mmlab:// and mmcls:// call the http loader by this name.
    module.load_from_http = load_from_http
    module.load_from_local = load_from_local
    module.load_url = load_url
    register = module.CheckpointLoader.register_scheme
    register(prefixes=['', ASSET_SCHEME], loader=load_from_local, force=True)
    register(prefixes=['http://', 'https://'], loader=load_from_http, force=True)
    register(prefixes=HUB_SCHEME, loader=load_from_hub, force=True)
    for prefix, loader in list(module.CheckpointLoader._schemes.items()):
        if loader.__name__ in ('load_from_ceph', 'load_from_pavi'):
            register(prefixes=prefix, loader=_says_what_to_do_without_its_client(loader), force=True)


def _says_what_to_do_without_its_client(loader: Callable[..., dict]) -> Callable[..., dict]:

    @functools.wraps(loader)
    def load(filename: str, map_location: Any = None) -> dict:
        from addp_mm.checkpoints.errors import CheckpointError

        try:
            return loader(filename, map_location)
        except ImportError as error:
            raise CheckpointError(f'{filename}: {error} Or copy the file to this machine and give its path.') from error

    return load


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a file, or one that addp_mm ships."""
    from addp_mm.checkpoints.reading import load_checkpoint_file

    return load_checkpoint_file(filename, map_location)


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
) -> dict:
    """Load a file from the network, or from torch's download cache if it is there already.

    Args:
        url: Address of the file.
        model_dir: Folder to keep it in. Defaults to ``checkpoints`` in ``torch.hub.get_dir()``.
        map_location: Same as ``torch.load``'s.
        progress: Whether to show a bar.
        check_hash: Whether the file's name ends in ``-<start of its SHA-256>``, to be checked.
        file_name: Name to keep it under. Defaults to the last part of the address.

    Raises:
        CheckpointError: The download failed, or the file is no checkpoint or holds more than data.
    """
    from urllib.parse import urlparse

    import torch

    from addp_mm.checkpoints.download import download
    from addp_mm.checkpoints.errors import CheckpointError
    from addp_mm.checkpoints.reading import load_checkpoint_file

    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    os.makedirs(folder, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    if not name:
        raise CheckpointError(f'{url} names no file: its last part becomes the name in {folder}.')
    path = os.path.join(folder, name)
    is_new = not os.path.exists(path)
    if is_new:
        sys.stderr.write(f'Downloading {url} to {path}\n')
        match = torch.hub.HASH_REGEX.search(name) if check_hash else None
        download(url, path, match.group(1) if match else None, progress)
    try:
        return load_checkpoint_file(path, map_location)
    except CheckpointError as error:
        if is_new:
            # A server that announces no length can break off without anybody noticing.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        raise CheckpointError(
            f'{error} (The file came from {url} and was not kept.)'
            if is_new
            else f'{error} (The file was kept from an earlier download; delete it to load {url} again.)'
        ) from error


def load_from_http(
    filename: str, map_location: Any = None, model_dir: str | None = None, progress: bool | None = None
) -> dict:
    """Load a file from the network; of several processes, the first of each machine downloads."""
    progress = sys.stderr.isatty() if progress is None else progress
    return _first_of_each_machine_first(lambda: load_url(filename, model_dir, map_location, progress))


def load_from_hub(filename: str, map_location: Any = None) -> dict:
    """Load ``hf://owner/repo[@revision]/path``; of several processes, the first of each machine downloads."""
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
        # Also when the download failed: the others would wait for this one until the time-out.
        barrier()
    return checkpoint if checkpoint is not None else load()


def _local_rank() -> int:
    # mmengine's get_local_rank wants a process group that none of its launchers makes. torchrun and
    # mmengine's Slurm set LOCAL_RANK; under MPI our tools have set it to 0.
    return int(os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', os.environ.get('LOCAL_RANK', 0)))
