# Copyright (c) addp_mm contributors. Apache-2.0.
"""Child registries of mmengine's roots.

mmengine imports ``<scope>.registry`` when it meets ``type='<scope>.X'``, so a config of mmpretrain,
mmdet or mmsegmentation can name ``addp_mm.X`` without ``custom_imports``. That import runs
``addp_mm/__init__.py`` first, which puts the patches of :mod:`addp_mm.compat` in force.
"""

from importlib import import_module

from addp_mm.compat.versions import check_packages

check_packages()  # before mmengine is imported: if it is missing, the error says what to install

from mmengine import registry as _roots  # noqa: E402
from mmengine.registry import Registry  # noqa: E402


def _child(name: str, root: Registry, *locations: str) -> Registry:
    return Registry(name, parent=root, scope='addp_mm', locations=[f'addp_mm.{location}' for location in locations])


class _ModelRegistry(Registry):
    """Registry that imports the packages of :mod:`addp_mm.models` one by one until a name is found.

    A detector with an ADDPViT therefore imports neither the VQGAN nor mmpretrain, which only the
    algorithms in ``selfsup`` need.
    """

    packages = ('backbones', 'necks', 'tokenizers', 'predictors', 'discriminators', 'heads', 'losses', 'selfsup')

    def get(self, key: str) -> type | None:
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope):
            registries = (self, self.parent) if scope is None else (self,)
            for package in self.packages:
                if any(name in registry.module_dict for registry in registries):
                    break
                import_module(f'addp_mm.models.{package}')
        return super().get(key)


MODELS = _ModelRegistry('model', parent=_roots.MODELS, scope='addp_mm')
WEIGHT_INITIALIZERS = _child('weight initializer', _roots.WEIGHT_INITIALIZERS, 'models.pretrained')
DATASETS = _child('dataset', _roots.DATASETS, 'datasets')
DATA_SAMPLERS = _child('data sampler', _roots.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', _roots.TRANSFORMS, 'datasets')
HOOKS = _child('hook', _roots.HOOKS, 'engine')
LOOPS = _child('loop', _roots.LOOPS, 'engine')
OPTIM_WRAPPERS = _child('optimizer wrapper', _roots.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor', _roots.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
STRATEGIES = _child('strategy', _roots.STRATEGIES, 'engine')
VISBACKENDS = _child('vis_backend', _roots.VISBACKENDS, 'engine')
VISUALIZERS = _child('visualizer', _roots.VISUALIZERS, 'engine')
METRICS = _child('metric', _roots.METRICS, 'evaluation')
