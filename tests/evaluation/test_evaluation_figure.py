"""The figure: what it shows, that it is whole XML whatever the names, and that labels do not lie on one another."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from curve_samples import problem

from reasonflux_prm.errors import MissingExtra, UsageError
from reasonflux_prm.evaluation import figure
from reasonflux_prm.evaluation.report import selection_report
from reasonflux_prm.evaluation.svg import one_line, shortened, text_width

SVG = "{http://www.w3.org/2000/svg}"


def report(name="a", ks=None, count=6, methods=None):
    problems = [
        problem(
            [k % 3 == 0 for k in range(number, number + 8)],
            [k % 3 for k in range(number, number + 8)],
            id=str(number),
            lengths=range(10, 18),
            rewards={name: tuple((k * 7 + number) % 11 / 11 for k in range(8)), "second": (0.5,) * 8},
        )
        for number in range(count)
    ]
    return selection_report(problems, methods, ks, resamples=50)


def parsed(text):
    return ElementTree.fromstring(text)


def texts(root):
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_what_it_shows():
    root = parsed(figure.svg(report(), title="Maths"))
    shown = texts(root)
    assert shown[:2] == [
        "Maths",
        "6 problems, mean over all subsets of their candidates; bands: 95% bootstrap by problem",
    ]
    for name in ("oracle (pass@k)", "a", "a, vote", "second", "majority", "longest", "shortest", "pass@1"):
        assert any(text.startswith(name) and text.endswith("%") for text in shown)
    assert [text for text in shown if text.isdigit()] == ["1", "2", "4", "8"]
    # Bands: two PRMs, their votes, and majority.
    assert sum("fill-opacity" in path.attrib for path in root.iter(f"{SVG}path")) == 5
    assert "majority" in root.attrib["aria-label"]


def test_sizes_double_at_equal_distances():
    root = parsed(figure.svg(report(methods=["majority"])))
    x = {text.text: float(text.attrib["x"]) for text in root.iter(f"{SVG}text") if (text.text or "").isdigit()}
    assert x["2"] - x["1"] == pytest.approx(x["4"] - x["2"], abs=0.02) == pytest.approx(x["8"] - x["4"], abs=0.02)


def test_a_last_size_that_is_no_power_is_marked():
    root = parsed(figure.svg(report(ks=[1, 2, 3, 4, 5, 6, 7], methods=["majority"])))
    assert [text for text in texts(root) if text.isdigit()] == ["1", "2", "4", "7"]
    assert [text for text in texts(parsed(figure.svg(report(ks=[3, 5])))) if text.isdigit()] == ["5"]


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_names_cannot_leave_their_place(theme):
    name = '</text><script>alert("&")</script>\x00\ud800\n' + "long " * 30 + "end"
    text = figure.svg(report(name), title=name, theme=theme)
    root = parsed(text)
    assert "<script" not in text
    assert any("end" in shown for shown in texts(root))
    text.encode()


@pytest.mark.parametrize("name", ["a", "a name as long as names of checkpoints are on the hub", "名前" * 20])
def test_labels_keep_apart_and_on_the_page(name):
    root = parsed(figure.svg(report(name)))
    labels = [text for text in root.iter(f"{SVG}text") if text.find(f"{SVG}tspan") is not None]
    assert len(labels) == 9
    y = sorted(float(label.attrib["y"]) for label in labels)
    assert min(b - a for a, b in pairwise(y)) >= 17.9
    assert 0 < y[0] < y[-1] < figure.HEIGHT
    for label in labels:
        width = text_width("".join(label.itertext()), bold=label.attrib["font-weight"] == "600")
        assert float(label.attrib["x"]) + width < figure.WIDTH + 8
    assert all(float(label.attrib["x"]) > 0 for label in labels)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10, 100], [10, 100]),
        ([100, 10], [100, 10]),
        ([50, 50, 50], [32, 50, 68]),
        ([1, 1, 1], [0, 18, 36]),
        ([200, 200], [182, 200]),
        ([170, 190, 199], [164, 182, 200]),
        # Moved away from the end, the last two come to lie on the first, and all three move.
        ([160, 200, 200], [160, 182, 200]),
        ([166, 200, 200], [164, 182, 200]),
    ],
)
def test_labels_move_no_more_than_they_must(places, expected):
    assert figure._spread(places, 0, 200) == pytest.approx(expected)


def test_colours_follow_the_reader():
    auto, light, dark = (figure.svg(report(), theme=theme) for theme in ("auto", "light", "dark"))
    assert "light-dark(" in auto
    assert "<style" not in light + dark
    # Each class has one meaning, so that several pictures can stand on one page.
    rules = re.findall(r"\.(reasonflux-curves-[\w-]+)\{([^}]*)\}", auto)
    assert len(rules) == len(dict(rules)) > 5
    assert set(re.findall(r'class="([^" ]*)', auto)) <= set(dict(rules))
    assert parsed(light)[1].attrib["fill"] == "#ffffff" != parsed(dark)[1].attrib["fill"]
    with pytest.raises(UsageError, match="auto, light or dark"):
        figure.svg(report(), theme="sepia")


def test_one_size_is_dots():
    root = parsed(figure.svg(report(ks=[4])))
    assert len(list(root.iter(f"{SVG}circle"))) == 9
    assert "nan" not in figure.svg(report(ks=[1])).lower()


def test_all_at_one_height():
    problems = [problem([True, True], [0, 0], id=str(k)) for k in range(3)]
    root = parsed(figure.svg(selection_report(problems, ["majority", "pass@1"])))
    assert [text for text in texts(root) if text.endswith("%")] == [
        "94%",
        "96%",
        "98%",
        "100%",
        "majority100.0%",
        "pass@1100.0%",
    ]


def test_the_same_bytes_in_another_process():
    code = "import test_evaluation_figure as t; import sys; sys.stdout.write(t.figure.svg(t.report()))"
    here = str(Path(__file__).parent)
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert again.stdout == figure.svg(report())


def test_files(tmp_path):
    figure.write_figure(report(), tmp_path / "deep" / "curve.svg", title="x")
    assert (tmp_path / "deep" / "curve.svg").read_text() == figure.svg(report(), title="x")
    with pytest.raises(UsageError, match=r"a \.svg or a \.png, got curve\.pdf"):
        figure.write_figure(report(), tmp_path / "curve.pdf")


def test_a_png_is_the_same_picture(tmp_path):
    pytest.importorskip("cairosvg", exc_type=(ImportError, OSError))
    figure.write_figure(report(), tmp_path / "curve.png")
    data = (tmp_path / "curve.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (2 * figure.WIDTH, 2 * figure.HEIGHT)


def test_without_cairosvg_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(MissingExtra, match=r"reasonflux-prm\[figures\]"):
        figure.write_figure(report(), tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


def test_texts_are_cut_in_their_middle():
    assert shortened("short", 100) == "short"
    cut = shortened("organisation/checkpoint-of-a-prm-7b", 100)
    assert cut.startswith("org")
    assert cut.endswith("7b")
    assert "…" in cut
    assert text_width(cut) <= 100
    assert shortened("wide", 1) == "…"
    assert one_line("a\n b\t\x07\ufffe c") == "a b c"
