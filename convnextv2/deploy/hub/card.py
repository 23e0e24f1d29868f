"""Write the model card: README.md with its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from convnextv2.deploy.hub.licence import is_known
from convnextv2.preprocessing import Preprocessing
from convnextv2.text import plain

_METRICS = {
    "top1": ("accuracy", "Top-1 accuracy"),
    "top5": ("top_5_accuracy", "Top-5 accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "map": ("mean_average_precision", "Mean average precision"),
}
"""The Hub's type of the metric and its readable name, by the figure of an evaluation."""
_MAX_NAMED = 20


@dataclass(frozen=True)
class CardFacts:
    """The content of a model card.

    Attributes:
        repository: OWNER/NAME.
        model: The size, such as convnextv2_tiny.
        library: transformers or timm.
        class_names: The classes; empty for an encoder.
        preprocessing: How images are prepared.
        figures: The figures measured on the validation images, by name.
        data: The name of the data of these images; empty if it is unknown.
        licence: The identifier of the licence; empty if nothing is known.
        notice: The notice that the licence requires.
        base_model: The repository that training started from; empty if there is none.
        origins: Lines about the weights from which these were made.
        has_onnx: Whether there are ONNX files for transformers.js.
        onnx_line: A line about the agreement of these files with the model.
        about: The purpose of the model, in the user's words.
        made_with: The version of this package.
    """

    repository: str
    model: str
    library: str
    class_names: Sequence[str]
    preprocessing: Preprocessing
    figures: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    licence: str = ""
    notice: str = ""
    base_model: str = ""
    origins: Sequence[str] = ()
    has_onnx: bool = False
    onnx_line: str = ""
    about: str = ""
    made_with: str = ""

    @property
    def name(self) -> str:
        """The name without the owner."""
        return self.repository.rpartition("/")[2]

    @property
    def metrics(self) -> list[tuple[str, str, float]]:
        """Type, name and value of each figure for which the Hub has a type."""
        return [
            (*_METRICS[name], float(self.figures[name]))
            for name in _METRICS
            if isinstance(self.figures.get(name), int | float)
        ]


