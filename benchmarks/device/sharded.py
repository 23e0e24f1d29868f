"""Steps of models that are sharded (FSDP2) over this one device."""

from __future__ import annotations

import tempfile

import torch
import torch.distributed as dist
from bench import Bench, Row, first_line
from steps import Step, paced, randomise, step_of
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from convnextv2.distributed import Place
from convnextv2.model.fcmae import FCMAE
from convnextv2.model.upernet import Segmentor, segmentation_loss
from convnextv2.training.shard import shard_model


def shard(bench: Bench) -> list[Row]:
    """Shard models over this one device: what they compute and how long a step takes."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    place, rows = Place(bench.device), []
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "gloo" if bench.interpret else "nccl",
            init_method=f"file://{folder}/meeting",
            rank=0,
            world_size=1,
        )
        try:
            for name, build in (("FCMAE tiny", _fcmae_loss), ("UPerNet atto, BN", _segment_loss)):
                losses: dict[str, float] = {}
                for way in ("whole", "sharded", "gathered in bfloat16"):
                    row: Row = {"model": name, "way": way}
                    try:
                        model, loss_of, images = build(bench)
                        if way == "sharded":
                            shard_model(model, place)
                        elif way != "whole":
                            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
                            mesh = init_device_mesh(bench.device.type, (1,))
                            for norm in list(model.modules()):
                                if isinstance(norm, nn.BatchNorm2d):  # needs all in one dtype
                                    fully_shard(norm, mesh=mesh)
                            fully_shard(model, mesh=mesh, mp_policy=policy)
                        with bench.peak() as memory:
                            row |= paced(bench, step_of(bench, model, loss_of), images)
                        row["GiB"] = memory[0] if memory else 0.0
                        losses[way] = row["loss"]
                        row["apart"] = abs(row["loss"] / losses["whole"] - 1)
                        row["right"] = row["apart"] < (1e-2 if "bfloat16" in way else 1e-3)
                    except Exception as error:  # one way may fail where the others do not
                        row |= {"failure": first_line(error), "right": False}
                    rows.append(row)
        finally:
            dist.destroy_process_group()
    return rows


def _fcmae_loss(bench: Bench) -> tuple[nn.Module, Step, int]:
    model = FCMAE(bench.network("tiny", None), decoder_dim=8 if bench.interpret else 512)
    randomise(model.to(bench.device))
    batch = bench.batch(64)
    return model, lambda: model(*batch), len(batch[0])


def _segment_loss(bench: Bench) -> tuple[nn.Module, Step, int]:
    torch.manual_seed(0)
    model = Segmentor(bench.network("atto", None), 7, channels=16, dropout=0.0).to(bench.device)
    pixels, _, _ = bench.batch(16)
    targets = torch.randint(7, (len(pixels), *pixels.shape[-2:])).to(bench.device)

    def loss() -> Tensor:
        return segmentation_loss(*model(pixels), targets)

    return model, loss, len(pixels)
