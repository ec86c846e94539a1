# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layer-wise learning rate decay for any model with a backbone."""

import re
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # noqa: SLF001  # the base of all batch norms
_EMBEDDINGS = re.compile(
    r'(^|[._])(cls_token|mask_token|register_tokens|reg_token|pos_embed|rel_pos\w*|relative_position_bias_table)$'
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that decrease with the distance from the output, for all kinds of models.

    A parameter in layer i of the n layers of the backbone (stem 0, blocks, final norm n - 1) has
    the learning rate ``lr * layer_decay_rate ** (n - 1 - i)``; parameters outside the backbone have
    ``lr``. The backbone gives the layer by ``get_layer_depth(param_name, prefix) -> (i, n)``, as
    :class:`addp_mm.ADDPViT` and mmpretrain's backbones do. mmpretrain's constructor calls a method
    of the model that detectors and segmentors lack; mmdet's and mmseg's support only a few classes.
    The idea is BEiT's (arXiv 2106.08254, appendix), after ELECTRA.

    ``paramwise_cfg`` takes, besides ``layer_decay_rate`` (default 1):

    - ``norm_decay_mult``, ``bias_decay_mult``, ``flat_decay_mult``: factors of the weight decay of
      norms, of biases, of all parameters with one dimension.
    - ``embed_decay_mult``: factor of the weight decay of class and mask tokens, absolute and
      relative positions.
    - ``custom_keys``: ``{part of a name: dict(lr_mult=…, decay_mult=…)}``; the longest match has
      precedence over the rules above. ``lr_mult`` multiplies the layer's rate.

    Raises:
        ValueError: ``paramwise_cfg`` has another key, or ``layer_decay_rate`` is not in (0, 1].
        NotImplementedError: The model has no backbone with ``get_layer_depth``.

    Examples:
        >>> optim_wrapper = dict(
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     constructor='addp_mm.LayerDecayOptimWrapperConstructor',
        ...     paramwise_cfg=dict(layer_decay_rate=0.65, norm_decay_mult=0., bias_decay_mult=0.))
    """

    _OPTIONS = (
        'layer_decay_rate',
        'norm_decay_mult',
        'bias_decay_mult',
        'flat_decay_mult',
        'embed_decay_mult',
        'custom_keys',
    )

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - set(self._OPTIONS))
        if unknown:
            raise ValueError(
                f'paramwise_cfg of {type(self).__name__} has unknown keys {", ".join(unknown)}; '
                f'it takes {", ".join(self._OPTIONS)}.'
            )
        if not 0 < self.paramwise_cfg.get('layer_decay_rate', 1.0) <= 1:
            raise ValueError(f'layer_decay_rate={self.paramwise_cfg["layer_decay_rate"]} is not in (0, 1].')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Fill ``params`` with one parameter group for each pair of learning rate and weight decay.

        Args:
            params: Groups, filled in place.
            module: The model, without the parallel wrapper around it.
            **kwargs: Arguments of the parent's recursion; not used.
        """
        backbones = {strip_wrappers(name): part for name, part in module.named_modules() if _is_backbone(name, part)}
        if not backbones:
            raise NotImplementedError(
                f'{type(module).__name__} has no backbone with get_layer_depth(param_name, prefix), which layer decay '
                'calls. Use addp_mm.ADDPViT, addp_mm.TimmBackbone or a backbone of mmpretrain that has it, or '
                'remove the constructor.'
            )
        groups: dict[tuple, dict] = {}
        seen = set()
        for owner_name, owner in module.named_modules():
            for short_name, param in owner.named_parameters(recurse=False):
                if not param.requires_grad or id(param) in seen:
                    continue
                seen.add(id(param))
                name = strip_wrappers(f'{owner_name}.{short_name}' if owner_name else short_name)
                settings = self._settings(name, param, isinstance(owner, _NORMS), backbones)
                group = groups.setdefault(tuple(sorted(settings.items())), dict(settings, params=[], param_names=[]))
                group['params'].append(param)
                group['param_names'].append(name)
        params.extend(sorted(groups.values(), key=lambda group: group['lr_scale']))
        self._report(params)

    def _settings(self, name: str, param: nn.Parameter, is_norm: bool, backbones: dict[str, Any]) -> dict:
        custom = self._custom(name)
        prefix, backbone = next(
            ((f'{key}.', part) for key, part in backbones.items() if name.startswith(f'{key}.')), (None, None)
        )
        scale = custom.get('lr_mult', 1.0)
        if backbone is not None:
            layer, num_layers = backbone.get_layer_depth(name, prefix)
            scale *= self.paramwise_cfg.get('layer_decay_rate', 1.0) ** (num_layers - 1 - layer)
        settings = dict(lr=self.base_lr * scale, lr_scale=scale)
        if self.base_wd is not None:
            settings['weight_decay'] = self.base_wd * self._decay_mult(name, param, is_norm, custom)
        return settings

    def _custom(self, name: str) -> dict:
        keys = self.paramwise_cfg.get('custom_keys', {})
        matching = sorted((key for key in keys if key in name), key=lambda key: (-len(key), key))
        return keys[matching[0]] if matching else {}

    def _decay_mult(self, name: str, param: nn.Parameter, is_norm: bool, custom: dict) -> float:
        if 'decay_mult' in custom:
            return custom['decay_mult']
        rules = (
            ('embed_decay_mult', _EMBEDDINGS.search(name)),
            ('norm_decay_mult', is_norm),
            ('bias_decay_mult', name.endswith('.bias')),
            ('flat_decay_mult', param.ndim == 1),
        )
        for option, applies in rules:
            if applies and option in self.paramwise_cfg:
                return self.paramwise_cfg[option]
        return 1.0

    @staticmethod
    def _report(groups: list[dict]) -> None:
        lines = [
            f'lr {group["lr"]:.3g} (x{group["lr_scale"]:.3g}), weight decay {group.get("weight_decay", 0):.3g}: '
            f'{len(group["params"])} parameters, {group["param_names"][0]} …'
            for group in groups
        ]
        print_log('Layer decay:\n  ' + '\n  '.join(lines), logger='current')


def _is_backbone(name: str, module: nn.Module) -> bool:
    return strip_wrappers(name).split('.')[-1] == 'backbone' and hasattr(module, 'get_layer_depth')
