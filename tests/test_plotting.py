"""The plotting primitives, by what they have drawn."""

import ast
import itertools
import pathlib

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color

from gat_tf import plotting
from gat_tf.plotting import Dots, Line, Mark, Panel, Series


def lines_of(axes):
    """Label to the line that has it."""
    return {line.get_label(): line for line in axes.get_lines()}


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def labels_of(axis):
    """What is written at the ticks that are in view, from the left or from below."""
    low, high = sorted(axis.get_view_interval())
    ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [label.get_text() for place, label in ticks if low <= place <= high]


def drawn(figure):
    """Lays the figure out and returns what has drawn it, which knows the size of its texts."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def texts_overlap(figure):
    """Whether two legend entries, titles or axis labels of a drawn figure overlap."""
    renderer = drawn(figure)
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes._left_title]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    inside = all(
        figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
        for box in boxes
    )
    return not inside or any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# style


def test_plotting_stands_on_numpy_and_matplotlib_alone():
    folder = pathlib.Path(plotting.__file__).parent
    allowed = {"numpy", "matplotlib", "__future__", "base64", "io", "itertools"}
    allowed |= {"collections", "contextlib", "dataclasses", "math", "pathlib", "typing"}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                known = name.startswith("gat_tf.plotting") or name.split(".")[0] in allowed
                assert known, f"{path.name} imports {name}"


def test_looks_are_different_and_the_first_seven_differ_in_colour_and_marker():
    found = plotting.looks(map(str, range(40)))
    assert list(found) == [str(i) for i in range(40)]
    assert len({tuple(look.values()) for look in found.values()}) == 40
    assert set(found["0"]) == {"color", "marker", "linestyle"}
    first = list(found.values())[:7]
    assert len({look["color"] for look in first}) == len({look["marker"] for look in first}) == 7
    assert {look["linestyle"] for look in first} == {"-"}
    # The eighth has the first one's colour, so marker and line style must tell them apart.
    assert found["7"]["color"] == found["0"]["color"]
    assert found["7"]["marker"] != found["0"]["marker"]
    assert found["7"]["linestyle"] != "-"


def test_looks_depend_on_the_order_alone():
    assert plotting.looks("abc") == plotting.looks(["a", "b", "a", "c", "b"])
    assert plotting.looks("abc")["c"] == plotting.looks("abcd")["c"] == plotting.looks("xyz")["z"]
    assert plotting.looks([]) == {}


def test_a_figure_of_parts_has_one_legend():
    figure, ((left, right),) = plotting.parts(7.2, 3.0, widths=(2, 1))
    look = {"color": "red"}
    dots = Dots("a", ["row"], [Series("ours", [[1.0, 2.0]]), Series("both", [[1.0]], look=look)])
    panel = Panel("b", [Line([0, 1], [0, 1], label="line"), Line([0], [0], label="both")])
    assert plotting.dots([dots], figure=left) is left
    assert plotting.curves([[panel]], figure=right) is right
    assert not figure.legends
    assert not left.legends
    assert not right.legends
    plotting.legend(figure, 2)
    assert legend_of(figure) == ["ours", "both", "line"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
    drawn(figure)
    widths = [axes.get_window_extent().width for axes in figure.axes]
    assert 1.3 < widths[0] / widths[1] < 3


def test_a_legend_of_nothing_is_not_drawn():
    figure = plotting.curves([[Panel("no labels", [Line([0, 1], [0, 1])])]])
    assert not figure.legends


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(matplotlib.rcParams)
    plotting.curves([[Panel("", [Line([0], [0], label="a")])]])
    plotting.dots([Dots("", ["a"], [Series("a", [[1]])])])
    plotting.grids([("", "", np.zeros([1, 1, 2, 2, 3]))])
    plotting.strip([np.zeros([2, 2, 3])], [""])
    assert dict(matplotlib.rcParams) == before


def test_marks_are_lines_across_and_points():
    marks = [
        Mark(x=1, label="vertical"),
        Mark(y=2, look={"color": "red"}),
        Mark(3, 4, "point", {"marker": "s"}),
    ]
    figure = plotting.curves([[Panel("", [Line([0, 5], [0, 5])], marks=marks)]])
    _, vertical, horizontal, point = figure.axes[0].get_lines()
    assert (vertical.get_xdata(), vertical.get_ydata()) == ([1, 1], [0, 1])
    assert (horizontal.get_xdata(), horizontal.get_ydata()) == ([0, 1], [2, 2])
    assert same_color(horizontal.get_color(), "red")
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([3], [4])
    assert point.get_marker() == "s"
    assert legend_of(figure) == ["vertical", "point"]
    assert figure.get_figheight() == pytest.approx(2.7 + 0.15)  # a row of the legend
    with pytest.raises(ValueError, match="Received: neither"):
        Mark(label="nothing")


# curves


def test_curves_draw_lines_bands_and_labels():
    rows = [
        [
            Panel(
                "left",
                [
                    Line([0, 1, 2], [5.0, 6.0, 9.0], [1.0, 2.0, 3.0], "a"),
                    Line([0, 2], [1.0, 2.0], label="b", look={"color": "red"}),
                ],
                "the x",
                "the y",
                ylim_bottom=-1,
            ),
            Panel("right", [Line([0, 1], [0.0, 4.0], label="b")], xlabel="other x"),
        ]
    ]
    figure = plotting.curves(rows)
    left, right = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["left", "right"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["the x", "other x"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["the y", ""]
    a, b = lines_of(left)["a"], lines_of(left)["b"]
    np.testing.assert_array_equal(a.get_xydata(), [[0, 5], [1, 6], [2, 9]])
    np.testing.assert_array_equal(b.get_xydata(), [[0, 1], [2, 2]])
    (band,) = left.collections  # b has none
    assert band.get_paths()[0].get_extents().extents.tolist() == [0, 4, 2, 12]
    assert same_color(band.get_facecolor()[0][:3], a.get_color())
    # What a line's look leaves open comes from the labels' order, in every panel alike.
    expected = plotting.looks("ab")
    assert same_color(a.get_color(), expected["a"]["color"])
    assert same_color(b.get_color(), "red")
    assert b.get_marker() == lines_of(right)["b"].get_marker() == expected["b"]["marker"]
    assert same_color(lines_of(right)["b"].get_color(), expected["b"]["color"])
    assert left.get_ylim()[0] == -1
    assert right.get_ylim()[0] == pytest.approx(-0.2)  # matplotlib's margin
    assert legend_of(figure) == ["a", "b"]


@pytest.mark.parametrize("count", [1, 10])
def test_curves_of_any_number_of_methods(count):
    """The eighth colour does not exist, and the legend must have room."""
    names = [f"Adv. training (number {i})" for i in range(count)]
    lines = [Line([0, 1], [i, i + 1], [0.1, 0.1], name) for i, name in enumerate(names)]
    figure = plotting.curves([[Panel(t, lines, "ε", "accuracy, %") for t in "abc"]])
    assert legend_of(figure) == names
    for axes in figure.axes:
        looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == len(axes.collections) == count
    assert not texts_overlap(figure)
    few = plotting.curves([[Panel("a", lines[:1])]])
    rows = -(-count // 3)
    assert figure.get_figheight() - few.get_figheight() == pytest.approx(0.15 * (rows - 1))


def test_curves_have_gaps_where_a_value_is_missing():
    line = Line([0, 1, 2, 3], [1.0, None, float("nan"), 4.0], [0.5, None, 0.5, 0.5], "a")
    (axes,) = plotting.curves([[Panel("", [line])]]).axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), [1, np.nan, np.nan, 4])
    (band,) = axes.collections
    ends = [path.get_extents().extents.tolist() for path in band.get_paths()]
    assert ends == [[0, 0.5, 0, 1.5], [3, 3.5, 3, 4.5]]


@pytest.mark.parametrize(
    ("mean", "alone"), [([1, 2, None, 4, None], [3]), ([5], [0]), ([1, 2, 3], None), ([None], None)]
)
def test_a_point_between_gaps_is_seen_in_a_line_without_markers(mean, alone):
    line = Line(range(len(mean)), mean, look={"marker": ""})
    (axes,) = plotting.curves([[Panel("", [line])]]).axes
    (line,) = axes.get_lines()
    assert line.get_markevery() == alone
    assert (line.get_marker() == ".") == (alone is not None)


def test_curves_remove_what_a_shorter_row_does_not_fill():
    panels = [Panel(title, [Line([0], [0], label=title)]) for title in "abc"]
    figure = plotting.curves([panels[:2], panels[2:]])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c"]
    assert legend_of(figure) == ["a", "b", "c"]
    assert figure.get_figheight() == pytest.approx(2 * 2.7 + 0.15)


def test_curves_share_an_axis_within_a_row():
    low, high = ([Line([0, 1], [1, top])] for top in (2, 50))
    row = [Panel("low", low, ylim_bottom=0), Panel("high", high)]
    left, right = plotting.curves([row], sharey=True).axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_ylim()[0] == 0
    assert left.get_ylim()[1] > 50
    left, right = plotting.curves([row]).axes
    assert left.get_ylim()[1] < 3


def test_epsilon_axis_has_a_tick_at_each_epsilon_and_doubles():
    lines = [
        Line([0, 0.1, 0.2], [3, 2, 1], label="short"),
        Line([0, 0.1, 0.2, 0.4], [3, 2, 1, 0], label="long"),
    ]
    (axes,) = plotting.curves([[Panel("", lines, xscale="epsilon", ylim_bottom=0)]]).axes
    assert labels_of(axes.xaxis) == ["0", "0.1", "0.2", "0.4"]
    places = axes.transData.transform([[e, 0] for e in (0, 0.1, 0.2, 0.4)])[:, 0]
    assert np.ptp(np.diff(places)[1:]) < 1e-6 * places[-1]  # from 0.1 on as far apart
    left, right = axes.get_xlim()
    assert -0.05 < left < 0
    assert 0.4 < right < 0.8


def test_epsilon_axis_of_255_and_of_zero_alone():
    epsilons = [0, 0.5 / 255, 1 / 255, 2 / 255, 16 / 255]
    panel = Panel("", [Line(epsilons, range(5))], xscale="epsilon", x_255=True)
    (axes,) = plotting.curves([[panel]]).axes
    assert labels_of(axes.xaxis) == ["0", "0.5", "1", "2", "16"]
    (axes,) = plotting.curves([[Panel("", [Line([0], [1])], xscale="epsilon")]]).axes
    assert labels_of(axes.xaxis) == ["0"]


def test_many_long_epsilons_are_written_aslant():
    def rotation(epsilons):
        panel = Panel("", [Line(epsilons, epsilons)], xscale="epsilon")
        return plotting.curves([[panel]]).axes[0].get_xticklabels()[0].get_rotation()

    assert rotation([0, 0.125, 0.25, 0.5, 1, 2]) == 0
    assert rotation([k / 255 for k in (0, 1, 2, 4, 8, 16)]) == 45


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (2, ["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "1.75", "2"]),
        (6, ["0", "1", "2", "3", "4", "5", "6"]),
        (8, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]),
        (64, ["0", "8", "16", "24", "32", "40", "48", "56", "64"]),
    ],
)
def test_linear_axis_of_255(largest, labels):
    lines = [Line([0, 0, 0], [0, 0, 0]), Line([0, largest / 255], [1, 0])]
    (axes,) = plotting.curves([[Panel("", lines, x_255=True)]]).axes
    assert labels_of(axes.xaxis) == labels


def test_log_axes_have_plain_numbers():
    line = Line([0.004, 0.03, 0.6], [1, 10, 100])
    (axes,) = plotting.curves([[Panel("", [line], xscale="log", yscale="log")]]).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert labels_of(axes.xaxis) == ["0.01", "0.03", "0.1", "0.3"]
    assert labels_of(axes.yaxis) == ["1", "3", "10", "30", "100"]


def test_integer_axis_has_whole_numbers_only():
    (axes,) = plotting.curves([[Panel("", [Line([1, 2, 3], [1, 2, 3])], integer_x=True)]]).axes
    assert labels_of(axes.xaxis) == ["1", "2", "3"]


def test_a_panel_without_lines_stays_empty():
    row = [Panel("none", [], xscale=scale, x_255=True) for scale in ("linear", "log", "epsilon")]
    figure = plotting.curves([[*row, Panel("some", [Line([0], [1])])]])
    assert [len(axes.get_lines()) for axes in figure.axes] == [0, 0, 0, 1]


@pytest.mark.parametrize("rows", [[], [[]], [[Panel("nothing", [])]]])
def test_curves_of_nothing_are_an_error(rows):
    with pytest.raises(ValueError, match="at least one line"):
        plotting.curves(rows)


def test_lines_of_unequal_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"in the line 'a'. Received: \[2, 3\]"):
        Line([0, 1], [0, 1, 2], label="a")
    with pytest.raises(ValueError, match=r"Received: \[2, 2, 1\]"):
        Line([0, 1], [0, 1], [0])


# training


HISTORIES = {
    "one": {"loss": [3.0, 2.0, 1.0], "power": [0.1, None, 10.0]},
    "two": {"loss": [4.0, float("nan")], "accuracy": [0.5, 0.75]},
}
METRICS = {"loss": "the loss", "accuracy": "the accuracy", "power": "the power", "none": "absent"}


def test_training_draws_a_panel_for_each_metric_that_is_there():
    figure = plotting.training(HISTORIES, METRICS, log=("power",))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["the loss", "the accuracy", "the power"]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear", "log"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"epoch"}
    loss, accuracy, power = map(lines_of, figure.axes)
    np.testing.assert_array_equal(loss["one"].get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(loss["two"].get_ydata(), [4, np.nan])
    np.testing.assert_array_equal(power["one"].get_ydata(), [0.1, np.nan, 10])
    np.testing.assert_array_equal(accuracy["two"].get_ydata(), [0.5, 0.75])
    assert loss["one"].get_marker() == ""
    assert legend_of(figure) == ["one", "two"]


def test_training_that_is_not_there_keeps_its_place_in_the_looks():
    histories = {"absent": {}, "there": {"loss": [2.0, 1.0]}}
    figure = plotting.training(histories, {"loss": "the loss"})
    (line,) = lines_of(figure.axes[0]).values()
    assert line.get_color() == plotting.looks(histories)["there"]["color"]
    assert legend_of(figure) == ["there"]


def test_training_of_many_metrics_has_three_in_a_row_and_no_empty_panels():
    figure = plotting.training({"a": {n: [1.0] for n in "abcd"}}, {n: n for n in "abcd"})
    assert [axes.get_subplotspec().get_geometry()[:2] for axes in figure.axes] == [(2, 3)] * 4


@pytest.mark.parametrize("number", [7, 12])
def test_training_tells_many_lines_apart(number):
    histories = {str(i): {"loss": [1.0, 2.0]} for i in range(number)}
    (axes,) = plotting.training(histories, {"loss": "the loss"}).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}
    assert len(looks) == number


def test_training_that_was_never_finite_is_saved(tmp_path):
    figure = plotting.training({"one": {"power": [None]}}, {"power": "power"}, log=("power",))
    plotting.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("histories", [{}, {"one": {}}, {"one": {"other": [1.0]}}])
def test_training_without_the_metrics_is_an_error(histories):
    with pytest.raises(ValueError, match=r"Expected histories with some of \['loss'\]"):
        plotting.training(histories, {"loss": "loss"})


# dots


def dots_of(axes):
    """Label of a series to its dots, as (x, row), and its bars, as (left, right, row)."""
    found = {}
    for container in axes.containers:
        line, _, bars = container.lines
        segments = [s for bar in bars for s in bar.get_segments() if len(s)]
        ends = [(float(a[0]), float(b[0]), float(a[1])) for a, b in segments]
        found[container.get_label()] = (line.get_xydata().tolist(), ends)
    return found


def test_dots_are_means_with_bars_of_one_standard_deviation():
    panel = Dots(
        "the title",
        ["first", "second", "third"],
        [
            Series("ours", [[1.0, 3.0], [4.0], []]),
            Series("paper", [[5.0], [6.0], [7.0]], std=[0.5, None, 1.0]),
            Series("without bars", [[8.0, 9.0]] * 3, bars=False),
            Series("nowhere", [[], [], []], seeds=True, printed="{:.1f}"),
        ],
        "the x",
        xlim_left=0,
        marks=[Mark(x=2, label="here")],
    )
    figure = plotting.dots([panel])
    (axes,) = figure.axes
    found = dots_of(axes)
    assert found["ours"][0] == [[2, 0], [4, 1]]
    ((left, right, row),) = found["ours"][1]  # one seed has no bar
    assert (left, right, row) == pytest.approx((2 - 2**0.5, 2 + 2**0.5, 0))
    assert found["paper"] == ([[5, 0], [6, 1], [7, 2]], [(4.5, 5.5, 0), (6, 8, 2)])
    assert found["nowhere"] == ([], [])
    assert found["without bars"] == ([[8.5, 0], [8.5, 1], [8.5, 2]], [])
    assert labels_of(axes.yaxis) == ["first", "second", "third"]
    assert axes.get_ylim() == (2.6, -0.6)  # the first row is on top
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlabel() == "the x"
    assert axes.get_title(loc="left") == "the title"
    assert list(axes.get_lines()[0].get_xdata()) == [2, 2]
    assert sorted(legend_of(figure)) == ["here", "nowhere", "ours", "paper", "without bars"]


def test_dots_beside_each_other_and_each_seed():
    series = [
        Series("paper", [[1.0], [2.0]], look={"color": "red", "marker": "D"}),
        Series("ours", [[1.0, 2.0], [3.0, 4.0]], seeds=True, look={"color": "blue"}),
    ]
    (axes,) = plotting.dots([Dots("", ["a", "b"], series, beside=True)]).axes
    found = dots_of(axes)
    np.testing.assert_allclose(found["paper"][0], [[1, -0.17], [2, 0.83]])
    np.testing.assert_allclose(found["ours"][0], [[1.5, 0.17], [3.5, 1.17]])
    unlabelled = [line for line in axes.get_lines() if line.get_alpha()]
    points = [line.get_xydata().tolist() for line in unlabelled]
    np.testing.assert_allclose(points, [[[1, 0.17], [2, 0.17]], [[3, 1.17], [4, 1.17]]])
    assert all(same_color(line.get_color(), "blue") for line in unlabelled)
    paper, ours = (container.lines[0] for container in axes.containers)
    assert (paper.get_marker(), ours.get_marker()) == ("D", plotting.looks("ab")["b"]["marker"])
    assert {paper.get_linestyle(), ours.get_linestyle()} == {"None"}


def test_three_series_beside_each_other_stay_within_their_row():
    series = [Series(name, [[1.0]]) for name in "abc"]
    (axes,) = plotting.dots([Dots("", ["row"], series, beside=True)]).axes
    heights = [dots_of(axes)[name][0][0][1] for name in "abc"]
    np.testing.assert_allclose(heights, [-0.68 / 3, 0, 0.68 / 3], atol=1e-12)


def test_dots_print_means_where_they_are_told_to():
    series = [
        Series(None, [[10.0, 20.0], []], printed="{:.1f}"),
        Series(None, [[], [99.96]], printed="{:.0f} %", bars=False),
    ]
    figure = plotting.dots([Dots("", ["a", "b"], series)])
    first, second = figure.axes[0].texts
    assert (first.get_text(), second.get_text()) == ("15.0", "100 %")
    assert first.xy == pytest.approx((15 + 50**0.5, 0))  # beside the bar's end
    assert second.xy == (99.96, 1)
    assert not figure.legends
    renderer = drawn(figure)
    assert second.get_window_extent(renderer).x1 <= figure.bbox.x1


def test_row_names_are_not_repeated():
    same = [Dots(title, ["a", "b"], [Series("s", [[1], [2]])]) for title in "12"]
    other = Dots("3", ["c"], [Series("s", [[1]])])
    figure = plotting.dots([*same, other])
    shown = [axes.yaxis.get_tick_params()["labelleft"] for axes in figure.axes]
    assert shown == [True, False, True]
    assert legend_of(figure) == ["s"]


@pytest.mark.parametrize("count", [1, 10])
def test_dots_of_any_number_of_series_and_rows(count):
    names = [f"attack number {i}" for i in range(count)]
    rows = [f"Adv. training (number {i})" for i in range(count)]
    series = [Series(name, [[i, i + 1.0]] * count) for i, name in enumerate(names)]
    figure = plotting.dots([Dots(t, rows, series, "accuracy, %") for t in "ab"])
    assert legend_of(figure) == names
    for axes in figure.axes:
        looks = {(c.lines[0].get_color(), c.lines[0].get_marker()) for c in axes.containers}
        assert len(looks) == count
    assert not texts_overlap(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("panels", [[], [Dots("", ["a"], [])], [Dots("", [], [Series("s", [])])]])
def test_dots_of_nothing_are_an_error(panels):
    with pytest.raises(ValueError, match="at least one row and one series"):
        plotting.dots(panels)


def test_series_with_other_numbers_of_rows_are_an_error():
    with pytest.raises(ValueError, match=r"Expected 2 rows.*in the series 's'. Received: 1"):
        Dots("", ["a", "b"], [Series("s", [[1.0]])])
    with pytest.raises(ValueError, match=r"series 's'. Received: 1 and 2"):
        Series("s", [[1.0], [2.0]], std=[1.0])


# images


def test_perturbed_images_stand_beside_what_the_network_says_of_each():
    figure = plotting.perturbed_images(
        np.array([0.2, 0.9]).reshape(1, 1, 2, 1),
        np.array([0.1, -0.2]).reshape(1, 1, 2, 1),
        np.array([1]),
        np.array([[0.1, 0.9]]),
        np.array([[0.7, 0.3]]),
        gradients=np.array([0.0, 4.0]).reshape(1, 1, 2, 1),
        class_names=("cat", "dog"),
        notes=["PGD"],
    )
    # What may be negative is grey at 0, and its largest value is black or white.
    shown = [axes.get_images()[0].get_array().ravel() for axes in figure.axes]
    expected = [[0.2, 0.9], [0.5, 1.0], [0.75, 0.0], [0.3, 0.7]]
    np.testing.assert_allclose(shown, expected, atol=1e-12)
    assert [axes.get_title() for axes in figure.axes] == ["image", "Δ", "G(Δ)", "perturbed"]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "dog, 90 %", "× 0.125,  ‖·‖₂ 4", "× 2.5,  ‖·‖₂ 0.22", "cat, 70 %"
    ]  # fmt: skip
    assert figure.axes[0].get_ylabel() == "true: dog\nPGD"
    right, wrong = (figure.axes[i].xaxis.label.get_color() for i in (0, -1))
    assert same_color(right, "#007A5A")
    assert same_color(wrong, "#B3261E")


def test_grids_put_every_image_in_its_place():
    images = np.arange(2 * 3 * 4 * 5 * 3).reshape(2, 3, 4, 5, 3) / 359
    grey = np.linspace(0, 1, 8).reshape(2, 2, 1, 2, 1)
    figure = plotting.grids(
        [("colour", "below", images), ("grey", "", grey), ("third", "", images)],
        ylabel="a class in each row",
    )
    first, second, third = figure.axes  # the fourth place is empty
    whole = first.get_images()[0].get_array()
    assert whole.shape == (2 * 4, 3 * 5, 3)
    for row, column in itertools.product(range(2), range(3)):
        part = whole[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
        np.testing.assert_array_equal(part, images[row, column])
    grey_drawn = second.get_images()[0].get_array()
    np.testing.assert_allclose(7 * grey_drawn, [[0, 1, 2, 3], [4, 5, 6, 7]], atol=1e-9)
    assert second.get_images()[0].get_clim() == (0, 1)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["colour", "grey", "third"]
    assert [axes.get_xlabel() for axes in (first, second)] == ["below", ""]
    assert third.get_ylabel() == "a class in each row"
    assert third.get_subplotspec().get_geometry()[:2] == (2, 2)


def test_grids_that_are_none_or_no_grids_are_errors():
    with pytest.raises(ValueError, match="at least one grid"):
        plotting.grids([])
    with pytest.raises(ValueError, match=r"grid 'flat'. Received: shape \(8, 8, 3\)"):
        plotting.grids([("flat", "", np.zeros([8, 8, 3]))])


@pytest.mark.parametrize("channels", [1, 2, 3, 13])
def test_strip_draws_every_image_with_its_title(channels):
    images = np.linspace(0, 1, 3 * 4 * 5 * channels).reshape(3, 4, 5, channels)
    figure = plotting.strip(list(images), ["a", "b\nb", "c"], label="these")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b\nb", "c"]
    for axes, image in zip(figure.axes, images, strict=True):
        expected = image if channels == 3 else image[..., 0]
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), expected)
        assert axes.get_images()[0].get_clim() == (0, 1)
        assert not list(axes.get_xticks())
    assert figure.get_supylabel() == "these"


@pytest.mark.parametrize("titles", [[], ["one", "two"]])
def test_strip_without_images_or_titles_is_an_error(titles):
    with pytest.raises(ValueError, match="as many titles"):
        plotting.strip([np.zeros([2, 2, 3])][: len(titles)], titles)


def test_strip_in_a_part_of_a_figure():
    figure, parts = plotting.parts(4, 2, heights=(1, 1))
    assert plotting.strip([np.zeros([1, 5, 1])], ["a"], figure=parts[1, 0]) is parts[1, 0]
    assert [axes.get_title() for axes in figure.axes] == ["a"]


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_saved_figure_is_the_same_every_time(tmp_path, suffix, start):
    written = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        line = Line([0, 1], [1, 2], [0.1, 0.1], "a")
        plotting.save(plotting.curves([[Panel("title", [line], "x", "y")]]), path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith(start)
    assert b"CreationDate" not in written[0]
