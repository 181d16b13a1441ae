import pytest

from ytvis.messages import LONGEST_LINE, excerpt, one_line, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain – größer ≥ 1", "plain – größer ≥ 1"),
        ("two\nlines\r\tand\0NUL", "two\\nlines\\r\\tand\\x00NUL"),
        ("half \ud800 of a pair, \u2028, \u202e", "half \\ud800 of a pair, \\u2028, \\u202e"),
    ],
)
def test_a_message_is_one_printable_line(text, expected):
    assert one_line(text) == expected


def test_of_long_words_and_lines_the_middle_is_left_out():
    text = one_line("file " + "x" * 5000 + " cannot be read")
    assert len(text) < 330 and text.startswith("file xxx") and text.endswith("xxx cannot be read") and "…" in text
    text = one_line("first " + "word " * 5000 + "last")
    assert len(text) <= LONGEST_LINE and text.startswith("first ") and text.endswith(" last")


def test_values_are_shown_short_and_printable():
    assert (shown("a\nb"), shown(7), shown([1, "x"])) == ("'a\\nb'", "7", "[1, 'x']")
    assert excerpt("a \n b\0\ud800") == "a b\\x00\\ud800"
    assert len(shown("x" * 500)) <= 120 and excerpt("x" * 50, 10) == "x" * 9 + "…"
    assert excerpt(10**5000) == "a number of thousands of digits"
