# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stations of ADDP, a room each; :data:`addp_mm.registry.MODELS` imports a room when it looks for a name in it."""
