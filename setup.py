"""Packaging of gat_tf."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "gat_tf/version.py").read_text()).group(1)

setup(
    name="gat_tf",
    version=VERSION,
    description="Adversarial training with learned adversaries (GAT) in TensorFlow 2 and Keras 3",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
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
            "pytest-xdist>=3.6",
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
