import numpy as np
import pytest
import torch
from processes import run_program

from convnextv2.data import randomness


def test_a_generator_depends_on_its_key_alone():
    drawn = [torch.rand(3, generator=randomness.generator_for(42, "image", 1, 2)) for _ in range(2)]
    assert torch.equal(*drawn)
    others = [
        (43, "image", 1, 2),
        (42, "order", 1, 2),
        (42, "image", 2, 1),
        (42, "image", 12),
        ("42", "image", 1, 2),
    ]
    seeds = {
        randomness.generator_for(*key).initial_seed() for key in [(42, "image", 1, 2), *others]
    }
    assert len(seeds) == 6
    assert (
        randomness.generator_for(np.int64(42), "image", np.int64(1), 2).initial_seed()
        == randomness.generator_for(42, "image", 1, 2).initial_seed()
    )


def test_a_generator_is_the_same_in_another_process():
    code = (
        "from convnextv2.data.randomness import generator_for; "
        "print(generator_for(7, 'order', 3).initial_seed())"
    )
    _, printed, _ = run_program("-c", code)
    assert int(printed) == randomness.generator_for(7, "order", 3).initial_seed()


def test_draws_have_the_right_distribution():
    generator = randomness.generator_for("distribution")
    draws = torch.tensor([randomness.uniform(generator, -1, 3) for _ in range(4000)])
    assert -1 <= draws.min() and draws.max() < 3 and draws.mean() == pytest.approx(1, abs=0.1)
    logs = torch.tensor([randomness.log_uniform(generator, 0.25, 4) for _ in range(4000)]).log()
    assert logs.mean() == pytest.approx(0, abs=0.1) and logs.abs().max() <= np.log(4) + 1e-6
    assert {randomness.integer(generator, 2, 5) for _ in range(100)} == {2, 3, 4}
    assert np.mean([randomness.happens(generator, 0.3) for _ in range(4000)]) == pytest.approx(
        0.3, abs=0.03
    )
    normals = np.array([randomness.normal(generator, 9, 0.5) for _ in range(4000)])
    assert normals.mean() == pytest.approx(9, abs=0.05) and normals.std() == pytest.approx(
        0.5, abs=0.05
    )
    shares = np.array([randomness.dirichlet(generator, 0.8, 0.8) for _ in range(4000)])
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert np.allclose(shares.sum(1), 1) and shares[:, 0].var() == pytest.approx(
        1 / (4 * 2.6), rel=0.1
    )
