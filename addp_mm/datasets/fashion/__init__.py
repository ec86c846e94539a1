# Copyright (c) addp_mm contributors. Apache-2.0.
"""FashionScenes, a dataset composed of garments of Fashion-MNIST."""
