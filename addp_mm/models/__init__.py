# Copyright (c) addp_mm contributors. Apache-2.0.
"""The components of ADDP, one package each.

:data:`addp_mm.registry.MODELS` imports a package when it looks for a name in it.
"""
