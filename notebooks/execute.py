"""Executes notebooks and stores their outputs, with pictures small enough for a repository.

    python notebooks/execute.py figures.ipynb robgan.ipynb

Needs `pip install -e '.[notebooks]'`.
"""

import base64
import io
import pathlib
import sys

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = pathlib.Path(__file__).parent
COLOURS = 56  # of a picture: plots need few, and a third of the space


def small(png: str) -> str:
    """The picture with a palette of few colours; both in base64."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leaves out what differs from run to run, and shrinks the pictures."""
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small(output.data["image/png"])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        notebook = nbformat.read(FOLDER / name, as_version=4)
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": FOLDER}}).execute()
        tidy(notebook)
        nbformat.write(notebook, FOLDER / name)
