import pytest

from ytvis.diagnostics import Diagnostic, Diagnostics, Rule, exit_code, format_diagnostics
from ytvis.files import InputError
from ytvis.messages import excerpt

BAD = Rule("refused", "a mask is bad", "mend it")
ODD = Rule("warning", "a score is odd", "look at it")


def test_ten_thousand_of_a_kind_are_one_line_with_their_number_and_the_first_place():
    found = Diagnostics()
    for index in range(10_000):
        found.add(BAD, f"entry {index}", f"detail {index}")
    (diagnostic,) = found
    assert diagnostic == Diagnostic("refused", "entry 0", "a mask is bad: detail 0", "mend it", 10_000)
    assert str(diagnostic) == "refused: entry 0: a mask is bad: detail 0 (10000 times, first here); mend it"


def test_warnings_come_last_and_do_not_fail():
    found = Diagnostics()
    found.add(ODD, "entry 3")
    assert exit_code(found) == 0
    found.add(BAD, "entry 5")
    assert [diagnostic.severity for diagnostic in found] == ["refused", "warning"]
    assert exit_code(found) == 1
    assert format_diagnostics(found).splitlines() == [
        "refused: entry 5: a mask is bad; mend it",
        "warning: entry 3: a score is odd; look at it",
        "1 refused, 1 warning",
    ]


def test_the_sum_counts_faults_not_lines():
    found = Diagnostics()
    for rule in (BAD, BAD, ODD, Rule("fault", "b", "c"), Rule("fault", "d", "c"), ODD):
        found.add(rule, "here")
    assert format_diagnostics(found).endswith("\n2 refused, 2 faults, 2 warnings")


def test_a_diagnostic_is_one_line_whatever_it_is_about():
    found = Diagnostics()
    found.add(BAD, "entry 0", "a\nb" + "c" * 1000)
    (diagnostic,) = found
    assert "\n" not in str(diagnostic) and len(str(diagnostic)) < 250


def test_nothing_found():
    assert list(Diagnostics()) == [] and exit_code([]) == 0
    assert format_diagnostics([]) == "nothing is wrong"


def test_a_file_is_refused_at_its_first_fault_and_at_the_warnings_that_are_named():
    found = Diagnostics(refuse="a.json", also=(ODD,))
    with pytest.raises(InputError, match=r"^a\.json: entry 3: a score is odd: 7; look at it$"):
        found.add(ODD, "entry 3", 7)
    found = Diagnostics(refuse="a.json")
    found.add(ODD, "entry 3")
    with pytest.raises(InputError, match=r"^a\.json: entry 5: a mask is bad; mend it$"):
        found.add(BAD, "entry 5")
    assert found.of(ODD) == [Diagnostic("warning", "entry 3", "a score is odd", "look at it")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb\t c", "a b c"),
        ("\ud800x\x00", r"\ud800x\x00"),
        ("x" * 200, "x" * 119 + "…"),
        pytest.param(10**5000, "a number of thousands of digits", id="long"),
        ("Bär 🐻", "Bär 🐻"),
    ],
)
def test_a_message_is_one_line_that_can_be_printed(value, text):
    assert excerpt(value) == text
    excerpt(value).encode("utf-8")
