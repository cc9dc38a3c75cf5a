"""Configurations, the folders that are bound to them, and the command line made of them."""

import concurrent.futures
import dataclasses
import re
import runpy
import sys
import threading
from typing import ClassVar

import pytest
from absl import app
from absl.testing import flagsaver

from gat_tf.data import DatasetNotFoundError
from gat_tf.experiments import fig2, fig3, fig4, robustness, settings, table2
from gat_tf.experiments.lab import config as configs
from gat_tf.experiments.lab import devices, files, flags
from gat_tf.experiments.lab.config import ConfigError, option
from gat_tf.robustness import command


@dataclasses.dataclass(frozen=True)
class Old:
    """Before `window` and `grids` were there."""

    epochs: int = option(2, "Epochs.")
    seeds: tuple[int, ...] = option((0,), "Seeds.", affects_results=False)


@dataclasses.dataclass(frozen=True)
class New(Old):
    window: int = option(5, "Window.", before=1)
    size: int | None = option(None, "Size.", before=None)
    values: dict[str, float] = option({}, "Values.", before={})


@pytest.fixture
def folder(tmp_path):
    configs.bind_folder("made.up", Old(), tmp_path)
    return tmp_path


def test_fingerprint_has_what_decides_the_results_as_json_knows_it():
    @dataclasses.dataclass(frozen=True)
    class Config(New):
        epsilons: tuple[float, ...] = option((0.5, 1.0), "Sizes.")

    assert configs.fingerprint(Config(seeds=(7,), values={"gat.c_g": 0.3})) == {
        "epochs": 2,
        "window": 5,
        "size": None,
        "values": {"gat.c_g": 0.3},
        "epsilons": [0.5, 1.0],
    }


def test_defaults_that_are_dicts_are_not_shared():
    one, two = New(), New()
    one.values["gat.c_g"] = 1.0
    assert two.values == {}


def test_folder_takes_other_runs_of_its_configuration(folder):
    before = (folder / "config.json").read_bytes()
    configs.bind_folder("made.up", Old(seeds=(1, 2)), folder)
    assert (folder / "config.json").read_bytes() == before
    with pytest.raises(ConfigError, match=r"another configuration.*epochs: 2 there, 3 here"):
        configs.bind_folder("made.up", Old(epochs=3), folder)
    with pytest.raises(ConfigError, match=r"made\.up' there, 'other' here.*--networks_dir"):
        configs.bind_folder("other", Old(), folder, flag="networks_dir")
    assert (folder / "config.json").read_bytes() == before


def test_setting_that_was_added_later_stands_for_what_was_done_before(folder):
    as_before = New(window=1)
    configs.bind_folder("made.up", as_before, folder)
    with pytest.raises(ConfigError, match="window: 1 there, 5 here"):
        configs.bind_folder("made.up", New(), folder)
    with pytest.raises(ConfigError, match="size: None there, 7 here"):
        configs.bind_folder("made.up", New(window=1, size=7), folder)
    assert configs.from_file(New, folder / "config.json", "made.up") == as_before


def test_setting_that_was_always_there_must_be_there(folder):
    path = folder / "config.json"
    stored = files.read_json(path)
    del stored["epochs"]
    files.write_json(path, stored)
    with pytest.raises(ConfigError, match="epochs: None there, 2 here"):
        configs.bind_folder("made.up", Old(), folder)
    with pytest.raises(ConfigError, match="differs in epochs"):
        configs.from_file(Old, path, "made.up")


def test_settings_that_nobody_knows_are_refused(folder):
    path = folder / "config.json"
    files.write_json(path, {**files.read_json(path), "secret": 1})
    with pytest.raises(ConfigError, match="secret: 1 there, None here"):
        configs.bind_folder("made.up", Old(), folder)
    with pytest.raises(ConfigError, match="differs in secret"):
        configs.from_file(Old, path, "made.up")


@pytest.mark.parametrize("stored", [{"experiment": "other", "epochs": 2}, [], {"epochs": 2}])
def test_configuration_of_another_experiment_is_refused(tmp_path, stored):
    files.write_json(tmp_path / "config.json", stored)
    with pytest.raises(ConfigError, match=r"config\.json\. Received: one of another experiment"):
        configs.from_file(Old, tmp_path / "config.json", "made.up")


def test_configuration_is_read_back_with_tuples(tmp_path):
    config = settings.Config(grids={"gat.c_g": (0.1, 0.3)}, hyperparameters={"gat.c_g": 1.0})
    configs.bind_folder("networks", config, tmp_path)
    assert configs.from_file(settings.Config, tmp_path / "config.json", "networks") == config


def test_other_configurations_that_results_depend_on_count(tmp_path):
    configs.bind_folder("made.up", Old(), tmp_path, networks=Old())
    configs.bind_folder("made.up", Old(), tmp_path, networks=New(window=1))
    with pytest.raises(ConfigError, match=r"networks\.epochs: 2 there, 9 here"):
        configs.bind_folder("made.up", Old(), tmp_path, networks=Old(epochs=9))


