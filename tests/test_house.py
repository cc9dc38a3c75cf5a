"""The house: who may import whom, and how long a file may be."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "gat_tf"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# From the bottom to the top; a room may import those before it, and itself.
ROOMS = [
    ["version", "_keras", "_types", "checks", "imagenet143", "augmentation", "reading"],
    ["logits", "losses", "batching", "shapes"],
    ["gradients", "data"],
    ["attacks", "models"],
    ["evaluation", "plotting"],
    ["training"],
    ["experiments"],
    ["robustness"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
# Inside the experiments: lab knows no experiment, methods and networks none either.
INSIDE = [
    ["lab"],
    ["surrogates", "methods"],
    ["settings"],
    ["networks"],
    ["measuring"],
    ["generators", "curves", "strong"],
    ["table2", "fig2", "fig3", "fig4", "robustness", "robgan"],
    ["record", "publish"],
]
INSIDE_FLOOR = {room: floor for floor, rooms in enumerate(INSIDE) for room in rooms}


@functools.cache
def imports(module):
    """The modules of the package that a module imports, wherever in it."""
    found = set()
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            node.body = []  # these are not imported when the code runs
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gat_tf"):
            found |= {
                f"{node.module}.{name.name}"
                if f"{node.module}.{name.name}" in MODULES
                else node.module
                for name in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("gat_tf")}
    return {name for name in found if name in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_imports_upward(module):
    parts = module.split(".")
    if len(parts) == 1:
        return  # the package itself shows what is in it
    for imported in imports(module):
        theirs = imported.split(".")
        if len(theirs) == 1:
            assert imported == "gat_tf"
            continue
        assert FLOOR[theirs[1]] <= FLOOR[parts[1]], f"{module} imports {imported}"
        if parts[1] == theirs[1] == "experiments" and len(parts) > 2 and len(theirs) > 2:
            inside = INSIDE_FLOOR[theirs[2]], INSIDE_FLOOR[parts[2]]
            assert inside[0] <= inside[1], f"{module} imports {imported}"
            assert inside[0] < inside[1] or theirs[2] == parts[2] or inside[0] < 6, (
                f"experiments do not import each other: {module} imports {imported}"
            )


def test_there_is_no_circle():
    graph = {module: imports(module) - {module} for module in MODULES}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for imported in graph[module]:
            visit(imported)
        path.pop()
        done.add(module)

    for module in graph:
        if MODULES[module].name != "__init__.py":
            visit(module)


def test_files_are_short():
    for path in (PACKAGE / "experiments").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines < 400, f"{path} has {lines} lines"


def test_flags_are_known_in_one_place():
    for module, path in MODULES.items():
        if "absl" in path.read_text():
            assert module == "gat_tf.experiments.lab.flags"


@pytest.mark.slow
def test_importing_the_package_loads_little():
    # Keras itself loads matplotlib where it is installed.
    code = (
        "import sys, keras, tensorflow; before = set(sys.modules); import gat_tf; "
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "gat_tf.training" in loaded
    for heavy in ("tensorflow_datasets", "matplotlib", "gat_tf.plotting", "gat_tf.experiments"):
        assert heavy not in loaded


@pytest.mark.slow
def test_another_backend_is_one_line():
    code = "import keras; keras.config.backend = lambda: 'jax'; import gat_tf"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: gat_tf needs Keras with")
    assert "KERAS_BACKEND=tensorflow" in last


def test_every_experiment_is_a_command(capsys, monkeypatch):
    from gat_tf import __main__ as commands

    with_main = {
        module.removeprefix("gat_tf.").removesuffix(".__main__")
        for module, path in MODULES.items()
        if '__name__ == "__main__"' in path.read_text() and module != "gat_tf.__main__"
    } | {"robustness"}
    assert set(commands.COMMANDS) == with_main
    monkeypatch.setattr(sys, "argv", ["gat-tf"])
    commands.main()
    printed = capsys.readouterr().out
    assert "experiments.table2           Table 2 of the GAT paper" in printed
    monkeypatch.setattr(sys, "argv", ["gat-tf", "table3"])
    with pytest.raises(SystemExit, match=r"Expected one of robustness, .* Received: table3"):
        commands.main()
