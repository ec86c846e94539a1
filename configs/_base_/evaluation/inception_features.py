# Copyright (c) addp_mm contributors. Apache-2.0.
# Features for FID: pip install 'addp_mm[fidelity]'. weights=None downloads its weights once.
extractor = dict(type='addp_mm.InceptionFeatures', weights=None)
