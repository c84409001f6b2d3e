"""Images by class and split, for a person."""

import io

import numpy as np

from ddhpc.tables.counts import count_classes, print_counts
from ddhpc.terminal import PlainConsole


def shown(labels, classes, noun="images", **more):
    out = io.StringIO()
    console = PlainConsole(file=out, width=120, color_system=None)
    print_counts(console, count_classes(labels, len(classes)), classes, noun, more)
    return out.getvalue()


def of_sizes(**sizes):
    return {split: np.repeat(np.arange(len(counts)), counts) for split, counts in sizes.items()}


def cells(line):
    return [cell.strip() for cell in line.strip("\n ")[1:-1].split("│")]


def test_classes_of_equal_size_are_one_line():
    labels = of_sizes(train=[600, 600], val=[1000, 1000], test=[5, 5])
    assert shown(labels, ("a", "b")) == "each class has 600 train, 1,000 val, 5 test images\n"
    assert "1.00" in shown(labels, ("a", "b"), weight=["1.00", "1.00"])


def test_few_classes_have_a_row_each():
    out = shown(
        of_sizes(train=[1500, 100], val=[20, 0], test=[9, 8]), ("healthy", "ill"), "volumes", chosen=["20", "0"]
    )
    rows = [cells(line) for line in out.splitlines() if "%" in line]
    assert rows == [["healthy", "1,500", "20", "9", "93.8 %", "20"], ["ill", "100", "0", "8", "6.2 %", "0"]]
    said = " ".join(out[out.index("└") :].split())
    assert "the largest class has 15 times the training volumes of the smallest: see --local.class_weight" in said
    assert said.endswith("none in val: ill")


def test_of_many_classes_the_ends_and_the_range_between():
    train = np.arange(10, 48)
    out = shown(of_sizes(train=train[::-1], val=np.full(38, 2), test=train), [f"c{n}" for n in range(38)])
    rows = [cells(line) for line in out.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["c37", "c36", "c35", "32 others", "c2", "c1", "c0"]
    assert rows[3] == ["32 others", "13 to 44", "2", "13 to 44", ""]
    assert rows[0][1:4] == ["10", "2", "47"]


def test_classes_of_about_the_same_size_are_no_reason_to_act():
    assert "class_weight" not in shown(of_sizes(train=[10, 19], val=[1, 1], test=[1, 1]), ("a", "b"))


def test_a_name_steers_no_terminal():
    assert "\x1b" not in shown(of_sizes(train=[10, 19], val=[1, 1], test=[1, 1]), ("a\x1b[31m", "b"))
