# Copyright (c) addp_mm contributors. Apache-2.0.
"""Everything that is refused before training starts: configs, data, weights and the launcher."""
