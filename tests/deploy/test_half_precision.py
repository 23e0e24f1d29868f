"""In float16, GRN does not overflow where the usual way to write it does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trees import CLASSES, PREPROCESSING, network, normalised, photographs

from convnextv2.deploy.export import Form, ModelFacts, PixelEvidence, export_artifact
from convnextv2.deploy.formats import check_format, installed_formats, read_files
from convnextv2.deploy.graph import Graph
from convnextv2.errors import ArtifactError
from convnextv2.model.convnext import ConvNeXtV2

pytestmark = pytest.mark.filterwarnings("ignore")  # exporters warn of themselves


class NaiveGRN(nn.Module):
    """GRN as the official code writes it: the norm has the dtype of the activations."""

    def __init__(self, gamma: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(gamma.clone()), nn.Parameter(beta.clone())

    def forward(self, x: Tensor) -> Tensor:
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


def hot(scale: float = 3e4) -> ConvNeXtV2:
    """Make a model in whose first GRN a channel's norm exceeds 65504, float16's largest number.

    The values at single positions stay below it.
    """
    model = network(scale=0.02)
    with torch.no_grad():
        model.stages[0][0].pwconv1.weight *= scale
    return model


def at_its_word(path: Path, images: np.ndarray) -> np.ndarray:
    """Compute the first output of an ONNX file, each operator in the arithmetic that it states.

    ONNX's reference evaluator does so except for layer norm, whose `stash_type` it ignores.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class LayerNormalization(OpRun):
        def _run(self, x, scale, bias, axis=-1, epsilon=1e-5, stash_type=1):
            wide = x.astype({1: np.float32, 10: np.float16}[stash_type])
            centred = wide - wide.mean(axis, keepdims=True)
            normed = centred / np.sqrt((centred**2).mean(axis, keepdims=True) + epsilon)
            return (normed.astype(x.dtype) * scale + bias,)

    return ReferenceEvaluator(str(path), new_ops=[LayerNormalization]).run(
        None, {"images": images}
    )[0]


def reduced_in(path: Path) -> set[str]:
    """Return the dtypes in which an ONNX file computes sums, means and norms."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)
    }
    return {
        onnx.TensorProto.DataType.Name(kinds[node.input[0]])
        for node in graph.node
        if node.op_type.startswith("Reduce")
    }


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_activations_that_overflow_a_naive_grn_in_float16_do_not_overflow_ours(
    format: str, tmp_path: Path
) -> None:
    """An ONNX file is also run in the arithmetic that it states, by `at_its_word`.

    ONNX Runtime computes even naive norms in float32 on CPUs, so it would hide an overflow.
    """
    if format not in installed_formats():
        pytest.skip(f"{format} is not installed")
    images = photographs(4, 128)
    x = normalised(images).float()
    with torch.no_grad():
        expected = hot().double()(x.double()).numpy()
    chosen = check_format(format, "float16")
    found: dict[str, list[np.ndarray]] = {}
    for name in ("ours", "naive"):
        model = hot()
        if name == "naive":
            grn = model.stages[0][0].grn
            model.stages[0][0].grn = NaiveGRN(grn.gamma.data, grn.beta.data)
        path = tmp_path / name / chosen.file
        path.parent.mkdir()
        chosen.write(Graph(model, "classifier").eval(), x[:1], path, "float16", False)
        found[name] = [chosen.open(read_files(path.parent), "float16", 1)(x.numpy())[0]]
        if format == "onnx":
            found[name].append(at_its_word(path, x.numpy()))
            assert (name == "ours") == (reduced_in(path) == {"FLOAT"})
    assert not np.isfinite(found["naive"][-1]).all()  # so the case is one
    for ours in found["ours"]:
        assert np.abs(ours - expected).max() < 1e-2 * np.abs(expected).max()


def test_a_model_that_overflows_all_the_same_is_not_exported(tmp_path: Path) -> None:
    model = hot(1e8)
    evidence = PixelEvidence(photographs(4), None, "made", 4, 0.1)
    with pytest.raises(ArtifactError, match="precision = float16.*NaN or infinity.*Use float32"):
        export_artifact(
            model, Form("torch", "float16"), tmp_path / "a", evidence,
            ModelFacts(PREPROCESSING, CLASSES, "custom", {}, ""),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
