"""The record: its tables and sentences in Markdown, packing and drawing."""

import dataclasses
import json
import pathlib
import shutil

import pytest

from gat_tf.experiments import record, table2
from gat_tf.experiments.lab import results

ROOT = pathlib.Path(__file__).parent.parent
ENVIRONMENT = {
    "devices": ["some device"],
    "versions": {"tensorflow": "2.0", "keras": "3.0"},
    "code": {"digest": "0", "git_revision": "abc"},
}


def unit(method="baseline", seed=0, accuracy=0.5):
    return {
        "format": 2,
        "dataset": "cifar10",
        "method": method,
        "seed": seed,
        "status": "done",
        "reason": None,
        "test_accuracy": accuracy,
        "best_epoch": 3,
        "epochs": 4,
        "seconds_per_epoch": 1.0,
        "train_seconds": 1800.0,
        "hyperparameters": {},
        "history": {"validation_accuracy": [0.4, 0.5, 0.6, 0.5]},
        "environment": ENVIRONMENT,
    }


@pytest.fixture
def folder(tmp_path):
    """A small record of Table 2: the baseline and GAT, three seeds."""
    units = [unit("baseline", s, a) for s, a in enumerate((0.50, 0.52, 0.54))]
    units += [unit("gat", s, a) for s, a in enumerate((0.60, 0.61, 0.65))]
    return write(tmp_path / "table2", units)


def write(folder, units):
    for u in units:
        path = folder / "units" / f"cifar10-{u['method']}-seed{u['seed']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(u))
    written = {
        "experiment": table2.NAME,
        "format": 2,
        "config": {},
        "wall_seconds": 1.0,
        "environment": ENVIRONMENT,
        "summary": table2.summarise(units),
        "verdicts": table2.verdicts(units),
    }
    (folder / "results.json").write_text(json.dumps(written))
    return folder


@pytest.mark.parametrize("name", record.DEFAULT_FILES)
def test_the_projects_tables_and_sentences_are_the_records(name):
    assert record.check([ROOT / name]) == []
    assert "<!-- record: " in (ROOT / name).read_text() or name == "README.md"


def test_table_is_put_between_its_marks(folder):
    page = folder.parent / "page.md"
    page.write_text(
        "a\n<!-- record: table2/results.json -->\nOLD TABLE\n<!-- end of record -->\nb\n"
    )
    record.main([str(page)])
    text = page.read_text()
    assert "OLD TABLE" not in text
    assert text.startswith("a\n<!-- record: table2/results.json -->\n**cifar10**")
    assert "| Baseline | 77.48 ± 0.46 | 52.00 ± 2.00 | 3 |" in text
    assert "6 unit(s), 3.0 h of training time" in text  # six half hours
    assert "some device; TensorFlow 2.0, Keras 3.0" in text
    assert text.endswith("<!-- end of record -->\nb\n")
    assert record.filled(page) == text


def test_verdicts_alone_are_put_between_their_marks(folder):
    page = folder.parent / "page.md"
    page.write_text("<!-- verdicts: table2/results.json -->\n<!-- end of record -->\n")
    record.main([str(page)])
    text = page.read_text()
    # Differences 10, 9 and 11 points: mean 10, standard error 1 / √3, t(2) = 4.303.
    assert "GAT) above Baseline | paper | **holds** | 3 | +10.0 [+7.5, +12.5] | 0.003 |" in text
    assert "52.00" not in text


def test_page_without_an_end_of_record_keeps_its_prose(folder):
    page = folder.parent / "page.md"
    page.write_text("<!-- record: table2/results.json -->\nprose\n")
    with pytest.raises(SystemExit, match="Expected <!-- end of record -->"):
        record.main([str(page)])
    assert page.read_text().endswith("prose\n")


def test_record_that_is_not_there_is_one_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- record: results.json -->\n<!-- end of record -->\n")
    with pytest.raises(SystemExit, match=r"Error: Expected results in .*results.json"):
        record.main([str(page)])


