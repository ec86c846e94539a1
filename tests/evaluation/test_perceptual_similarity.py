# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest
import torch
from torchvision.models import alexnet

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.errors import UserError
from addp_mm.evaluation import LearnedPerceptualSimilarity


def test_without_the_package_the_error_has_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr('addp_mm.evaluation.perceptual_similarity.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install lpips'):
        LearnedPerceptualSimilarity()
    with pytest.raises(ValueError, match="one of .'alex', 'vgg', 'squeeze'., got 'resnet'"):
        LearnedPerceptualSimilarity('resnet')


def test_lpips_is_that_of_the_package(tmp_path):
    lpips = pytest.importorskip('lpips')
    trunk = alexnet(weights=None)
    torch.save(trunk.state_dict(), tmp_path / 'alexnet.pth')
    theirs = lpips.LPIPS(net='alex', pnet_rand=True, verbose=False)
    for name, weight in theirs.net.named_parameters():
        weight.data = trunk.features.get_parameter(name.partition('.')[2]).data
    images, others = torch.rand(2, 4, 3, 64, 64)
    metric = LearnedPerceptualSimilarity(weights=str(tmp_path / 'alexnet.pth'))
    metric.process({}, [dict(image=x, reconstruction=y) for x, y in zip(images, others, strict=True)])
    with torch.no_grad():
        expected = theirs(2 * images - 1, 2 * others - 1).mean().item()
    assert metric.evaluate(4) == {'reconstruction/lpips[alex]': pytest.approx(expected, rel=1e-5)}
    assert expected > 0.001
    grey = [dict(image=x[:1], reconstruction=y[:1]) for x, y in zip(images, others, strict=True)]
    colour = [{key: image.repeat(3, 1, 1) for key, image in sample.items()} for sample in grey]
    found = []
    for samples in (grey, colour):
        metric.process({}, samples)
        found.append(metric.evaluate(4))
    assert found[0] == pytest.approx(found[1])
    with pytest.raises(ValueError, match='but these have 5 channels'):
        metric.process({}, [dict(image=torch.rand(5, 64, 64), reconstruction=torch.rand(5, 64, 64))])
    with pytest.raises(CheckpointError, match=r'alexnet.pth has no features.2.weight. .*VGG16'):
        LearnedPerceptualSimilarity('vgg', str(tmp_path / 'alexnet.pth'))
    with pytest.raises(CheckpointError, match='the weights for LPIPS cannot be read'):
        LearnedPerceptualSimilarity(weights=str(tmp_path / 'none.pth'))
