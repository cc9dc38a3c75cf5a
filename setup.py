"""Packaging of gat_tf."""

import pathlib
import re
import subprocess

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent


def text_of(name):
    return (HERE / name).read_text(encoding="utf-8")


def repository():
    """The address of the repository, https://..., or None: the clone's origin, or in a source
    distribution what was known when that was made."""
    if (HERE / "PKG-INFO").exists():
        found = re.search(r"^Project-URL: Source, (.+)$", text_of("PKG-INFO"), re.MULTILINE)
        return found and found.group(1)
    command = ["git", "config", "--get", "remote.origin.url"]
    try:
        origin = subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git
        return None
    found = re.fullmatch(r"(?:https://|(?:ssh://)?git@)([^/:@]+)[/:](.+?)(?:\.git)?/?", origin)
    return found and "https://{}/{}".format(*found.groups())


def absolute(readme, url):
    """The README with the links and pictures of the repository, for a page elsewhere."""

    def link(match):
        picture, text, target = match.groups()
        if target.startswith("#"):
            return f"[{text}]({url}{target})"
        return f"{picture}[{text}]({url}/{'raw' if picture else 'blob'}/HEAD/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)\s]+)\)", link, readme)


VERSION = re.search(r'__version__ = "(.+)"', text_of("gat_tf/version.py")).group(1)
URL = repository()
PAPERS = {
    "Paper (GAT)": "https://arxiv.org/abs/1705.03387",
    "Paper (Rob-GAN)": "https://arxiv.org/abs/1807.10454",
}
PAGES = {
    "Source": "",
    "Documentation": "/blob/HEAD/docs/index.md",
    "Changelog": "/blob/HEAD/CHANGELOG.md",
    "Issues": "/issues",
}

setup(
    name="gat_tf",
    version=VERSION,
    description="Adversarial training with learned adversaries (GAT) in TensorFlow 2 and Keras 3",
    long_description=absolute(text_of("README.md"), URL) if URL else text_of("README.md"),
    long_description_content_type="text/markdown",
    project_urls={**{name: URL + page for name, page in PAGES.items() if URL}, **PAPERS},
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["gat_tf", "gat_tf.*"]),
    package_data={"gat_tf": ["py.typed", "models/weights/*"]},
    install_requires=[
        "tensorflow>=2.20",
        "tensorflow-datasets>=4.9.7",
        "keras>=3.11.3",  # older ones run code from files (CVE-2025-9905, CVE-2025-49655)
        "absl-py>=2.1",
        "numpy>=2.0",
        "matplotlib>=3.9",
    ],
    entry_points={"console_scripts": ["gat-tf=gat_tf.__main__:main"]},
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.20"],
        "test": [
            "mypy>=1.13",
            "psutil>=5",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "ruff>=0.8",
            "tensorboard>=2.20",
        ],
        "cluster": ["ray>=2.40"],
        # What some tests compare with or run on; they are skipped without it.
        "peers": ["adversarial-robustness-toolbox>=1.20", "foolbox>=3.3.4", "ray>=2.40"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "notebooks": ["jupyterlab>=4"],
        "benchmarks": [
            "adversarial-robustness-toolbox>=1.20",
            "cleverhans>=4.0",
            "foolbox>=3.3.4",
            "torch>=2.4",
        ],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
