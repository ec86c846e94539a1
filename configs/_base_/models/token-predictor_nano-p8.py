# Copyright (c) addp_mm contributors. Apache-2.0.
# The nano vocabulary has one class slot; with a thousand, the head would need most of the time. No
# dropout: the training is too short to overfit, and on a CPU dropout needs half of the time.
token_space = dict(codebook_size=512, num_class_slots=1, fake_class_slot=0)
predictor = dict(
    type='addp_mm.MaskedTokenPredictor',
    num_tokens=64,
    embed_dims=128,
    num_layers=4,
    num_heads=4,
    decoder_embed_dims=128,
    decoder_num_layers=2,
    decoder_num_heads=4,
    drop_rate=0.0,
    token_space=token_space,
)