def test_check_finds_a_number_that_is_not_in_the_record(folder):
    page = folder.parent / "page.md"
    page.write_text(
        "<!-- from: table2 -->\nThe baseline has 52.00 %, GAT gains 10.0 (see 3.5).\n"
        "`0.25` is code, and [a link](a/2.5.md) is not read.\n\nAnother paragraph: 99.9.\n"
    )
    assert record.unsupported(page) == [
        f"{page}: 3.5 is not in table2 (The baseline has 52.00 %, GAT gains 10.0 (see 3.5). "
        "`0.25` i...)"
    ]
    with pytest.raises(SystemExit, match=r"3\.5 is not in table2"):
        record.main(["--check", str(page)])
    page.write_text(page.read_text().replace("(see 3.5)", ""))
    record.main(["--check", str(page)])


def test_numbers_may_be_of_any_record_that_is_named_but_whole(folder):
    write(folder.parent / "other", [unit("random", 0, 0.71)])
    page = folder.parent / "page.md"
    page.write_text("<!-- from: table2 other -->\n52.00 %, 71.00 %, 2.00 % and 71.0 %.\n")
    assert [line.split(": ")[1].split()[0] for line in record.unsupported(page)] == ["71.0"]
    page.write_text("<!-- from: table2 -->\n52.00 % and 71.00 %.\n")
    assert [line.split(": ")[1].split()[0] for line in record.unsupported(page)] == ["71.00"]


def test_check_reads_every_page(folder):
    pages = [folder.parent / name for name in ("a.md", "b.md")]
    for page, number in zip(pages, ("52.00", "3.5"), strict=True):
        page.write_text(f"<!-- from: table2 -->\nIt is {number}.\n")
    with pytest.raises(SystemExit, match=r"b\.md: 3\.5 is not in table2"):
        record.main(["--check", *map(str, pages)])


def test_check_finds_an_old_table(folder):
    page = folder.parent / "page.md"
    page.write_text("<!-- record: table2/results.json -->\nOLD TABLE\n<!-- end of record -->\n")
    with pytest.raises(SystemExit, match="tables are not the record's"):
        record.main(["--check", str(page)])
    assert "OLD TABLE" in page.read_text()


def test_packed_record_reads_the_same_in_one_file(folder):
    before = results.load(folder)
    (folder / "search").mkdir()
    (folder / "search/a.json").write_text('{"score": 1}')
    record.main(["--pack", str(folder)])
    assert json.loads((folder / "search.json").read_text()) == {"a": {"score": 1}}
    assert not (folder / "search/a.json").exists()
    assert not list((folder / "units").glob("*.json"))
    assert len(json.loads((folder / "units.json").read_text())) == 6
    assert results.load(folder) == before


def test_remade_from_its_units(folder):
    path = folder / "results.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "summary": {}, "verdicts": {}}))
    record.main(["--remake", str(folder)])
    assert json.loads(path.read_text()) == json.loads(json.dumps(stored))
    assert (folder / "table2.png").stat().st_size > 10_000
    assert not list(folder.glob("*.pdf"))
    assert "| Baseline | 77.48 ± 0.46 | 52.00 ± 2.00 |" in (folder / "table2.md").read_text()


@pytest.mark.slow
def test_the_projects_record_is_continued_by_its_presets(tmp_path):
    """The record's configuration is today's preset: its command has nothing left to train."""
    for preset in ("reduced", "full"):
        stored = ROOT / "experiments/table2" / preset
        copy = tmp_path / preset
        copy.mkdir()
        for name in ("config.json", "units.json", "search.json"):
            if (stored / name).exists():
                shutil.copy(stored / name, copy)
        config = table2.PRESETS[preset]
        found = {u["method"] for u in results.load(stored)["units"]}
        seeds = {u["seed"] for u in results.load(stored)["units"] if u["seed"] < 100}
        methods = tuple(m for m in config.methods if m in found)
        config = dataclasses.replace(
            config,
            datasets=("cifar10",),
            methods=methods[:1],
            seeds=tuple(sorted(seeds)),
            precision="mixed_bfloat16" if preset == "full" else "float32",
        )
        written = table2.run(config, copy)
        assert written["summary"] == json.loads((stored / "results.json").read_text())["summary"]
