"""Predicts the pace of training on several ranks, from that of one device and the link's speed.

Ranks are placed in a ring, and each sends to its neighbour while it receives from the other one.
With n ranks and s bytes, moved through a link of b bytes/s with a delay of d for each message,

- all-reduce (DistributedDataParallel, once in a step) takes 2 (n - 1) (s / n / b + d)
- all-gather and reduce-scatter (`shard`, in every batch) take (n - 1) (s / n / b + d) each

Source: P. Patarasuk and X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of
workstations, 2009. With `shard`, weights are gathered for the forward pass, those of blocks again
for the backward pass, and gradients are reduced and scattered.

Communication overlaps the computation where the device allows it. DistributedDataParallel can
overlap it with the last backward pass, which is two thirds of the computation of a batch. `shard`
can overlap it with all of the computation. The duration of a step thus lies between two bounds: as
much communication as possible is hidden, or none is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from convnextv2.model.layers import Block

BUCKET_BYTES = 25 << 20
"""The size of the buckets in which DistributedDataParallel exchanges gradients, in bytes."""
BACKWARD = 2 / 3
"""The share of a batch's computation that is its backward pass."""


@dataclass(frozen=True)
class Network:
    """The sizes of a network that decide how much is sent.

    Attributes:
        parameters: The number of all trained parameters. They are exchanged in float32.
        in_blocks: The number of trained parameters that are in blocks.
        blocks: The number of blocks.
    """

    parameters: int
    in_blocks: int
    blocks: int


def network_of(model: nn.Module) -> Network:
    """Count the trained parameters of a model, which may be on the meta device."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    inside = sum(p.numel() for block in blocks for p in block.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Network(total, inside, len(blocks))


@dataclass(frozen=True)
class Cluster:
    """The devices that train together.

    Attributes:
        ranks: The number of devices.
        link_gbit: The rate at which the slowest link of the ring can send and receive at the same
            time, in Gbit/s. The link is the network of a node, or the connection of two devices
            within one node.
        message_s: The delay of a message, in seconds.
    """

    ranks: int
    link_gbit: float
    message_s: float = 50e-6

    def seconds(self, traffic: Traffic) -> float:
        """Return the duration of the communication of a step by itself, in seconds."""
        return traffic.bytes_sent * 8 / (self.link_gbit * 1e9) + traffic.messages * self.message_s


@dataclass(frozen=True)
class Traffic:
    """The data that each rank sends in a step.

    Attributes:
        bytes_sent: The number of bytes.
        messages: The number of messages that are sent one after another.
    """

    bytes_sent: float
    messages: int


@dataclass(frozen=True)
class Step:
    """The duration of a step on all ranks together, in seconds.

    Attributes:
        compute_s: The computation.
        communication_s: The communication by itself.
        hidden_s: The largest part of the communication that can overlap the computation.
    """

    compute_s: float
    communication_s: float
    hidden_s: float

    @property
    def least_s(self) -> float:
        """The duration of the step if as much communication as possible is hidden, in seconds."""
        return self.compute_s + self.communication_s - self.hidden_s

    @property
    def most_s(self) -> float:
        """The duration of the step if no communication is hidden, in seconds."""
        return self.compute_s + self.communication_s

    def shares(self) -> tuple[float, float]:
        """Return the share of a step that waits for communication, least and most."""
        exposed = self.communication_s - self.hidden_s
        return exposed / self.least_s, self.communication_s / self.most_s


def traffic_of(network: Network, ranks: int, *, sharded: bool, accumulate: int) -> Traffic:
    """Compute the data that each rank sends in a step.

    Args:
        network: The network.
        ranks: The number of ranks.
        sharded: Whether weights, gradients and moments are shared among the ranks.
        accumulate: Batches in a step.
    """
    hops, share = ranks - 1, (ranks - 1) / ranks
    size = 4 * network.parameters
    if not sharded:
        return Traffic(2 * share * size, 2 * hops * math.ceil(size / BUCKET_BYTES))
    gathered_again = 4 * network.in_blocks
    collectives = 3 * network.blocks + 2  # the rest of the network is gathered once
    return Traffic(
        share * (2 * size + gathered_again) * accumulate, hops * collectives * accumulate
    )


def step_of(
    network: Network,
    cluster: Cluster,
    *,
    batch_size: int,
    accumulate: int,
    images_per_second: float,
    sharded: bool,
) -> Step:
    """Predict the duration of a step.

    Args:
        network: The network.
        cluster: The devices.
        batch_size: Images in a batch of one rank.
        accumulate: Batches in a step of one rank.
        images_per_second: The pace of one device by itself.
        sharded: Whether weights, gradients and moments are shared among the ranks.
    """
    batch_s = batch_size / images_per_second
    compute_s = accumulate * batch_s
    traffic = traffic_of(network, cluster.ranks, sharded=sharded, accumulate=accumulate)
    communication_s = cluster.seconds(traffic)
    beside = compute_s if sharded else BACKWARD * batch_s
    return Step(compute_s, communication_s, min(communication_s, beside))
