# Copyright (c) addp_mm contributors. Apache-2.0.
# 64 px -> 8 x 8 tokens, 512 codes, 2.3 M parameters. A stem of stride 4 makes it fast on a CPU.
tokenizer = dict(
    type='addp_mm.VQTokenizer',
    stem_stride=4,
    base_channels=64,
    channel_mults=(1, 2),
    num_mid_blocks=1,
    codebook_size=512,
    embed_dims=8,
    normalize_codes=True,
    shortcut_from='input',
)
