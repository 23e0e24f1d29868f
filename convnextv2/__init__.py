"""ConvNeXt V2 from a folder of images to a deployed model.

The verbs are functions with the names and the knobs of the command line:
`convnextv2.train(data_dir="shoes/", out="runs/shoes")`. Nothing heavy is imported until one of them
is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from convnextv2.errors import ConvNeXtV2Error

if TYPE_CHECKING:
    from convnextv2.inference.predictor import Predictor
    from convnextv2.model.convnext import ConvNeXtV2, create_model
    from convnextv2.model.fcmae import FCMAE
    from convnextv2.verbs.audit import audit
    from convnextv2.verbs.benchmark import benchmark
    from convnextv2.verbs.compare import compare
    from convnextv2.verbs.convert import convert
    from convnextv2.verbs.demo import demo
    from convnextv2.verbs.embed import embed
    from convnextv2.verbs.explain import explain
    from convnextv2.verbs.export import export
    from convnextv2.verbs.infer import infer
    from convnextv2.verbs.inspect import inspect
    from convnextv2.verbs.models import models
    from convnextv2.verbs.pack_data import pack_data
    from convnextv2.verbs.plan import plan
    from convnextv2.verbs.predict import predict
    from convnextv2.verbs.pretrain import pretrain
    from convnextv2.verbs.probe import probe
    from convnextv2.verbs.push import push
    from convnextv2.verbs.recipes import recipes
    from convnextv2.verbs.reconstruct import reconstruct
    from convnextv2.verbs.replay import replay
    from convnextv2.verbs.serve import serve
    from convnextv2.verbs.statistics import statistics
    from convnextv2.verbs.train import train
    from convnextv2.verbs.validate import validate

__version__ = "0.1.0"

_HOMES = {
    "ConvNeXtV2": "model.convnext",
    "create_model": "model.convnext",
    "FCMAE": "model.fcmae",
    "Predictor": "inference.predictor",
}
"""The modules of the public names that are not verbs. A verb is in the module of its own name."""


__all__ = [
    "ConvNeXtV2",
    "ConvNeXtV2Error",
    "FCMAE",
    "Predictor",
    "audit",
    "benchmark",
    "compare",
    "convert",
    "create_model",
    "demo",
    "embed",
    "explain",
    "export",
    "infer",
    "inspect",
    "models",
    "pack_data",
    "plan",
    "predict",
    "pretrain",
    "probe",
    "push",
    "recipes",
    "reconstruct",
    "replay",
    "serve",
    "statistics",
    "train",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'convnextv2' has no attribute {name!r}")
    return getattr(import_module(f"convnextv2.{_HOMES.get(name, f'verbs.{name}')}"), name)