def test_of_many_that_bind_a_folder_at_once_one_configuration_wins(tmp_path):
    count = 12
    barrier = threading.Barrier(count)

    def bind(i):
        barrier.wait()
        try:
            configs.bind_folder("made.up", Old(epochs=1 + i % 2), tmp_path / "new" / "folder")
        except ConfigError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        bound = list(pool.map(bind, range(count)))
    winner = files.read_json(tmp_path / "new" / "folder" / "config.json")["epochs"]
    assert bound == [1 + i % 2 == winner for i in range(count)]


@pytest.mark.parametrize("kind", ["units", "search", "results"])
def test_results_whose_configuration_is_lost_are_left_alone(tmp_path, kind):
    path = tmp_path / "results.json" if kind == "results" else tmp_path / kind / "a.json"
    files.write_json(path, {})
    with pytest.raises(ConfigError, match=r"no config\.json to tell whose"):
        configs.bind_folder("made.up", Old(), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_configuration_that_is_cut_is_named(folder):
    (folder / "config.json").write_text('{"format": 2, "experi')
    with pytest.raises(ConfigError, match=r"no whole config\.json.*Put it back"):
        configs.bind_folder("made.up", Old(), folder)


def test_folder_of_another_format_is_named_with_what_to_do(folder):
    path = folder / "config.json"
    files.write_json(path, {**files.read_json(path), "format": 1})
    with pytest.raises(ConfigError, match=r"another version of gat_tf.*another --output_dir"):
        configs.bind_folder("made.up", Old(), folder)


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=rf"{tmp_path}/file/results cannot be written"):
        configs.bind_folder("made.up", Old(), tmp_path / "file" / "results")


def test_auto_precision_is_the_folders_and_else_the_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "precision", lambda name: "mixed_bfloat16")
    assert configs.settled_precision("auto", tmp_path) == "mixed_bfloat16"
    files.write_json(tmp_path / "config.json", {"precision": "float32"})
    assert configs.settled_precision("auto", tmp_path) == "float32"
    assert configs.settled_precision("mixed_float16", tmp_path) == "mixed_float16"


# The command line.


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (tuple[int, ...], "0:3,7", (0, 1, 2, 7)),
        (tuple[str, ...], "gat, dropout", ("gat", "dropout")),
        (tuple[float, ...], "1/2,0.25", (0.5, 0.25)),
        (float, "1/3", 1 / 3),
        (int | None, "none", None),
        (int | None, "5", 5),
        (bool | None, "true", True),
        (bool | None, "false", False),
        (dict[str, float], "gat.c_g=0.3, dropout.rate=1/5", {"gat.c_g": 0.3, "dropout.rate": 0.2}),
        (dict[str, float], "", {}),
        (
            dict[str, tuple[float, ...]],
            "gat.c_g=0.1:1/2:1,dropout.rate=0.2",
            {"gat.c_g": (0.1, 0.5, 1.0), "dropout.rate": (0.2,)},
        ),
    ],
)
def test_flags_understand_and_write_what_they_understand(kind, text, value):
    parser = flags.Parser(kind)
    assert parser.parse(text) == value
    assert parser.parse(parser.serialize(value)) == value  # as in a --flagfile


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (int, "x"),
        (float, "1/0"),
        (bool | None, "maybe"),
        (tuple[int, ...], "1:"),
        (dict[str, float], "gat.c_g"),
        (dict[str, float], "gat.c_g=1:2"),
        (dict[str, float], "gat.c_g=x"),
        (dict[str, tuple[float, ...]], "gat.c_g=1/0"),
    ],
)
def test_flags_refuse(kind, text):
    with pytest.raises(ValueError, match="expected"):
        flags.Parser(kind).parse(text)


@dataclasses.dataclass(frozen=True)
class Command(configs.Config):
    PRESETS: ClassVar[dict[str, str]] = {"paper": "as the paper has it", "quick": "in minutes"}

    datasets: tuple[str, ...] = option(("cifar10",), "Data sets.")
    epochs: int = option(200, "Epochs.", high=9999)
    search: bool = option(False, "Whether to search.")
    hyperparameters: dict[str, float] = option({}, "Values.")
    grids: dict[str, tuple[float, ...]] = option({}, "Grids.")


