# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.models.heads.token_head import TokenHead

__all__ = ['TokenHead']
