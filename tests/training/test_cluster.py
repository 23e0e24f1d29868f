import numpy as np
import pytest
import torch

from convnextv2.model.convnext import ConvNeXtV2, create_model
from convnextv2.training.cluster import Cluster, Network, network_of, step_of, traffic_of


def ring_all_reduce(arrays: list[np.ndarray]) -> tuple[list[np.ndarray], list[int], int]:
    """Run the algorithm by its definition.

    Returns:
        The result of each rank, the bytes that each sent, and the rounds.
    """
    ranks = len(arrays)
    parts = [list(np.array_split(array.copy(), ranks)) for array in arrays]
    sent, rounds = [0] * ranks, 0
    for phase in range(2):
        for turn in range(ranks - 1):
            moving = []
            for rank in range(ranks):
                number = (rank - turn + phase) % ranks
                moving.append((number, parts[rank][number].copy()))
                sent[rank] += moving[-1][1].nbytes
            rounds += 1
            for rank, (number, part) in enumerate(moving):
                neighbour = parts[(rank + 1) % ranks]
                neighbour[number] = part if phase else neighbour[number] + part
    return [np.concatenate(part) for part in parts], sent, rounds


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_gradients_are_as_many_bytes_as_a_ring_sends(ranks: int) -> None:
    gradients = [np.random.default_rng(i).normal(size=1600).astype("f4") for i in range(ranks)]
    results, sent, rounds = ring_all_reduce(gradients)
    for result in results:
        np.testing.assert_allclose(result, np.sum(gradients, axis=0), rtol=1e-4, atol=1e-5)
    traffic = traffic_of(Network(1600, 1000, 4), ranks, sharded=False, accumulate=3)
    assert sent == [traffic.bytes_sent] * ranks and traffic.messages == rounds


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_sharding_gathers_all_weights_those_of_blocks_twice_and_scatters_gradients(
    ranks: int,
) -> None:
    network = Network(parameters=1600, in_blocks=1200, blocks=3)
    traffic = traffic_of(network, ranks, sharded=True, accumulate=2)
    # In a gather, a rank passes on every part but its own; in a reduction, likewise.
    part = 4 / ranks * (ranks - 1)
    assert traffic.bytes_sent == pytest.approx(2 * part * (1600 + 1200 + 1600))
    assert traffic.messages == 2 * (ranks - 1) * (3 * 3 + 2)


def test_a_step_is_bounded_by_what_can_be_hidden() -> None:
    network, cluster = Network(25_000_000, 20_000_000, 18), Cluster(4, 8.0, message_s=0.0)
    arguments = {"batch_size": 10, "accumulate": 2, "images_per_second": 100.0}
    plain = step_of(network, cluster, sharded=False, **arguments)
    # 100 MB of gradients, 1.5 times that is sent at 1 GB/s. A batch takes 0.1 s.
    assert plain.compute_s == pytest.approx(0.2)
    assert plain.communication_s == pytest.approx(0.15)
    assert plain.most_s == pytest.approx(0.35)
    assert plain.least_s == pytest.approx(0.35 - 0.1 * 2 / 3)
    assert plain.shares() == pytest.approx((1 - 0.2 / plain.least_s, 0.15 / 0.35))
    sharded = step_of(network, cluster, sharded=True, **arguments)
    # 0.75 x 2 x (100 + 80 + 100) MB, of which 0.2 s run beside the computation.
    assert sharded.communication_s == pytest.approx(0.42)
    assert sharded.least_s == pytest.approx(0.42)
    alone = step_of(network, Cluster(1, 8.0), sharded=False, **arguments)
    assert (alone.least_s, alone.most_s) == (0.2, 0.2) and alone.shares() == (0, 0)


def test_the_parameters_of_a_network_are_counted_without_memory() -> None:
    with torch.device("meta"):
        model = create_model("convnextv2_huge")
    found = network_of(model)
    assert (found.parameters, found.blocks) == (660_289_640, 36)
    small = ConvNeXtV2((1, 1, 1, 1), (4, 8, 12, 16), num_classes=3)
    for parameter in small.downsample_layers.parameters():
        parameter.requires_grad_(False)
    found, inside = network_of(small), sum(p.numel() for p in small.stages.parameters())
    assert found == Network(inside + 2 * 16 + 3 * 17, inside, 4)
