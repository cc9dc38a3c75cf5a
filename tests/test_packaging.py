"""What a package index shows: the README with absolute links, and where the project lives."""

import email
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def metadata(tmp_path, origin):
    """The metadata of a distribution made in a clone of `origin`."""
    setting = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "remote.origin.url"}
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "-e", str(tmp_path)]
    subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True,
        env={**os.environ, **setting, "GIT_CONFIG_VALUE_0": origin},
    )  # fmt: skip
    (path,) = tmp_path.glob("*.egg-info/PKG-INFO")
    return email.message_from_string(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "origin",
    ["git@github.com:someone/gat-tf.git", "https://github.com/someone/gat-tf",
     "ssh://git@github.com/someone/gat-tf.git", "https://github.com/someone/gat-tf.git/"],
)  # fmt: skip
def test_links_and_pictures_of_the_description_are_absolute(origin, tmp_path):
    found = metadata(tmp_path, origin)
    url = "https://github.com/someone/gat-tf"
    urls = dict(line.split(", ") for line in found.get_all("Project-URL"))
    assert urls["Source"] == url
    assert urls["Issues"] == f"{url}/issues"
    for page in ("Documentation", "Changelog"):
        assert (ROOT / urls[page].removeprefix(f"{url}/blob/HEAD/")).is_file()
    text = re.sub(r"```.*?```", "", found.get_payload(), flags=re.DOTALL)
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)
    assert sum(bool(picture) for picture, _ in links) >= 1
    ours = [link for _, link in links if link.startswith(url)]
    assert len(ours) > 10
    for picture, link in links:
        assert link.startswith("https://"), link
        if link.startswith((f"{url}/blob/HEAD/", f"{url}/raw/HEAD/")):
            assert ("/raw/" in link) == bool(picture)
            path = re.sub(r".*/HEAD/|#.*", "", link)
            assert (ROOT / path).exists(), link


def test_clone_without_an_origin_has_the_readme_as_it_is(tmp_path):
    found = metadata(tmp_path, "/a/folder")
    assert found.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert all(line.startswith("Paper") for line in found.get_all("Project-URL"))


def test_description_renders():
    renderer = pytest.importorskip("readme_renderer.markdown")
    assert renderer.render((ROOT / "README.md").read_text(encoding="utf-8"))
