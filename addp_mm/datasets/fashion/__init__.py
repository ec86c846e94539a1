# Copyright (c) addp_mm contributors. Apache-2.0.
"""FashionScenes, a data set made of garments of Fashion-MNIST."""
