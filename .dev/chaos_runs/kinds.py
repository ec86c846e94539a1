# Copyright (c) addp_mm contributors. Apache-2.0.
"""The kinds of training that are ended: shipped nano recipes, shortened, with what has a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

ROOT = Path(__file__).parents[2]
ITERATIONS = 24
INTERVAL = 4  # iterations between checkpoints
_EMA = dict(type='EMAHook', momentum=0.1)
_COMMON = {
    'visualizer.vis_backends': [dict(type='LocalVisBackend')],
    'train_dataloader.batch_size': 4,
    'randomness.seed': 7,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': INTERVAL,
    'default_hooks.checkpoint.max_keep_ckpts': 3,
    'train_cfg.max_iters': ITERATIONS,
    'train_cfg.val_interval': 8,
}


@dataclass(frozen=True)
class Kind:
    """A kind of training.

    Args:
        name: Its name in the table.
        config: A shipped config, below ``configs/``.
        has: What it has beyond weights and optimizer, for the table.
        options: Values to set, by key.
        images: Folder of its training images, below the data.
        last: Name of the checkpoint at the end.
        interval: Largest number of iterations between two checkpoints.
    """

    name: str
    config: str
    has: str
    options: Mapping[str, Any] = field(default_factory=dict)
    images: str = 'scenes/train'
    last: str = f'iter_{ITERATIONS}.pth'
    interval: int = INTERVAL

    @property
    def package(self) -> str:
        """The package of its model."""
        return dict(det='mmdet', seg='mmseg').get(self.config.partition('/')[0], 'mmpretrain')

    def write_config(self, path: Path, data: Path, **options: Any) -> Path:
        """Write the config of a training on ``data``, with more options."""
        cfg = Config.fromfile(ROOT / 'configs' / self.config)
        cfg.merge_from_dict(deepcopy({**_COMMON, **self.options}))  # it changes what it gets
        if 'max_epochs' in cfg.train_cfg:
            del cfg.train_cfg['max_iters'], cfg.default_hooks.checkpoint['max_keep_ckpts']
        cfg.merge_from_dict(options)
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(name):
                cfg[name].update(num_workers=0, persistent_workers=False)
                cfg[name].dataset.data_root = f'{data}/'
        for name in ('val_evaluator', 'test_evaluator'):
            if isinstance(cfg.get(name), dict) and 'ann_file' in cfg[name]:
                cfg[name].ann_file = f'{data}/annotations/instances_val.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        cfg.dump(path)
        return path


_SCENES = 'fashion-scenes-64px.py'
KINDS = (
    Kind(
        'tokenizer',
        f'pretrain/vq-tokenizer_nano-p8_2xb8-fp32-12k_{_SCENES}',
        'codes that are re-initialised, moving averages, validation',
        {
            'model.quantize_from': 6,
            'model.restart_interval': 3,
            'model.restart_until': 20,
            'custom_hooks': [dict(type='addp_mm.CodeRestartHook'), _EMA],
        },
    ),
    Kind(
        'VQGAN',
        f'pretrain/vqgan_nano-p8_1xb16-fp32-4k_{_SCENES}',
        'two optimizers, the start of the discriminator and its monitor, moving averages, validation',
        {
            'model.quantize_from': 4,
            'model.restart_interval': 3,
            'model.restart_until': 12,
            'model.schedule': dict(start=10, alone=3, ramp=5),
            'custom_hooks': [
                dict(type='addp_mm.CodeRestartHook'),
                dict(type='addp_mm.AdversarialStartHook', action='lower', window=5, watch=20),
                _EMA,
            ],
        },
    ),
    Kind(
        'predictor',
        f'pretrain/token-predictor_nano-p8_2xb16-fp32-8k_{_SCENES}',
        'dropout, 3 passes a step (checkpoints within a step), moving averages, validation',
        {'model.predictor.drop_rate': 0.1, 'optim_wrapper.accumulative_counts': 3, 'custom_hooks': [_EMA]},
    ),
    Kind(
        'ADDP',
        f'pretrain/addp_vit-nano-p8_2xb16-fp32-4k_{_SCENES}',
        'noise levels and masks, dropout, previews, moving averages',
        {
            'model.backbone.drop_rate': 0.1,
            'model.neck.drop_rate': 0.1,
            'custom_hooks': [
                dict(
                    type='addp_mm.GenerativePretrainHook',
                    preview_interval=6,
                    preview_images=1,
                    sampler=dict(num_steps=2),
                ),
                _EMA,
            ],
        },
    ),
    Kind(
        'classifier',
        f'cls/addp-vit-nano-p8_ft_1xb32-fp32-300i_{_SCENES}',
        'epochs, mixup, drop path, moving averages, validation with the best checkpoint',
        {
            'model.backbone.drop_path_rate': 0.2,
            'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=0.8)]),
            'custom_hooks': [_EMA],
            'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True),
            'train_cfg': dict(_delete_=True, by_epoch=True, max_epochs=3, val_interval=1, max_iters=0),
            'log_processor.by_epoch': True,
            'param_scheduler': [
                dict(type='CosineAnnealingLR', by_epoch=True, T_max=3, end=3, convert_to_iter_based=True)
            ],
            'default_hooks.checkpoint': dict(by_epoch=True, interval=1, save_best='accuracy/top1', max_keep_ckpts=-1),
        },
        'objects/train',
        'epoch_3.pth',
        10,
    ),
    Kind(
        'detector',
        f'det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_{_SCENES}',
        'RoI sampling, drop path, layer decay, validation',
        {'model.backbone.drop_path_rate': 0.1},
    ),
    Kind(
        'segmentor',
        f'seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_{_SCENES}',
        'bfloat16, dropout, validation with the best checkpoint',
        {
            'optim_wrapper.type': 'AmpOptimWrapper',
            'optim_wrapper.dtype': 'bfloat16',
            'optim_wrapper.loss_scale': dict(enabled=False),
            'default_hooks.checkpoint.save_best': 'mIoU',
        },
    ),
)


def named(names: Sequence[str]) -> list[Kind]:
    """Kinds by name; all if there are no names."""
    return [kind for kind in KINDS if not names or kind.name in names]
