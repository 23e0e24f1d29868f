"""The errors of the package, and the tree of them that is drawn at the top of their module."""

import inspect
import pickle
import re
import signal

import pytest

from convnextv2 import errors


def test_the_drawn_tree_is_that_of_the_classes() -> None:
    """Each error is drawn under its base, and nothing is drawn that does not exist."""
    drawn = re.findall(r"^([│ ]*)[├└]── (\w+)", errors.__doc__, re.MULTILINE)
    bases, branch = {}, ["ConvNeXtV2Error"]
    for margin, name in drawn:
        branch[len(margin) // 4 + 1 :] = [name]
        bases[name] = branch[-2]
    defined = {
        name: error.__base__.__name__
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.ConvNeXtV2Error)
    }
    assert defined.pop("ConvNeXtV2Error") == "ValueError"
    assert len(drawn) == len(bases) >= 13
    assert bases == defined


def test_a_missing_package_is_named_with_the_versions_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stated = [
        "torch>=2.7",
        "uvicorn<0.55,>=0.45; extra == 'serve'",
        "python-multipart>=0.0.27 ; extra == 'serve'",
    ]
    monkeypatch.setattr(errors, "requires", lambda name: stated)
    said = str(errors.MissingPackageError("uvicorn", "serve"))
    remedy = "(or the whole extra, in the project's checkout: pip install '.[serve]')"
    assert (
        said
        == f"uvicorn is not installed. Install it with: pip install 'uvicorn<0.55,>=0.45' {remedy}"
    )
    assert "pip install 'python-multipart>=0.0.27' (" in str(
        errors.MissingPackageError("python_multipart", "serve")
    )
    monkeypatch.setattr(errors, "requires", lambda name: None)
    assert "pip install nncf (" in str(errors.MissingPackageError("nncf", "export"))


@pytest.mark.parametrize(
    "error",
    [
        error
        for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, BaseException)
    ],
)
def test_every_error_comes_whole_from_a_worker_process(error: type[BaseException]) -> None:
    arguments = {
        "ChannelsError": ("a.tif has 5 channels", 5),
        "MissingPackageError": ("pyarrow", "data"),
        "Ended": (signal.SIGTERM,),
    }.get(error.__name__, ("what was wrong",))
    raised = error(*arguments)
    received = pickle.loads(pickle.dumps(raised))
    assert type(received) is error and str(received) == str(raised)
    assert vars(received) == vars(raised)
