"""What is decoded is kept until the output is whole, and taken only where it belongs to the same source and options."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ddhpc.data.sources.decode_cache import open_cache
from ddhpc.data.sources.workers import Workers
from ddhpc.errors import InputError


@dataclass(frozen=True)
class Number:
    path: Path

    @property
    def id(self):
        return self.path.name


class Interrupt(Exception):
    pass


@pytest.fixture
def numbers(tmp_path):
    """Ten files with a number each."""
    (tmp_path / "in").mkdir()
    for number in range(10):
        (tmp_path / "in" / str(number)).write_text(str(number * number))
    return [Number(tmp_path / "in" / str(number)) for number in range(10)]


class Worker:
    """Reads a number, and notes which; goes on strike at one."""

    def __init__(self, strike=None):
        self.seen, self.strike = [], strike

    def __call__(self, item):
        if item.id == self.strike:
            raise Interrupt
        self.seen.append(item.id)
        number = int(item.path.read_text())
        return {"number": number, "name": f"ü {number}", "pair": (number, 0.1)}, np.full((2, number % 3 + 1), number)


def opened(numbers, said=None, **options):
    workers = Workers() if said is None else Workers(say=said.append)
    return open_cache(numbers[0].path.parents[1] / "x.h5", workers, numbers, **options)


def interrupted(numbers, at="6", **options):
    store, worker = opened(numbers, **options), Worker(strike=at)
    with pytest.raises(Interrupt):
        store.each("read", numbers, worker, lambda done: None)
    return store, worker


def check(records):
    for number, record in enumerate(records):
        square = number * number
        assert record.facts == {"number": square, "name": f"ü {square}", "pair": (square, 0.1)}
        found = record.pixels()
        assert (found.shape, found.dtype) == ((2, square % 3 + 1), np.int64)
        assert (found == square).all()


def test_all_are_done_and_read_back(numbers):
    store, worker, steps = opened(numbers), Worker(), []
    check(store.each("read", numbers, worker, steps.append))
    assert worker.seen == [number.id for number in numbers]
    assert steps == list(range(1, 11))
    assert store.finish(lambda: "written") == "written"
    assert not store.directory.exists()


def test_an_interrupted_job_goes_on(numbers):
    _, first = interrupted(numbers)
    _, second = interrupted(numbers, at="8")
    said, steps, third = [], [], Worker()
    store = opened(numbers, said)
    check(store.each("read", numbers, third, steps.append))
    assert first.seen + second.seen + third.seen == [number.id for number in numbers]
    assert said == [f"{store.directory}: continuing; 8 read are there"]
    assert steps == [9, 10]


def test_stages_do_not_mix(numbers):
    store = opened(numbers)
    store.each("first", numbers, lambda item: ({"stage": 1}, None), lambda done: None)
    records = store.each("second", numbers, lambda item: ({"stage": 2}, None), lambda done: None)
    assert [record.facts["stage"] for record in records] == [2] * 10
    again = opened(numbers).each("first", numbers, Worker(), lambda done: None)
    assert [record.facts["stage"] for record in again] == [1] * 10


@pytest.mark.parametrize("change", ["content", "time", "file", "options", "version", "damage"])
def test_another_source_or_option_starts_anew_and_says_so(numbers, change, monkeypatch):
    store, _ = interrupted(numbers, size=8)
    options, named = {"size": 8}, {"options": "options", "version": "version", "damage": "something"}
    if change == "content":
        numbers[3].path.write_text("16777216")
    elif change == "time":
        os.utime(numbers[3].path, (1, 1))
    elif change == "file":
        numbers = numbers[1:]
    elif change == "options":
        options = {"size": 9}
    elif change == "version":
        monkeypatch.setattr("ddhpc.data.sources.decode_cache.__version__", "0.0.0")
    else:
        (store.directory / "identity.json").write_text("{")
    said, worker = [], Worker()
    opened(numbers, said, **options).each("read", numbers, worker, lambda done: None)
    assert len(worker.seen) == len(numbers)
    assert said == [f"{store.directory}: {named.get(change, 'source')} changed since; starting anew"]


@pytest.mark.parametrize("missing", [1, 30])
def test_what_was_cut_off_is_done_again(numbers, missing):
    store, _ = interrupted(numbers)
    (index,), (data,) = store.directory.glob("*.index"), store.directory.glob("*.data")
    if missing == 1:
        os.truncate(index, index.stat().st_size - 1)
    else:
        os.truncate(data, data.stat().st_size - missing)
    worker = Worker()
    check(opened(numbers).each("read", numbers, worker, lambda done: None))
    assert 4 < len(worker.seen) < 10 if missing > 1 else len(worker.seen) in (4, 5)


def test_damaged_pixels_are_named(numbers):
    store, _ = interrupted(numbers)
    (data,) = store.directory.glob("*.data")
    with data.open("r+b") as file:
        file.write(b"\xff")
    records = opened(numbers).each("read", numbers, Worker(), lambda done: None)
    with pytest.raises(InputError, match=r"\.data: is damaged; remove .*x\.h5\.partial to decode anew"):
        records[0].pixels()


def test_a_directory_that_was_being_removed_starts_anew(numbers):
    store, _ = interrupted(numbers)
    (store.directory / "identity.json").unlink()
    said, worker = [], Worker()
    opened(numbers, said).each("read", numbers, worker, lambda done: None)
    assert said == [f"{store.directory}: something changed since; starting anew"]
    assert len(worker.seen) == 10


def test_a_directory_of_somebody_else_is_left_alone(numbers, tmp_path):
    (tmp_path / "x.h5.partial").mkdir()
    (tmp_path / "x.h5.partial/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--output .*x.h5: .*x.h5.partial holds thesis.txt; expected"):
        opened(numbers)
    assert (tmp_path / "x.h5.partial/thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON", '{"made_by": "another program"}'])
def test_an_identity_of_somebody_else_is_left_alone(numbers, tmp_path, content):
    (tmp_path / "x.h5.partial").mkdir()
    (tmp_path / "x.h5.partial/identity.json").write_text(content)
    with pytest.raises(InputError, match=r"x.h5.partial holds an identity.json that is not of `prepare`; expected no"):
        opened(numbers)
    assert (tmp_path / "x.h5.partial/identity.json").read_text() == content


def test_a_link_to_a_directory_elsewhere_is_left_alone(numbers, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1-read-00000.data").write_text("mine")
    (tmp_path / "x.h5.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="x.h5.partial is no directory of its own"):
        opened(numbers)
    assert (tmp_path / "elsewhere/1-read-00000.data").exists()


def test_an_output_where_nothing_can_be_written_is_named(numbers, tmp_path):
    (tmp_path / "x.h5.partial").write_text("a file")
    with pytest.raises(InputError, match=r"--output .*x.h5: .*x.h5.partial cannot be written: Not a directory"):
        opened(numbers)