QUICK = Command(
    epochs=5,
    hyperparameters={"gat.c_g": 0.1, "dropout.rate": 0.2},
    grids={"gat.c_g": (1.0,), "dropout.rate": (0.1, 0.3)},
)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Returns a function: (start, *arguments) -> (exit code, stdout, stderr)."""
    app.define_help_flags()
    before = flagsaver.save_flag_values()
    monkeypatch.chdir(tmp_path)

    def call(start, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        try:
            with pytest.raises(SystemExit) as stop:
                start()
        finally:
            flagsaver.restore_flag_values(before)  # also removes what was defined
        return stop.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def made_up(call):
    """Returns a function: (*arguments) -> (what `run` was called with, exit code, errors)."""

    def made_up(*arguments, error=None):
        runs = []

        def run(*received):
            runs.append(received)
            if error is not None:
                raise error

        presets = {"paper": Command(), "quick": QUICK}
        code, _, errors = call(lambda: flags.main(Command, presets, run, "made_up"), *arguments)
        return runs, code, errors

    return made_up


def test_without_flags_the_papers_preset_is_run(made_up):
    assert made_up() == ([(Command(), "runs/made_up")], None, "")


def test_flags_are_set_over_the_preset(made_up):
    ((config, folder),), *_ = made_up("--preset=quick", "--dataset=shapes", "--search")
    assert config == dataclasses.replace(QUICK, datasets=("shapes",), search=True)
    assert folder == "runs/made_up-quick"
    ((config, folder),), *_ = made_up("--epochs=7", "--output_dir=there")
    assert (config, folder) == (Command(epochs=7), "there")


def test_units_are_computed_by_the_executor_of_the_flag(made_up, monkeypatch):
    given = []
    monkeypatch.setattr(flags.executors, "run", lambda executor, *_: given.append(executor))
    made_up("--executor=ray")
    made_up()
    assert given == ["ray", "local"]


def test_flags_of_names_and_values_are_merged_over_the_presets(made_up):
    arguments = ["--hyperparameters=gat.c_g=3,pgd.steps=7", "--grids=gat.c_g=2:4"]
    ((config, _),), *_ = made_up("--preset=quick", *arguments)
    assert config.hyperparameters == {"gat.c_g": 3, "dropout.rate": 0.2, "pgd.steps": 7}
    assert config.grids == {"gat.c_g": (2, 4), "dropout.rate": (0.1, 0.3)}
    assert QUICK.hyperparameters == {"gat.c_g": 0.1, "dropout.rate": 0.2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs=0"], r"Error: Expected epochs to be a finite number in \[1, 9999\]"),
        (["table2"], "Error: Expected flags only. Received: table2"),
    ],
)
def test_errors_of_the_user_are_one_line(made_up, arguments, message):
    runs, code, _ = made_up(*arguments)
    assert not runs
    assert re.match(message, code)
    assert "\n" not in code


@pytest.mark.parametrize(
    "error", [ConfigError("a"), DatasetNotFoundError("a"), files.FullDiskError("a")]
)
def test_errors_of_the_run_are_one_line(made_up, error):
    assert made_up(error=error)[1] == "Error: a"


def test_errors_of_the_program_are_not_hidden(call):
    def run(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(lambda: flags.main(Command, {"paper": Command(), "quick": QUICK}, run, "made_up"))


def test_stopped_by_hand_is_one_line(made_up):
    _, code, errors = made_up(error=KeyboardInterrupt())
    assert code == 130
    assert errors == "Stopped. The same command continues with what is missing.\n"


COMMANDS = {
    "gat_tf.experiments.table2": table2,
    "gat_tf.experiments.fig2": fig2,
    "gat_tf.experiments.fig3": fig3,
    "gat_tf.experiments.fig4": fig4,
    "gat_tf.experiments.robustness": robustness,
    "gat_tf.robustness": command,
}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_presets_and_every_field(call, name):
    module = COMMANDS[name]
    _, text, _ = call(lambda: runpy.run_module(name, run_name="__main__", alter_sys=True), "--help")
    for field in dataclasses.fields(module.Config):
        assert re.search(rf"^  --(\[no\])?{field.name}:", text, re.MULTILINE), field.name
    assert f"<{'|'.join(module.PRESETS)}>" in text
    assert set(module.PRESETS) == set(module.Config.PRESETS)
    for meaning in module.Config.PRESETS.values():
        assert meaning.split(",")[0] in " ".join(text.split())
    assert module.PRESETS["paper"] == module.Config()


WRONG = {
    "gat_tf.experiments.table2": "--methods=gta",
    "gat_tf.experiments.fig2": "--c_g=1,-1",
    "gat_tf.experiments.fig3": "--fg_epsilons=1,0.5",
    "gat_tf.experiments.fig4": "--seeds=-1",
    "gat_tf.experiments.robustness": "--queries=0",
    "gat_tf.robustness": "--norm=L1",
}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_command_names_what_is_wrong_and_writes_nothing(call, tmp_path, name):
    start = lambda: runpy.run_module(name, run_name="__main__", alter_sys=True)  # noqa: E731
    code, *_ = call(start, "--preset=quick", WRONG[name])
    assert code.startswith("Error: Expected ")
    assert WRONG[name].partition("=")[0].removeprefix("--").removesuffix("s") in code
    assert not list(tmp_path.iterdir())
