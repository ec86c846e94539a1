# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp align``: from the weights of a generator to aligned weights, and a comparison."""
