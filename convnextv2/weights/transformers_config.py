"""Reads the configurations of transformers, and reports the values that are not understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convnextv2.weights.containers import Container

SEVERAL_LABELS = "multi_label_classification"
"""The problem_type of transformers for images with any number of labels."""

_MODEL_TYPES = {
    "transformers": "convnextv2",
    "transformers-v1": "convnext",
    "dinov3-v1": "dinov3_convnext",
}
"""The model_type of each format."""

TRANSFORMERS_KNOWN = frozenset(
    """
    model_type architectures num_channels patch_size num_stages hidden_sizes depths hidden_act
    layer_norm_eps initializer_range drop_path_rate image_size id2label label2id num_labels
    problem_type out_features out_indices stage_names torch_dtype dtype transformers_version
    _name_or_path finetuning_task return_dict output_hidden_states output_attentions use_cache
    layer_scale_init_value chunk_size_feed_forward is_encoder_decoder torchscript _commit_hash
    _attn_implementation_autoset tie_word_embeddings use_bfloat16 pruned_heads
    """.split()
)
"""Keys that are read here, that follow from the tensors, or that do not change what the model
computes."""


def transformers_notes(
    key: str, depths: tuple[int, ...], dims: tuple[int, ...], container: Container
) -> list[str]:
    """List the values of a configuration that are wrong or have no effect here, one per line.

    Args:
        key: The format, one of transformers.
        depths: The number of blocks in each stage, from the tensors.
        dims: The number of channels in each stage, from the tensors.
        container: The folder with its configuration.
    """
    config = container.config
    problem = config.get("problem_type")
    notes = []
    if problem not in (None, "single_label_classification", SEVERAL_LABELS):
        notes.append(
            f"problem_type = {ascii(problem)[:60]}: its outputs are not classes, though they are "
            "treated as such here."
        )
    notes += [
        f"config.json: {ascii(name)[:60]} = {ascii(value)[:60]} is not known here, and is ignored."
        for name, value in config.items()
        if name not in TRANSFORMERS_KNOWN and value not in (None, False)
    ]
    return notes + _contradictions(
        config, {"depths": [*depths], "hidden_sizes": [*dims], "model_type": _MODEL_TYPES[key]}
    )


def _contradictions(config: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """List the values of a configuration that contradict the tensors, as lines to print."""
    return [
        f"config.json: {name} = {ascii(config[name])[:60]}, but the tensors are of {value}. The "
        "tensors take precedence."
        for name, value in right.items()
        if config.get(name) not in (None, value)
    ]
