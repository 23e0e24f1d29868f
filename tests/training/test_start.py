"""A run that cannot start says what to do instead."""

from pathlib import Path

import pytest

from convnextv2.errors import RunError
from convnextv2.recipe.knobs import Recipe
from convnextv2.training.start import Way, decide, make_folder


@pytest.mark.parametrize("resume", [True, "auto"])
def test_a_run_without_checkpoints_advises_what_keeps_its_weights(
    resume: bool | str, tmp_path: Path
) -> None:
    (tmp_path / "last").mkdir()
    recipe = Recipe(resume=resume)
    with pytest.raises(RunError) as error:
        make_folder(decide(recipe, tmp_path)[0], tmp_path, Way.RESUME)
    message = str(error.value)
    assert message.startswith(f"resume = {resume}: ") and f"--init {tmp_path} and" in message


def test_a_folder_without_any_weights_may_be_started_anew(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="or use resume: auto, which does either"):
        make_folder(Recipe(resume=True), tmp_path, Way.RESUME)
    assert decide(Recipe(resume="auto"), tmp_path)[1] is Way.SCRATCH
