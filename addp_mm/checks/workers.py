# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that options for worker processes stand in data loaders that have workers."""

from mmengine.config import Config

from addp_mm.errors import ConfigError

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# torch refuses other values without workers
_WITHOUT_WORKERS = {'persistent_workers': False, 'prefetch_factor': None}


def check_workers(cfg: Config) -> None:
    """Check the data loaders of a config.

    Raises:
        ConfigError: A loader has ``num_workers=0`` and an option that needs workers. torch would
            raise an error when the loader is built.
    """
    for name in _LOADERS:
        loader = cfg.get(name) or {}
        for option, value in _WITHOUT_WORKERS.items():
            given = loader.get(option) or value
            if loader.get('num_workers', 0) == 0 and given != value:
                raise ConfigError(
                    f'config: {name}.{option}={given!r} needs worker processes, and num_workers is 0: set '
                    f'{name}.{option}={value}, or num_workers to 1 or more'
                )
