"""What the pages promise: snippets run, links lead somewhere, commands exist."""

import importlib.util
import pathlib
import re
from unittest import mock

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Links to pages elsewhere, such as CONTRIBUTING.md, are tested there.
GUIDES = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if not p.is_symlink()
)
PAGES = ["README.md", "CONTRIBUTING.md", "experiments/README.md", *GUIDES]


def text_of(page):
    return (ROOT / page).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in text_of(page)])
def test_snippets_run_from_top_to_bottom(page, tmp_path, monkeypatch):
    from gat_tf.experiments import methods

    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)
    assert snippets
    scope, compiled = {}, []
    for snippet in snippets:
        # Few steps of small networks are enough to see that it runs.
        short = re.sub(r"\b(epochs|restarts)=\d+", r"\1=1", snippet)
        short = re.sub(r"\b(\w*steps|steps_per_epoch)=\d+", r"\1=2", short)
        short = re.sub(r"\bqueries=\d+", "queries=10", short)
        short = re.sub(r"\bBudget\((?![^)]*hard_label_steps)", "Budget(hard_label_steps=1, ", short)
        short = re.sub(r"\bwidth=1 / 3\b", "width=1 / 12", short)
        compiled.append(compile(short, page, "exec"))
    with mock.patch.dict(methods.METHODS):  # the same one that other modules have imported
        for code in compiled:
            exec(code, scope)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    text = re.sub(r"```diff.*?```", "", text_of(page), flags=re.DOTALL)
    for module in re.findall(r"python -m (gat_tf[\w.]*\w)", text):
        assert importlib.util.find_spec(module), f"{page}: {module}"


def test_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 180
