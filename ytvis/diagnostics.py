"""Faults of a file, one line for each kind with the number of its occurrences.

A reader reports every fault to a `Diagnostics`. The checker collects them all; everything else refuses a file at its
first fault, in the same words.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ytvis.files import InputError
from ytvis.messages import excerpt

Severity = Literal["refused", "fault", "warning"]  # "refused" is a fault of a results file


class Rule(NamedTuple):
    """A kind of fault: its severity, what is wrong, and how to correct it. A file with a warning is still accepted."""

    severity: Severity
    what: str
    mend: str


@dataclass(frozen=True)
class Diagnostic:
    """A kind of fault found in a file: `count` times, first at `where`. As text it is one line."""

    severity: Severity
    where: str
    what: str
    mend: str
    count: int = 1

    def __str__(self) -> str:
        times = f" ({self.count} times, first here)" if self.count > 1 else ""
        return f"{self.severity}: {self.where}: {self.what}{times}; {self.mend}"


class Diagnostics:
    """Collects faults; iterates over one `Diagnostic` a rule, warnings last, otherwise in order of appearance.

    Only one of each rule is kept.
    """

    def __init__(self, refuse: str | os.PathLike | None = None, also: Collection[Rule] = ()):
        """With `refuse`, the name of the file, the first fault or warning of `also` raises InputError."""
        self._refuse = refuse
        self._also = also
        self._first: dict[Rule, tuple[str, str]] = {}
        self._counts: Counter[Rule] = Counter()

    def add(self, rule: Rule, where: str, detail: Any = "") -> None:
        """Adds a fault of `rule` at `where`; `detail` describes this one case."""
        if rule not in self._first:
            self._first[rule] = (excerpt(where), "" if detail == "" else excerpt(detail))
        self._counts[rule] += 1
        if self._refuse is not None and (rule.severity != "warning" or rule in self._also):
            (found,) = self.of(rule)
            raise InputError(f"{self._refuse}: {found.where}: {found.what}; {found.mend}")

    def of(self, *rules: Rule) -> list[Diagnostic]:
        """The faults found of these rules."""
        return [self._diagnostic(rule) for rule in rules if rule in self._first]

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.of(*sorted(self._first, key=lambda rule: rule.severity == "warning")))

    def _diagnostic(self, rule: Rule) -> Diagnostic:
        where, detail = self._first[rule]
        what = f"{rule.what}: {detail}" if detail else rule.what
        return Diagnostic(rule.severity, where, what, rule.mend, self._counts[rule])


def exit_code(diagnostics: Iterable[Diagnostic]) -> int:
    """1 if anything but warnings was found, otherwise 0."""
    return int(any(diagnostic.severity != "warning" for diagnostic in diagnostics))


def format_diagnostics(diagnostics: Iterable[Diagnostic]) -> str:
    """One line per diagnostic, and a last one with their sums; "nothing is wrong" without any."""
    diagnostics = list(diagnostics)
    sums = Counter()
    for diagnostic in diagnostics:
        sums[diagnostic.severity] += diagnostic.count
    plurals = {"refused": "refused", "fault": "faults", "warning": "warnings"}
    total = ", ".join(f"{sums[key]} {plurals[key] if sums[key] > 1 else key}" for key in plurals if sums[key])
    return "\n".join([*map(str, diagnostics), total or "nothing is wrong"])
