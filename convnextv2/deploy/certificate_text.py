"""Writes a certificate as a few lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convnextv2.deploy.certificate import TITLES


def classifier_summary(found: Mapping[str, Any]) -> str:
    """Write the certificate of a classifier or an encoder; see `certificate.certify`."""
    lines = []
    for what, title in TITLES.items():
        if part := found.get(what):
            agrees = (
                f"; top-1 agrees on {part['top1_agreement']:.2%}"
                if "top1_agreement" in part
                else ""
            )
            if "labels_agreement" in part:
                agrees = (
                    f"; probabilities differ by at most {part['probs']['max_difference']:.2g}; "
                    f"{part['labels_agreement']:.2%} of the labels agree"
                )
            lines.append(
                f"{title:<12} {part['images']:4} images: {_differences(found['output'], part)}"
                f"{agrees}."
            )
    if accuracy := found.get("accuracy"):
        lines.append(
            f"top-1        PyTorch {accuracy['pytorch_top1']:.2%}, "
            f"artifact {accuracy['artifact_top1']:.2%}."
        )
    if labels := found.get("labels"):
        lines.append(
            f"F1 (micro)   PyTorch {labels['pytorch_f1_micro']:.2%}, "
            f"artifact {labels['artifact_f1_micro']:.2%}."
        )
    speed = found["speed"]
    lines.append(
        f"images/s     PyTorch {speed['pytorch_images_per_second']:.1f}, "
        f"artifact {speed['artifact_images_per_second']:.1f} "
        f"({speed['ratio']:.2f} times), batch {speed['batch']}, threads: {speed['threads']}."
    )
    return "\n".join(lines)


def dense_summary(found: Mapping[str, Any]) -> str:
    """Write the certificate of a segmentor or a detector."""
    lines = []
    for what, title in TITLES.items():
        if part := found.get(what):
            differences = _differences(found["output"], part)
            lines.append(f"{title:<12} {part['images']:4} images: {differences}.")
    if pixels := found.get("pixels"):
        lines.append(
            f"pixels       {pixels['images']:4} images: {pixels['equal']:.4%} get the same class."
        )
    if objects := found.get("objects"):
        line = (
            f"objects      {objects['images']:4} images: {objects['found_by_both']} of "
            f"{objects['objects']} are found by both"
        )
        if objects["found_by_both"]:
            line += (
                f"; boxes move by at most {objects['largest_shift_px']:.2g} px, scores by "
                f"{objects['largest_score_difference']:.2g}"
            )
            if objects["least_mask_iou"] is not None:
                line += f"; masks overlap by at least {objects['least_mask_iou']:.2%}"
        lines.append(f"{line}.")
    if miou := found.get("miou"):
        lines.append(
            f"mIoU         PyTorch {miou['pytorch_miou']:.2%}, "
            f"artifact {miou['artifact_miou']:.2%}."
        )
    ap = found.get("ap", {})
    if ap.get("pytorch_ap") is not None:
        lines.append(
            f"AP           PyTorch {ap['pytorch_ap']:.2%}, artifact {ap['artifact_ap']:.2%}."
        )
    speed = found["speed"]
    lines.append(
        f"images/s     PyTorch {speed['pytorch_images_per_second']:.2f}, artifact "
        f"{speed['artifact_images_per_second']:.2f} ({speed['ratio']:.2f} times), batch "
        f"{speed['batch']}, threads: {speed['threads']}."
    )
    return "\n".join(lines)


def _differences(output: str, part: Mapping[str, Any]) -> str:
    """Write how far an output of the artifact is from that of the model.

    The largest output gives the differences their proportion; see "scale" in
    `certificate.agreement`.
    """
    return (
        f"largest difference of the {output} {part['max_difference']:.2g}, mean "
        f"{part['mean_difference']:.2g}, where the largest output is {part['scale']:.3g}"
    )
