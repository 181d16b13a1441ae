from ytvis.diagnostics import Finding, Findings, Rule, exit_code, format_findings

BAD = Rule("refused", "a mask is bad", "mend it")
ODD = Rule("warning", "a score is odd", "look at it")


def test_ten_thousand_of_a_kind_are_one_line_with_their_number_and_the_first_place():
    findings = Findings()
    for index in range(10_000):
        findings.add(BAD, f"entry {index}", f"detail {index}")
    (finding,) = findings
    assert finding == Finding("refused", "entry 0", "a mask is bad: detail 0", "mend it", 10_000)
    assert str(finding) == "refused: entry 0: a mask is bad: detail 0 (10000 times, first here); mend it"


def test_warnings_come_last_and_do_not_fail():
    findings = Findings()
    findings.add(ODD, "entry 3")
    assert exit_code(findings) == 0
    findings.add(BAD, "entry 5")
    assert [finding.severity for finding in findings] == ["refused", "warning"]
    assert exit_code(findings) == 1
    assert format_findings(findings).splitlines() == [
        "refused: entry 5: a mask is bad; mend it",
        "warning: entry 3: a score is odd; look at it",
        "1 refused, 1 warning",
    ]


def test_the_sum_counts_faults_not_lines():
    findings = Findings()
    for rule in (BAD, BAD, ODD, Rule("fault", "b", "c"), Rule("fault", "d", "c"), ODD):
        findings.add(rule, "here")
    assert format_findings(findings).endswith("\n2 refused, 2 faults, 2 warnings")


def test_a_finding_is_one_line_whatever_it_is_about():
    findings = Findings()
    findings.add(BAD, "entry 0", "a\nb" + "c" * 1000)
    (finding,) = findings
    assert "\n" not in str(finding) and len(str(finding)) < 250


def test_nothing_found():
    assert list(Findings()) == [] and exit_code([]) == 0
    assert format_findings([]) == "nothing is wrong"
