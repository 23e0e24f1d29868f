import pytest
import torch
import torch.nn.functional as F
from model.reference import randomise
from transformers import ConvNextV2Config, UperNetConfig, UperNetForSemanticSegmentation

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.model.upernet import (
    IGNORED,
    BatchNorm,
    Segmentor,
    build_norm,
    cell_weights,
    pixel_cross_entropy,
    segmentation_loss,
)

DEPTHS, DIMS, CLASSES, CHANNELS = (1, 1, 2, 1), (8, 16, 24, 32), 5, 16


def segmentor(**arguments: object) -> Segmentor:
    torch.manual_seed(0)
    encoder = ConvNeXtV2(DEPTHS, DIMS, num_classes=None)
    network = randomise(Segmentor(encoder, CLASSES, channels=CHANNELS, **arguments))
    generator = torch.Generator().manual_seed(1)
    for name, buffer in network.named_buffers():
        drawn = torch.rand(buffer.shape, generator=generator)
        buffer.copy_(drawn + 0.5 if name.endswith("var") else drawn)
    return network


def as_transformers(name: str) -> str:
    for ours, theirs in (
        ("pyramid.norms.", "backbone.hidden_states_norms.stage"),
        ("pyramid.encoder.downsample_layers.0.0", "backbone.embeddings.patch_embeddings"),
        ("pyramid.encoder.downsample_layers.0.1", "backbone.embeddings.layernorm"),
    ):
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            if theirs.endswith("stage"):
                rest = f"{int(rest[0]) + 1}{rest[1:]}"
            return theirs + rest
    if name.startswith("pyramid.encoder.downsample_layers."):
        stage, layer, kind = name.split(".")[3:]
        return f"backbone.encoder.stages.{stage}.downsampling_layer.{layer}.{kind}"
    if name.startswith("pyramid.encoder.stages."):
        stage, block, *rest = name.split(".")[3:]
        inner = ".".join(rest).replace("norm.", "layernorm.")
        inner = inner.replace("grn.gamma", "grn.weight").replace("grn.beta", "grn.bias")
        return f"backbone.encoder.stages.{stage}.layers.{block}.{inner}"
    return name.replace(".norm.", ".batch_norm.").replace("conv_seg", "classifier")


def peer(ours: Segmentor) -> UperNetForSemanticSegmentation:
    """transformers' network with the weights of ours."""
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextV2Config(
        depths=list(DEPTHS), hidden_sizes=list(DIMS), layer_norm_eps=1e-6, out_features=stages
    )
    config = UperNetConfig(backbone_config=backbone, hidden_size=CHANNELS, num_labels=CLASSES)
    theirs = UperNetForSemanticSegmentation(config)
    own = theirs.state_dict()
    renamed = {as_transformers(name): tensor for name, tensor in ours.state_dict().items()}
    spare = {name for name in own if name.endswith("num_batches_tracked")}
    assert renamed.keys() == own.keys() - spare
    theirs.load_state_dict(
        {name: tensor.view(own[name].shape) for name, tensor in renamed.items()}, strict=False
    )
    return theirs


@pytest.mark.parametrize("size", [(64, 96), (80, 72)])
def test_logits_and_loss_equal_those_of_transformers(size: tuple[int, int]) -> None:
    ours = segmentor().eval()
    theirs = peer(ours).eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    targets = torch.randint(0, CLASSES, (2, *size), generator=torch.Generator().manual_seed(3))
    targets[:, :9] = IGNORED
    with torch.no_grad():
        logits = F.interpolate(ours(images), size, mode="bilinear")
        maps = ours.pyramid(images)
        auxiliary = ours.auxiliary_head(maps[2])
        loss = segmentation_loss(ours(images), auxiliary, targets)
        expected = theirs(images, labels=targets.where(targets >= 0, 255))
    assert (logits - expected.logits).abs().max() <= 1e-5 * expected.logits.abs().max()
    # theirs is the mean over the pixels that count, ours over all pixels
    share = (targets >= 0).float().mean()
    assert loss.item() == pytest.approx((expected.loss * share).item(), rel=1e-6)


