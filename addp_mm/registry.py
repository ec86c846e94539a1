# Copyright (c) addp_mm contributors. Apache-2.0.
"""Child registries of mmengine's root registries.

mmengine imports ``<scope>.registry`` when it finds ``type='<scope>.X'``. A config of mmpretrain,
mmdet or mmsegmentation can therefore name ``addp_mm.X`` without ``custom_imports``: that import
runs ``addp_mm/__init__.py`` first, which installs the patches of :mod:`addp_mm.compat`.
"""

from importlib import import_module
from typing import ClassVar

from addp_mm.compat.versions import check_packages

check_packages()  # before mmengine is imported: if it is missing, the error gives the command to install it

from mmengine import registry as _roots  # noqa: E402
from mmengine.registry import Registry  # noqa: E402


def _child(name: str, root: Registry, *locations: str) -> Registry:
    return Registry(name, parent=root, scope='addp_mm', locations=[f'addp_mm.{location}' for location in locations])


class _LazyRegistry(Registry):
    """Registry that imports the classes which need a task package only when a config names them."""

    #: Modules that hold such classes, by name of the class.
    modules: ClassVar[dict[str, str]] = {}

    def get(self, key: str) -> type | None:
        """Find a class by its name, with or without the scope; None if it is not registered."""
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope) and name in self.modules:
            import_module(f'addp_mm.{self.modules[name]}')
        return super().get(key)


class _ModelRegistry(_LazyRegistry):
    """Registry that imports the packages of :mod:`addp_mm.models` one by one to find a name.

    A detector with an ADDPViT then imports no VQGAN, and does not need mmpretrain, which only the
    algorithms in ``selfsup`` need.
    """

    packages = ('backbones', 'necks', 'tokenizers', 'predictors', 'discriminators', 'heads', 'losses', 'selfsup')
    modules: ClassVar = {
        'VOLOHead': 'models.heads.volo_head',
        'LinearSegHead': 'models.decode_heads',
        'LikelihoodTuning': 'alignment.likelihood_tuning',
        'PreferenceTuning': 'alignment.preference_tuning',
    }

    def get(self, key: str) -> type | None:
        """Find a class by its name, with or without the scope; None if it is not registered."""
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope) and name not in self.modules:
            registries = (self, self.parent) if scope is None else (self,)
            for package in self.packages:
                if any(name in registry.module_dict for registry in registries):
                    break
                import_module(f'addp_mm.models.{package}')
        return super().get(key)


class _MetricRegistry(_LazyRegistry):
    modules: ClassVar = {'FastCocoMetric': 'evaluation.fast_coco'}


class _DatasetRegistry(_LazyRegistry):
    modules: ClassVar = dict.fromkeys(('ChosenTrajectories', 'PreferencePairs'), 'alignment.datasets')


MODELS = _ModelRegistry('model', parent=_roots.MODELS, scope='addp_mm')
WEIGHT_INITIALIZERS = _child('weight initializer', _roots.WEIGHT_INITIALIZERS, 'models.pretrained')
DATASETS = _DatasetRegistry('dataset', parent=_roots.DATASETS, scope='addp_mm', locations=['addp_mm.datasets'])
DATA_SAMPLERS = _child('data sampler', _roots.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', _roots.TRANSFORMS, 'datasets')
HOOKS = _child('hook', _roots.HOOKS, 'engine')
LOOPS = _child('loop', _roots.LOOPS, 'engine')
OPTIM_WRAPPERS = _child('optimizer wrapper', _roots.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor', _roots.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
STRATEGIES = _child('strategy', _roots.STRATEGIES, 'engine')
VISBACKENDS = _child('vis_backend', _roots.VISBACKENDS, 'engine')
VISUALIZERS = _child('visualizer', _roots.VISUALIZERS, 'engine')
# functions and classes of rewards; see addp_mm.alignment.rewards
REWARDS = _child('reward', _roots.FUNCTIONS, 'alignment.rewards')
METRICS = _MetricRegistry('metric', parent=_roots.METRICS, scope='addp_mm', locations=['addp_mm.evaluation'])
