# Copyright (c) addp_mm contributors. Apache-2.0.
"""Discriminators of real and reconstructed images."""

from addp_mm.models.discriminators.patch_discriminator import PatchDiscriminator

__all__ = ['PatchDiscriminator']
