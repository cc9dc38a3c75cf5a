"""The tables in the Markdown files are those of the record."""

import json
import pathlib

import pytest

from gat_tf.experiments import record

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("name", record.DEFAULT_FILES)
def test_tables_in_the_markdown_are_the_records(name):
    path = ROOT / name
    assert "<!-- record: " in path.read_text()
    assert record.filled(path) == path.read_text()


def test_table_is_put_between_its_marks(tmp_path):
    environment = {"devices": ["some device"], "versions": {"tensorflow": "2.0", "keras": "3.0"}}
    unit = {
        "dataset": "cifar10",
        "method": "baseline",
        "seed": 0,
        "status": "done",
        "reason": None,
        "test_accuracy": 0.5,
        "best_epoch": 3,
        "epochs": 4,
        "seconds_per_epoch": 1.0,
        "train_seconds": 5400.0,
        "hyperparameters": {},
        "environment": environment,
    }
    results = {"experiment": "table2", "format": 1, "units": [unit], "trials": []}
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- record: results.json -->\nold\n<!-- end of record -->\nb\n")
    record.main([str(page)])
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("a\n<!-- record: results.json -->\n**cifar10**")
    assert "| Baseline | 77.48 ± 0.46 | 50.00 | 1 |" in text
    assert "1 unit(s), 1.5 h of training time" in text
    assert "some device; TensorFlow 2.0, Keras 3.0" in text
    assert text.endswith("<!-- end of record -->\nb\n")
    assert record.filled(page) == text


def test_verdicts_alone_are_put_between_their_marks(tmp_path):
    verdict = {
        "claim": "up is up",
        "verdict": "holds",
        "mean": 1.25,
        "standard_error": 0.25,
        "seeds": 3,
    }
    unit = {"environment": {"devices": ["some device"], "versions": {"keras": "3.0"}}}
    results = {
        "experiment": "fig2",
        "format": 1,
        "units": [unit],
        "trials": [],
        "verdicts": {"cifar10": [verdict]},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    page = tmp_path / "page.md"
    page.write_text("<!-- verdicts: results.json -->\n<!-- end of record -->\n")
    record.main([str(page)])
    assert "| up is up | **holds** | +1.2 ± 0.2 (3 seeds) |" in page.read_text()


def test_record_that_is_not_there_is_one_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- record: results.json -->\n<!-- end of record -->\n")
    with pytest.raises(SystemExit, match=r"Error: Expected results in .*results.json"):
        record.main([str(page)])
