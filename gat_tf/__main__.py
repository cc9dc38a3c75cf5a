"""Lists and starts every command: `gat-tf`, or `python -m gat_tf`."""

from __future__ import annotations

import ast
import pathlib
import runpy
import sys

COMMANDS = (
    "robustness",
    "experiments.table2",
    "experiments.fig2",
    "experiments.fig3",
    "experiments.fig4",
    "experiments.robustness",
    *(
        f"experiments.robgan.{name}"
        for name in ("table1", "fig2", "fig6", "fig7", "fig8", "robustness")
    ),
    "experiments.record",
    "experiments.publish",
)


def main() -> None:
    """Starts the command that the first argument names, with the others; without one, lists all."""
    name = sys.argv[1] if len(sys.argv) > 1 else None
    if name not in COMMANDS:
        if name not in (None, "--help", "-h"):
            sys.exit(f"Expected one of {', '.join(COMMANDS)}. Received: {name}")
        print("Usage: gat-tf COMMAND [--help] [flags]\n")
        for command in COMMANDS:
            print(f"  {command:28} {_about(command)}")
        return
    sys.argv = [f"gat-tf {name}", *sys.argv[2:]]
    runpy.run_module(f"gat_tf.{name}", run_name="__main__", alter_sys=True)


def _about(command: str) -> str:
    """The first line of a command's docstring, without importing it."""
    path = pathlib.Path(__file__).parent / command.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").split("\n")[0]


if __name__ == "__main__":
    main()
