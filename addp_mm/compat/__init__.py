# Copyright (c) addp_mm contributors. Apache-2.0.
"""What lets the released OpenMMLab packages run on a current PyTorch.

A mend applies only where the fault is present, when the module at fault is imported, and leaves a
working installation alone. Nothing here imports torch or an OpenMMLab package until someone else
does.
"""

from addp_mm.compat.activation_checkpointing import mend_activation_checkpointing
from addp_mm.compat.amp import mend_amp_optim_wrapper
from addp_mm.compat.colour import mend_adjust_hue
from addp_mm.compat.deepspeed import mend_deepspeed_optimizers
from addp_mm.compat.distributed import mend_ddp, mend_init_dist, mend_sync_batchnorm
from addp_mm.compat.flexible_runner import mend_flexible_runner
from addp_mm.compat.focal_loss import mend_focal_loss
from addp_mm.compat.fsdp import mend_fsdp_strategy, mend_fsdp_wrapper
from addp_mm.compat.importing import when_imported
from addp_mm.compat.inferencer_loader import mend_inferencer_loader
from addp_mm.compat.inferencer_scope import mend_inference_scope, mend_inferencer_scope
from addp_mm.compat.mmcv_ext import install_mmcv_ext
from addp_mm.compat.packages import mend_package_names, mend_package_utils
from addp_mm.compat.weighted_cross_entropy import mend_weighted_cross_entropy

MENDS = {
    'mmcv.image.photometric': (mend_adjust_hue,),
    'mmdet.apis.det_inferencer': (mend_inferencer_loader,),
    'mmdet.apis.inference': (mend_inference_scope,),
    'mmengine._strategy.deepspeed': (mend_deepspeed_optimizers,),
    'mmengine._strategy.fsdp': (mend_fsdp_strategy,),
    'mmengine.config.utils': (mend_package_names,),
    'mmengine.dist.utils': (mend_init_dist,),
    'mmengine.model.utils': (mend_sync_batchnorm,),
    'mmengine.model.wrappers.distributed': (mend_ddp,),
    'mmengine.model.wrappers.fully_sharded_distributed': (mend_fsdp_wrapper,),
    'mmengine.optim.optimizer.amp_optimizer_wrapper': (mend_amp_optim_wrapper,),
    'mmengine.runner._flexible_runner': (mend_flexible_runner,),
    'mmengine.runner.activation_checkpointing': (mend_activation_checkpointing,),
    'mmengine.utils.package_utils': (mend_package_utils,),
    'mmpretrain.apis.base': (mend_inferencer_scope,),
    'mmseg.apis.inference': (mend_inference_scope,),
    'mmseg.apis.mmseg_inferencer': (mend_inferencer_loader,),
    'mmseg.models.losses.cross_entropy_loss': (mend_weighted_cross_entropy,),
    'mmseg.models.losses.focal_loss': (mend_focal_loss,),
}


def install() -> None:
    """Put every mend in force. Calling it again changes nothing."""
    install_mmcv_ext()
    for module, mends in MENDS.items():
        for mend in mends:
            when_imported(module, mend)