def write_card(facts: CardFacts) -> str:
    """Return the text of README.md.

    Args:
        facts: The content of the card.

    Returns:
        The metadata as YAML between two lines of ---, and the text as Markdown.
    """
    head = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=1000)
    sections = [
        f"# {facts.name}",
        _summary(facts),
        "## What it is for",
        facts.about.strip() or _UNSTATED,
        *[_CLASSIFIES] * bool(facts.class_names),
        "## How to use it",
        *_uses(facts),
        *_measured(facts),
        "## How images are prepared",
        _preprocessing(facts.preprocessing),
        "## Licence and origin",
        *_licence(facts),
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(sections) + "\n"


_UNSTATED = "The author has not stated an intended use."
_CLASSIFIES = (
    "It assigns one of its classes to every image, even to images that show none of them. The "
    "figures apply to images like those it was validated on, and say nothing about others. Try it "
    "on your own images before you rely on it."
)


def metadata(facts: CardFacts) -> dict[str, Any]:
    """Return the metadata of a card, which the Hub reads.

    Args:
        facts: The content of the card.
    """
    task = "image-classification" if facts.class_names else "image-feature-extraction"
    content: dict[str, Any] = {}
    if facts.licence:
        content["license"] = facts.licence if is_known(facts.licence) else "other"
    if content.get("license") == "other":
        named = facts.licence != "other"
        content["license_name"] = facts.licence if named else "see-licence-and-origin"
        content["license_link"] = "README.md"
    content |= {"library_name": facts.library, "pipeline_tag": task}
    content["tags"] = ["convnextv2", *["transformers.js", "onnx"] * facts.has_onnx]
    if facts.base_model:
        content |= {"base_model": facts.base_model, "base_model_relation": "finetune"}
    if not facts.metrics:
        return content
    content["metrics"] = [kind for kind, _, _ in facts.metrics]
    result = {
        "task": {"type": task, "name": "Image classification"},
        "dataset": {
            "name": facts.data or "validation images",
            "type": "imagefolder",
            "split": "validation",
        },
        "metrics": [
            {"type": kind, "name": name, "value": value} for kind, name, value in facts.metrics
        ],
    }
    return content | {"model-index": [{"name": facts.name, "results": [result]}]}


def _summary(facts: CardFacts) -> str:
    size = "ConvNeXt V2"
    if facts.model != "custom":
        size += f" ({facts.model.removeprefix('convnextv2_')})"
    if not facts.class_names:
        return f"The encoder of a {size}: it turns images into features and has no classes."
    named = ", ".join(_text(name) for name in facts.class_names[:_MAX_NAMED])
    more = len(facts.class_names) - _MAX_NAMED
    rest = f" and {more:,} more, which `config.json` lists" if more > 0 else ""
    count = len(facts.class_names)
    return f"A {size} that distinguishes {count:,} classes of images: {named}{rest}."


def _uses(facts: CardFacts) -> list[str]:
    name = facts.repository
    if facts.library == "timm":
        lines = [
            "import timm",
            f'model = timm.create_model("hf-hub:{name}", pretrained=True).eval()',
            "prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
        ]
    elif facts.class_names:
        lines = [
            "from transformers import pipeline",
            f'classify = pipeline("image-classification", model="{name}")',
            'print(classify("photo.jpg"))',
        ]
    else:
        lines = [
            "from transformers import AutoImageProcessor, AutoModel",
            f'prepare = AutoImageProcessor.from_pretrained("{name}")',
            f'model = AutoModel.from_pretrained("{name}")',
        ]
    verb = "predict" if facts.class_names else "embed"
    parts = ["```python\n" + "\n".join(lines) + "\n```"]
    if facts.has_onnx:
        script = [
            'import { pipeline } from "@huggingface/transformers";',
            f'const classify = await pipeline("image-classification", "{name}");',
            'console.log(await classify("photo.jpg"));',
        ]
        parts.append("In a browser or in Node:")
        parts.append("```js\n" + "\n".join(script) + "\n```")
        parts.append(facts.onnx_line)
    parts.append(f"With convnextv2: `convnextv2 {verb} {name} photo.jpg`")
    return parts


def _measured(facts: CardFacts) -> list[str]:
    if not facts.metrics:
        return []
    where = f" of {_text(facts.data)}" if facts.data else ""
    rows = "\n".join(f"| {name} | {value:.4f} |" for _, name, value in facts.metrics)
    return [
        "## What was measured",
        f"On the validation images{where}, which also decided which epoch was kept:",
        f"| figure | value |\n|---|---|\n{rows}",
    ]


def _preprocessing(how: Preprocessing) -> str:
    height, width = how.image_size
    if how.warps:
        shape = f"Images are resized to {height} x {width} px as a whole ({how.interpolation})."
    else:
        shape = (
            f"Images are resized ({how.interpolation}) so that the centre crop of {height} x "
            f"{width} px keeps {how.crop_pct:g} of the shorter side."
        )
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (how.mean, how.std))
    text = f"{shape} On the scale 0 to 1, mean {mean} and standard deviation {std} are applied."
    if how.value_range:
        low, high = how.value_range
        text += f" In files of more than 8 bits, {low:g} first becomes 0 and {high:g} becomes 1."
    return text


def _licence(facts: CardFacts) -> list[str]:
    parts = []
    if facts.licence and facts.licence != "other":
        parts.append(f"Licence: {_text(facts.licence)}.")
    elif not facts.licence:
        parts.append("No licence is stated; ask the author.")
    parts += [_text(text) for text in (facts.notice, *facts.origins) if text]
    return [*parts, f"Made with convnextv2 {facts.made_with}."]


def _text(text: str) -> str:
    """Escape Markdown and HTML in untrusted text."""
    markup = "\\`*_[]<>|#"
    escaped = (f"\\{letter}" if letter in markup else letter for letter in plain(text))
    return "".join(escaped).replace("&", "&amp;")
