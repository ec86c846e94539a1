# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.models.discriminators.patch_discriminator import PatchDiscriminator

__all__ = ['PatchDiscriminator']
