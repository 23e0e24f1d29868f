"""Small networks for the tests of weights."""

import torch

from convnextv2.model.convnext import ConvNeXtV2
from convnextv2.weights.description import Description


def network(**arguments) -> ConvNeXtV2:
    """A network of four blocks whose parameters are all random."""
    model = ConvNeXtV2(depths=(1, 1, 1, 1), dims=(4, 8, 12, 16), **arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def describe(model: ConvNeXtV2, **more) -> Description:
    """The description of a classifier."""
    return Description(kind="classifier", model="custom", arguments=model.arguments, **more)
