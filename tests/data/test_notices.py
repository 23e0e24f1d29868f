import pytest

from convnextv2.data.notices import evaluation_notes, left_out_line, none_readable, say_left_out


def test_images_that_are_left_out_are_counted_and_named() -> None:
    assert left_out_line([]) == ""
    assert left_out_line(["b.jpg"]) == "1 image could not be read and was left out: b.jpg."
    names = [f"{i:02}.jpg" for i in range(11)]
    line = left_out_line(names[::-1], "validation image")
    assert line.startswith("11 validation images could not be read and were left out: 00.jpg, ")
    assert line.endswith("09.jpg, ....") and "10.jpg" not in line


def test_no_line_is_printed_if_no_image_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    say_left_out([], "training image")
    assert capsys.readouterr().out == ""
    say_left_out(["b.jpg", "a.jpg"], "training image")
    assert "2 training images could not be read" in capsys.readouterr().out


def test_notes_of_an_evaluation_end_with_what_was_left_out() -> None:
    assert evaluation_notes(("one",), ()) == ["one"]
    first, last = evaluation_notes(("one",), ("a.jpg",))
    assert first == "one" and last.startswith("1 validation image could not be read")


def test_an_error_names_one_of_the_images_that_cannot_be_read() -> None:
    error = none_readable(["a.jpg", "b.jpg"], "training image")
    assert str(error) == "no training image can be read, for example a.jpg."
