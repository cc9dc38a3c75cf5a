"""The API reference: every public name is on a page, and its example runs."""

import doctest
import importlib
import inspect
import pathlib
import re

import matplotlib
import pytest
import tensorflow as tf

REFERENCE = pathlib.Path(__file__).parent.parent / "docs" / "reference"
ROOMS = sorted(path.stem for path in REFERENCE.glob("*.md") if path.stem != "index")
WITHOUT_PAPER = {
    "attacks": {"Attack", "GradientAttack", "RandomPerturbation"},
    "training": {"RobustAccuracy"},
    "evaluation": {"accuracy", "class_diversity", "merged"},
    "models": {"sample_batches", "with_fixed_statistics"},
    "gradients": set(),
}


def on_the_page(room):
    """The names, in order; the page has each by the module that defines it."""
    text = (REFERENCE / f"{room}.md").read_text()
    return re.findall(r"^::: gat_tf\.\w+\.(?:\w+\.)?(\w+)$", text, re.MULTILINE)


def room_of(name):
    return importlib.import_module(f"gat_tf.{name}")


NAMES = [f"{room}.{name}" for room in ROOMS for name in on_the_page(room)]


@pytest.fixture(scope="module")
def shared():
    """The names of the reference's first page; eager, because to trace each once costs more."""
    text = (REFERENCE / "index.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    matplotlib.use("agg")
    scope = {}
    tf.config.run_functions_eagerly(True)
    exec(snippet, scope)
    yield scope
    tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the .tf.config:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name, shared, tmp_path, monkeypatch):
    room, attribute = name.split(".")
    documented = getattr(room_of(room), attribute)
    monkeypatch.chdir(tmp_path)
    weights = {key: shared[key].get_weights() for key in ("model", "generator")}
    docstring = inspect.getdoc(documented)
    test = doctest.DocTestParser().get_doctest(docstring, dict(shared), name, None, 0)
    assert test.examples, f"{name} has no example"
    report = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    for key, values in weights.items():  # an example may train what the others share
        shared[key].set_weights(values)
    assert not report, "".join(report)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_on_its_page(room):
    module = room_of(room)
    public = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    assert set(on_the_page(room)) == set(public)


@pytest.mark.parametrize("room", WITHOUT_PAPER)
def test_what_has_a_paper_links_to_it(room):
    without = {
        name
        for name in on_the_page(room)
        if "](https://arxiv.org/abs/" not in inspect.getdoc(getattr(room_of(room), name))
    }
    assert without == WITHOUT_PAPER[room]
