# Copyright (c) addp_mm contributors. Apache-2.0.
"""The published reference's VOLO as a backbone and as a classifier."""

from mmengine.registry import DefaultScope

from addp_mm.registry import MODELS
from helpers.volo_reference import reference

ARCH = dict(layers=(2, 1, 2, 1), embed_dims=(48, 96), num_heads=(3, 6), stem_channels=16)


def backbone(**options):
    """VOLO with the reference's weights, in eval mode."""
    volo = MODELS.build(dict(type='addp_mm.VOLO', **{**dict(arch=ARCH, img_size=64), **options}))
    weights = {f'timm_model.{name}': weight for name, weight in reference()['state_dict'].items()}
    own = volo.state_dict()
    volo.load_state_dict({name: weight for name, weight in weights.items() if name in own})
    return volo.eval()


def classifier_config(num_classes=11, **options):
    """Config of mmpretrain's classifier."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='addp_mm.VOLO', **{**dict(arch=ARCH, img_size=64, out_type='raw'), **options}),
        head=dict(type='addp_mm.VOLOHead', num_classes=num_classes, in_channels=96),
    )


def classifier(**options):
    """Classifier with random weights."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(classifier_config(**options))
