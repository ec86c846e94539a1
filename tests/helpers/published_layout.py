# Copyright (c) addp_mm contributors. Apache-2.0.
"""A folder with the files and names of the published ADDP code, and a tiny model in it.

It has what makes the published code hard to import: relative paths, calls of ``.cuda()``, a
checkpoint that must exist, and two packages that need not be installed.
"""

from pathlib import Path

FILES = {
    'configs/release/vqgan.yaml': """
        model:
          params: {embed_dim: 4, n_embed: 8, ddconfig: {channels: 4, stride: 16}}
    """,
    'image_synthesis/taming/models/vqgan.py': """
        import pytorch_lightning as pl
        import torch
        from torch import nn

        class VQModel(pl.LightningModule):
            def __init__(self, ddconfig, n_embed, embed_dim):
                super().__init__()
                self.encoder = nn.Conv2d(3, ddconfig['channels'], ddconfig['stride'], ddconfig['stride'])
                self.decoder = nn.ConvTranspose2d(embed_dim, 3, ddconfig['stride'], ddconfig['stride'])
                self.codes = nn.Embedding(n_embed, embed_dim)

            def encode(self, x):
                latents = self.encoder(x)
                distances = torch.cdist(latents.flatten(2).transpose(1, 2), self.codes.weight[None])
                return latents, distances.argmin(-1)

            def decode(self, latents):
                return self.decoder(latents)
    """,
    'util/misc.py': """
        NAME = 'util of the published code'
    """,
    'modeling/__init__.py': """
        from modeling.encoders.models_addp import addp_vit_base_patch16
    """,
    'modeling/utils.py': """
        def save_imgs(images, paths, args):
            raise OSError('nothing may be written')
    """,
    'modeling/encoders/models_addp.py': """
        import torch
        from omegaconf import OmegaConf
        from torch import nn

        from image_synthesis.taming.models.vqgan import VQModel

        class Predictor(nn.Module):
            def __init__(self):
                super().__init__()
                self.words = nn.Embedding(8, 8)

            def sample_tokens(self, ids):
                return self.words(ids).softmax(-1)

        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 8)

            def forward(self, x):
                return self.fc(x)

        class Model(nn.Module):
            def __init__(self, norm_pix_loss, args):
                super().__init__()
                settings = OmegaConf.load('./configs/release/vqgan.yaml').model.params
                self.vqgan = VQModel(settings.ddconfig, settings.n_embed, settings.embed_dim).requires_grad_(False)
                self.token_predictor = Predictor().requires_grad_(False)
                weights = torch.load(args.token_predictor_ckpt, map_location='cpu')
                self.token_predictor.load_state_dict(weights['model'], strict=False)
                self.patches = nn.Conv2d(3, 6, 16, 16)
                self.block = nn.Linear(6, 6)
                self.mlm_layer = Layer()
                self.smoothing = args.label_smoothing

            @torch.no_grad()
            def vq_encode(self, x):
                latents, ids = self.vqgan.encode(x)
                return ids, latents

            def generate_mask_mlp_tokens(self, x, mask):
                mask = torch.cat([torch.zeros(len(x), 1).cuda(), mask], dim=1)
                return self.patches(x).flatten(2).transpose(1, 2), mask

            def forward_online_encoder(self, x):
                return self.block(x)

            def forward_decoder(self, x, ids, mask):
                return self.mlm_layer(x)

            def forward_loss(self, target, logits):
                return -(target * logits.log_softmax(-1)).sum(-1).mean()

            def forward(self, x):
                ids, latents = self.vq_encode(x)
                target = self.token_predictor.sample_tokens(ids)
                with torch.no_grad():
                    noisy = self.vqgan.decode(latents)
                x, mask = self.generate_mask_mlp_tokens(noisy, torch.ones(ids.shape))
                loss = self.forward_loss(target, self.forward_decoder(self.forward_online_encoder(x), ids, mask))
                return loss, {'loss': loss.item()}

        def addp_vit_base_patch16(**kwargs):
            return Model(**kwargs)
    """,
    'engine_generate.py': """
        import torch

        import util.misc as misc
        from modeling.utils import save_imgs

        @torch.no_grad()
        def masked_generate_multi_step_addp(model, data_loader_val, device, args):
            print(misc.NAME)
            model.eval()
            model = model.module
            for images, labels, paths in data_loader_val:
                ids, latents = model.vq_encode(images.to(device))
                for step in range(args.num_iteration):
                    x, mask = model.generate_mask_mlp_tokens(images, torch.ones(ids.shape))
                    ids = model.forward_decoder(model.forward_online_encoder(x), ids, mask).argmax(-1)
                    side = int(ids.shape[1] ** 0.5)
                    codes = model.vqgan.codes(ids).transpose(1, 2)
                    images = model.vqgan.decode(codes.unflatten(2, (side, side)))
                save_imgs(images, paths, args=args)
    """,
}


def write_published_layout(folder: Path) -> Path:
    """Write the files; returns the folder."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip('\n').splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        path.write_text('\n'.join(line[indent:] for line in lines) + '\n')
    return folder
