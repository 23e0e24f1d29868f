"""The lessons of a student follow from the classes that the teacher knows."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from trees import CLASSES, PREPROCESSING, network, save

from convnextv2.distillation.lessons import Lessons, build_lessons
from convnextv2.distillation.teacher import open_teacher
from convnextv2.errors import RecipeError
from convnextv2.preprocessing import Preprocessing
from convnextv2.recipe.knobs import Recipe

OWN = Preprocessing.read(PREPROCESSING)


def lessons_of(
    folder: Path, classes: list[str], *, names: list[str] = CLASSES, rows: int = 0, **knobs: object
) -> tuple[Lessons, torch.nn.Module, torch.nn.Module]:
    """Return the lessons, the student and the teacher's own network."""
    model = network(seed=1)
    teacher = open_teacher(str(save(model, folder, class_names=names)), torch.device("cpu"), OWN)
    student = network(seed=2, num_classes=rows or len(classes))
    recipe = Recipe(teacher="t", **knobs)
    return build_lessons(recipe, teacher, student, classes, OWN), student, model


def test_soft_labels_are_of_the_same_classes_in_any_order(tmp_path: Path) -> None:
    classes = ["dogwood", "ash", "birch"]  # fewer, and in another order
    lessons, student, model = lessons_of(tmp_path, classes, distill_temperature=2.0)
    images = torch.randn(5, 3, 64, 64)
    with torch.no_grad():
        wanted = (model(images)[:, [3, 0, 1]] / 2).log_softmax(-1)
        own = (student(images) / 2).log_softmax(-1)
    expected = 4 * F.kl_div(own, wanted, reduction="batchmean", log_target=True)
    found = lessons.loss(student, images, lambda logits: pytest.fail("labels do not count"))
    assert found.detach() == pytest.approx(float(expected), rel=1e-5)


def test_features_are_learned_beside_the_labels_if_the_classes_are_others(tmp_path: Path) -> None:
    lessons, student, model = lessons_of(tmp_path, ["elm", "fir"], distill_weight=0.5)
    assert lessons.rows is None and student.projection.weight.shape == (48, 48)
    images, targets = torch.randn(5, 3, 64, 64), torch.tensor([0, 1, 0, 1, 1])
    with torch.no_grad():
        student.projection.bias.normal_()
        wanted = F.layer_norm(model.pool(model.encode(images)), (48,))
        pooled = student.pool(student.encode(images))
        projected = F.linear(pooled, student.projection.weight, student.projection.bias)
        labels = F.cross_entropy(student(images), targets)
    expected = 0.5 * F.mse_loss(projected, wanted) + labels
    found = lessons.loss(student, images, lambda logits: F.cross_entropy(logits, targets))
    assert found.detach() == pytest.approx(float(expected), rel=1e-5)


def test_both_are_added(tmp_path: Path) -> None:
    images, losses = torch.randn(4, 3, 64, 64), {}
    for kind in ("soft", "features", "both"):
        torch.manual_seed(3)
        knobs = {"distill": kind, "task_weight": 1.0}
        lessons, student, _ = lessons_of(tmp_path / kind, CLASSES, **knobs)
        found = lessons.loss(student, images, lambda logits: torch.tensor(0.5))
        losses[kind] = float(found.detach())
    assert losses["both"] == pytest.approx(losses["soft"] + losses["features"] - 0.5, rel=1e-5)


def test_the_teacher_does_not_learn_and_is_no_part_of_the_student(tmp_path: Path) -> None:
    lessons, student, model = lessons_of(tmp_path, CLASSES, distill="both")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0)
    lessons.loss(student.train(), torch.randn(4, 3, 64, 64), torch.sum).backward()
    optimizer.step()
    network = lessons.teacher.answer.network
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not {id(p) for p in network.parameters()} & {id(p) for p in student.parameters()}
    assert all(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.parametrize(
    ("classes", "more", "says"),
    [
        (["ash", "elm"], {"distill": "soft"}, "class 'elm' of the data is not among its 4"),
        (["elm", "fir"], {"distill": "both"}, "it names its classes differently"),
        (CLASSES, {"distill": "soft", "rows": 6}, "num_classes = 6: soft labels need a class"),
        (CLASSES, {"distill": "features", "task_weight": 0}, "the head learns only from"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    classes: list[str], more: dict, says: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=says):
        lessons_of(tmp_path, classes, **more)


def test_a_teacher_of_several_labels_teaches_features(tmp_path: Path) -> None:
    """A softmax over its logits would mean nothing: they are those of independent labels."""
    path = save(network(seed=1), tmp_path, kind="multi_label")
    teacher, student = open_teacher(str(path), torch.device("cpu"), OWN), network(seed=2)
    lessons = build_lessons(Recipe(teacher="t"), teacher, student, CLASSES, OWN)
    assert lessons.rows is None and lessons.features and teacher.class_names == []
    with pytest.raises(RecipeError, match="it has no head that gives each image one class"):
        build_lessons(Recipe(teacher="t", distill="soft"), teacher, student, CLASSES, OWN)


def test_a_guessed_order_of_classes_is_not_taken_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fruits = ["apple", "banana", "cherry", "date"]
    assert lessons_of(tmp_path, fruits, names=[])[0].rows is None
    assert "it does not name its classes" in capsys.readouterr().out
    asked = lessons_of(tmp_path, fruits, names=[], distill="soft")[0]
    assert asked.rows.tolist() == [0, 1, 2, 3]


def test_soft_labels_bring_the_prior_of_the_teacher(tmp_path: Path) -> None:
    own = {"class_counts": [10, 30], "prior": "natural", "done": ""}
    lessons, _, _ = lessons_of(tmp_path, ["birch", "ash"])
    assert lessons.balance(own) == {}  # the teacher does not tell its own
    told = {"class_counts": [1, 2, 3, 4], "prior": [0.1, 0.3, 0.2, 0.4], "done": "x"}
    lessons.teacher.balance.update(told)
    found = lessons.balance(own)
    # ash has 0.1 and birch has 0.3 of the teacher's images; of these two, 1/4 and 3/4.
    assert found["prior"] == pytest.approx([0.75, 0.25]) and found["class_counts"] == [10, 30]
    mixed, _, _ = lessons_of(tmp_path / "mixed", ["birch", "ash"], task_weight=1.0)
    assert mixed.balance(own) == {}
    features, _, _ = lessons_of(tmp_path / "features", ["birch", "ash"], distill="features")
    assert features.balance(own) == own


@pytest.mark.parametrize(
    "knobs", [{"class_weights": "balanced"}, {"logit_adjustment": 1.0}, {"sampling": "sqrt"}]
)
def test_corrections_of_labels_are_refused_with_soft_labels(knobs: dict, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"{next(iter(knobs))} = .*: corrects for"):
        lessons_of(tmp_path / "soft", CLASSES, **knobs)
    lessons_of(tmp_path / "features", CLASSES, distill="features", **knobs)
