"""The answers of verbs as JSON, each described once.

`--json` prints these to stdout. The documentation's page of answers is generated from the
declarations, and tests compare them with what the verbs print. New versions may add keys, but keep
the names and meanings of the old ones. Numbers that are not finite are null.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from convnextv2.verbs.answers.compared import Comparison, ExplainedAnswers, Probed
from convnextv2.verbs.answers.data import Audited, PackedImages, Statistics
from convnextv2.verbs.answers.predicted import (
    Embedded,
    Predicted,
    PredictedLabels,
    PredictedMap,
    PredictedObjects,
)
from convnextv2.verbs.answers.runs import Benchmarked, Planned, RecipeLine, Replayed
from convnextv2.verbs.answers.validated import (
    Validated,
    ValidatedLabels,
    ValidatedMaps,
    ValidatedObjects,
)
from convnextv2.verbs.answers.weights import (
    Converted,
    Exported,
    Inspected,
    Model,
    PublicWeights,
    Pushed,
)


class Answer(NamedTuple):
    """The form of a verb's answer in JSON.

    Attributes:
        kind: A TypedDict of one of the modules in this folder.
        form: "object", "array" of objects, or "lines" with one object each.
    """

    kind: Any
    form: str = "object"


ANSWERS: dict[str, Answer] = {
    "validate": Answer(Validated),
    "validate with several labels": Answer(ValidatedLabels),
    "validate of a segmentor": Answer(ValidatedMaps),
    "validate of a detector": Answer(ValidatedObjects),
    "predict": Answer(Predicted, "lines"),
    "predict with several labels": Answer(PredictedLabels, "lines"),
    "predict of a segmentor": Answer(PredictedMap, "lines"),
    "predict of a detector": Answer(PredictedObjects, "lines"),
    "compare": Answer(Comparison),
    "embed": Answer(Embedded),
    "probe": Answer(Probed),
    "audit": Answer(Audited),
    "explain": Answer(ExplainedAnswers),
    "pack_data": Answer(PackedImages),
    "export": Answer(Exported),
    "convert": Answer(Converted),
    "push": Answer(Pushed),
    "inspect": Answer(Inspected),
    "replay": Answer(Replayed, "array"),
    "statistics": Answer(Statistics),
    "plan": Answer(Planned),
    "benchmark": Answer(Benchmarked, "array"),
    "models": Answer(Model, "array"),
    "models --weights": Answer(PublicWeights, "array"),
    "recipes": Answer(RecipeLine, "array"),
}
"""The verbs with `--json`, and their answers. Some options and models lead to another answer."""
