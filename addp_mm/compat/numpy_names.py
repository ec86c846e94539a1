# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names that numpy has removed and that OpenMMLab's packages still use."""

from typing import Any

from addp_mm.compat.importing import ModuleView


def patch_numpy_names(module: Any) -> bool:
    """Give a module the names that the installed numpy lacks.

    Args:
        module: ``mmpretrain.evaluation.metrics.retrieval`` (``np.in1d``) or
            ``mmdet.evaluation.functional.ytviseval`` (``np.float``).

    Returns:
        Whether a name is missing.
    """
    import numpy as np

    missing = {name: value for name, value in _removed().items() if name not in dir(np)}
    if missing:
        module.np = ModuleView('numpy', **missing)
    return bool(missing)


def _removed() -> dict[str, Any]:
    import numpy as np

    return {'in1d': lambda ar1, *args, **options: np.isin(np.ravel(ar1), *args, **options), 'float': float}
