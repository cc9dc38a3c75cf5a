"""The list of bugs that the tests must catch: `python -m tests.mutations` makes them."""

import ast
import pathlib
import shlex

import pytest
from mutations import MUTATIONS

TESTS = pathlib.Path(__file__).parent
PACKAGE = TESTS.parent / "gat_tf"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_bug_can_still_be_made(mutation):
    source = (PACKAGE / mutation.file).read_text()
    assert source.count(mutation.text) == 1
    ours, theirs = (ast.dump(ast.parse(text)) for text in (mutation.applied(source), source))
    assert ours != theirs
    file, *options = shlex.split(mutation.tests)
    known = (TESTS / file).read_text()
    assert options == [] or options[0] == "-k"
    for word in {w for o in options[1:] for w in o.split()} - {"or", "and", "not"}:
        assert word in known


def test_every_bug_has_a_name_of_its_own():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names) >= 80


def test_every_room_has_bugs():
    rooms = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("[!_]*.py")}
    rooms -= {"version.py"}
    with_bugs = {pathlib.PurePath(mutation.file).parts[0] for mutation in MUTATIONS}
    assert with_bugs >= rooms


def test_text_that_is_gone_is_named():
    gone = MUTATIONS[0]._replace(text="what nobody wrote")
    with pytest.raises(ValueError, match=r"0 times in gradients.py: 'what nobody wrote'"):
        gone.applied("a = 1\n")
