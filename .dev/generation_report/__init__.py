# Copyright (c) addp_mm contributors. Apache-2.0.
"""The measurements of generation, and the page that shows them."""