def test_gradients_in_training_equal_those_of_transformers() -> None:
    ours = segmentor(dropout=0.0).double().train()
    theirs = peer(ours).double().train()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (2, 64, 64))
    logits, auxiliary = ours(images)
    # `pixel_cross_entropy` computes in float32, so the sums here are written out
    for each, weight in ((logits, 1.0), (auxiliary, 0.4)):
        enlarged = F.interpolate(each, (64, 64), mode="bilinear")
        (weight * F.cross_entropy(enlarged, targets)).backward(retain_graph=True)
    theirs(images, labels=targets).loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = gradients[as_transformers(name)].view(parameter.shape)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-7, atol=1e-10)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, theirs.state_dict()[as_transformers(name)])


def test_ignored_pixels_count_in_the_mean_with_a_loss_of_zero() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).T.reshape(1, 2, 1, 2)
    targets = torch.tensor([[[0, IGNORED]]])
    one = torch.nn.functional.cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    assert pixel_cross_entropy(logits, targets).item() == pytest.approx(one.item() / 2)
    assert pixel_cross_entropy(logits, torch.full_like(targets, IGNORED)).item() == 0


def test_one_image_of_one_position_can_be_learned_from() -> None:
    """Pooled to 1 x 1 at a batch of one, a map has no variance for a batch norm."""
    network = segmentor().train()
    pooled = network.decode_head.psp_modules[0][1].norm
    before = pooled.running_mean.clone()
    logits, _ = network(torch.randn(1, 3, 32, 32))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert torch.equal(pooled.running_mean, before)
    with pytest.raises(ValueError, match="more than 1 value"):
        torch.nn.BatchNorm2d(4).train()(torch.randn(1, 4, 1, 1))


def test_batch_norm_is_that_of_pytorch_and_has_no_integers() -> None:
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm2d(6)
    for _ in range(3):
        x = torch.randn(4, 6, 5, 5)
        assert torch.equal(ours.train()(x), theirs.train()(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert set(ours.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    again = BatchNorm(6)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.running_var, ours.running_var)


@pytest.mark.parametrize(
    ("channels", "groups"), [(512, 32), (256, 32), (96, 16), (48, 8), (20, 4), (35, 1)]
)
def test_group_norm_has_32_groups_or_as_many_as_have_four_channels(
    channels: int, groups: int
) -> None:
    assert build_norm("group", channels).num_groups == groups


def test_with_group_norm_images_do_not_see_each_other() -> None:
    network = segmentor(norm="group", dropout=0.0).train()
    images = torch.randn(3, 3, 64, 64)
    together = network(images)[0]
    alone = torch.cat([network(image[None])[0] for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not list(network.buffers())


@pytest.mark.parametrize(("positions", "cells"), [(12, 6), (16, 3), (7, 6), (2, 6), (1, 1)])
def test_pooling_by_matrices_is_adaptive_average_pooling(positions: int, cells: int) -> None:
    x = torch.randn(2, 3, positions, positions + 3)
    made = cell_weights(positions, cells) @ x @ cell_weights(positions + 3, cells).T
    torch.testing.assert_close(made, F.adaptive_avg_pool2d(x, cells))


def test_fixed_pooling_changes_no_logits() -> None:
    network, images = segmentor().eval(), torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = network(images)
        network.fix_pooling(96, 160)
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


def test_the_head_has_the_published_number_of_parameters() -> None:
    """UPerNet on ConvNeXt-T has 60 M parameters and 150 classes; V2's GRN adds little."""
    with torch.device("meta"):
        encoder = ConvNeXtV2((3, 3, 9, 3), (96, 192, 384, 768), num_classes=None)
        network = Segmentor(encoder, 150)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(60, abs=0.6)
