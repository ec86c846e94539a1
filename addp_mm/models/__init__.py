# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stations of ADDP, a package each; :data:`addp_mm.registry.MODELS` imports one when it looks for a name in it."""
