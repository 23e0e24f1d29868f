"""Helpers of the tests of recipes."""

import pytest


@pytest.fixture
def recipe_file(tmp_path):
    """Return a function that writes a text into mine.yaml and returns its path."""

    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return path

    return write
