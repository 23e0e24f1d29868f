"""The options of every verb, each declared once with its type, default and help.

This folder does not import torch, so that `--help` is fast. Each verb's function is in a module of
its own in the folder above.
"""

from __future__ import annotations

from convnextv2.recipe.options import Options
from convnextv2.verbs.options.data import AuditOptions, PackDataOptions, StatisticsOptions
from convnextv2.verbs.options.learning import (
    DemoOptions,
    PlanOptions,
    PretrainOptions,
    RecipesOptions,
    ReplayOptions,
    TrainOptions,
)
from convnextv2.verbs.options.measuring import (
    BenchmarkOptions,
    CompareOptions,
    ExplainOptions,
    ProbeOptions,
    ValidateOptions,
)
from convnextv2.verbs.options.predicting import (
    EmbedOptions,
    InferOptions,
    PredictOptions,
    ReconstructOptions,
    ServeOptions,
)
from convnextv2.verbs.options.weights import (
    ConvertOptions,
    ExportOptions,
    InspectOptions,
    ModelsOptions,
    PushOptions,
)

VERBS: dict[str, type[Options]] = {
    options.command: options
    for options in (
        *(PretrainOptions, TrainOptions, ValidateOptions, CompareOptions, PredictOptions),
        *(EmbedOptions, ProbeOptions, AuditOptions, ExplainOptions),
        *(
            PackDataOptions,
            ExportOptions,
            ServeOptions,
            ConvertOptions,
            InspectOptions,
            InferOptions,
            ReconstructOptions,
        ),
        *(ReplayOptions, StatisticsOptions, PlanOptions, BenchmarkOptions, ModelsOptions),
        *(RecipesOptions, DemoOptions, PushOptions),
    )
}
"""The verbs in the order of `--help`."""
