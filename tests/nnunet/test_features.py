import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn

from ccdcseg.errors import UserError
from ccdcseg.nnunet.features import tap_decoder, tapped_channels


def build(kind: type[nn.Module] = PlainConvUNet, deep_supervision: bool = True) -> nn.Module:
    torch.manual_seed(0)
    blocks = {"n_conv_per_stage": 1} if kind is PlainConvUNet else {"n_blocks_per_stage": 1}
    return kind(
        input_channels=1,
        n_stages=4,
        features_per_stage=(4, 6, 8, 10),
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2),
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        nonlin=nn.LeakyReLU,
        deep_supervision=deep_supervision,
        **blocks,
    )


def captured(network: nn.Module, stage: int, image: Tensor) -> Tensor:
    """Output of a decoder stage, by a hook on an untouched network."""
    kept: list[Tensor] = []
    handle = network.decoder.stages[len(network.decoder.stages) - 1 - stage].register_forward_hook(
        lambda _module, _inputs, output: kept.append(output)
    )
    network(image)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_outputs_and_features_are_the_plain_networks(kind, stage, deep_supervision):
    image = torch.randn(2, 1, 32, 24)
    plain = build(kind, deep_supervision).train()
    tapped = tap_decoder(build(kind, deep_supervision), stage).train()
    assert plain.state_dict().keys() == tapped.state_dict().keys()
    expected = plain(image)
    outputs, features = tapped(image)
    if not deep_supervision:
        expected, outputs = [expected], [outputs]
    assert len(outputs) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert torch.equal(features, captured(plain, stage, image))
    assert features.shape[1] == tapped_channels(tapped) == (4, 6, 8)[stage]
    assert features.shape[2:] == (32 // 2**stage, 24 // 2**stage)


def test_plain_in_evaluation():
    image = torch.randn(1, 1, 16, 16)
    plain, tapped = build().eval(), tap_decoder(build(), 0).eval()
    assert all(torch.equal(a, b) for a, b in zip(plain(image), tapped(image), strict=True))


@pytest.mark.parametrize("stage", [3, -1])
def test_no_such_stage(stage):
    with pytest.raises(UserError, match=rf"decoder_stage is {stage}.*between 0.*and 2"):
        tap_decoder(build(), stage)


def test_another_stage_of_the_same_network():
    network = tap_decoder(tap_decoder(build(), 0), 1)
    assert tapped_channels(network) == 6


def test_no_such_decoder():
    with pytest.raises(UserError, match="Sequential"):
        tap_decoder(nn.Sequential(nn.Conv2d(1, 1, 1)), 0)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler itself
@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_a_compiled_network_is_one_graph_and_the_same(kind):
    """With ``fullgraph`` any break of the graph is an error."""
    torch.compiler.reset()
    image, found = torch.randn(2, 1, 16, 16), []
    for compiled in (False, True):
        network = tap_decoder(build(kind), 0).train()
        call = torch.compile(network, backend="aot_eager", fullgraph=True) if compiled else network
        outputs, features = call(image)
        sum(part.square().mean() for part in (*outputs, features)).backward()
        found.append([*outputs, features, *(p.grad for p in network.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0])
