"""What is wrong with a file, told in one line a fault: ten thousand of the same kind are one line with their number."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["refused", "fault", "warning"]


class Rule(NamedTuple):
    """A kind of fault: how bad it is, what is wrong, and how to mend it."""

    severity: Severity
    what: str
    mend: str


@dataclass(frozen=True)
class Finding:
    """A kind of fault found in a file: `count` times, first at `where`. As text it is one line."""

    severity: Severity
    where: str
    what: str
    mend: str
    count: int = 1

    def __str__(self) -> str:
        times = f" ({self.count} times, first here)" if self.count > 1 else ""
        return f"{self.severity}: {self.where}: {self.what}{times}; {self.mend}"


class Findings:
    """Collects findings. However many there are, no more is kept than one of each rule. Iterates over them as
    `Finding`s, the warnings last, otherwise in the order they came up."""

    def __init__(self):
        self._first: dict[Rule, tuple[str, str]] = {}
        self._counts: Counter[Rule] = Counter()

    def add(self, rule: Rule, where: str, detail: str = "") -> None:
        """Notes that `rule` is broken at `where`; `detail` says more about this one case."""
        self._first.setdefault(rule, (where, detail))
        self._counts[rule] += 1

    def __iter__(self) -> Iterator[Finding]:
        for rule in sorted(self._first, key=lambda rule: rule.severity == "warning"):
            where, detail = self._first[rule]
            what = f"{rule.what}: {_one_line(detail)}" if detail else rule.what
            yield Finding(rule.severity, where, what, rule.mend, self._counts[rule])


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if there is anything but warnings, otherwise 0."""
    return int(any(finding.severity != "warning" for finding in findings))


def format_findings(findings: Iterable[Finding]) -> str:
    """One line a finding, and a last one with their sums; "nothing is wrong" if there are none."""
    findings = list(findings)
    sums = Counter()
    for finding in findings:
        sums[finding.severity] += finding.count
    plurals = {"refused": "refused", "fault": "faults", "warning": "warnings"}
    total = ", ".join(f"{sums[key]} {plurals[key] if sums[key] > 1 else key}" for key in plurals if sums[key])
    return "\n".join([*map(str, findings), total or "nothing is wrong"])


def _one_line(text: str) -> str:
    """`text` without line breaks, and not too long."""
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:119]}…"
