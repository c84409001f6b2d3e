"""Numbers as a person reads them."""

from ddhpc.wording import by, duration, mebibytes, percent


def test_numbers_as_a_person_reads_them():
    assert by((4, 4, 2)) == "4x4x2"
    assert percent(0.8943) == "89.4 %"
    assert duration(0.0123) == "0.012 s"
    assert duration(12.34) == "12.3 s"
    assert mebibytes(3 * 2**20) == "3.0 MiB"
