"""Replace secrets by placeholders, many strings at once, with the result of one at a time.

Strings are joined to blocks, because the scanner's cost per call is far above its cost per byte. A block only says
which strings are worth a second look: those, and those next to a finding, are scanned again alone, until nothing more
is found. What is replaced therefore never depends on a string's neighbours, and a second pass changes nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.errors import RedactionError
from toolcall_pipeline.redaction import leaves, personal, scanner
from toolcall_pipeline.redaction.options import RedactionOptions
from toolcall_pipeline.redaction.placeholders import make_placeholder
from toolcall_pipeline.redaction.spans import Unit, merge_spans

BLOCK_BYTES = 1 << 20
_SEPARATOR = b"\n\x1e\n\n\x1e\n"
# A finding may reach this far into a neighbour of the string it stands in: both are looked at again.
_NEIGHBOUR_BYTES = 512
_MAX_PASSES = 12


@dataclass(frozen=True, slots=True)
class _Task:
    session_key: str
    unit: Unit


class Redactor:
    """Replaces secrets, personal names and what the user lists.

    Cheap to make and to pickle: the scanner itself is loaded on first use, once per process.
    """

    def __init__(self, options: RedactionOptions | None = None) -> None:
        self.options = options or RedactionOptions()
        self._counts: Counter[str] = Counter()
        self._replace_names = personal.user_name_replacer(self.options)
        self._literals = personal.literal_patterns(self.options)

    def __reduce__(self) -> tuple[type[Redactor], tuple[RedactionOptions]]:
        return Redactor, (self.options,)

    @property
    def fingerprint(self) -> str:
        """Return the hash of everything that decides a redaction: scanner, rules, options."""
        return sha256_json({"rules": scanner.rules_fingerprint(), "options": self.options.model_dump(mode="json")})

    def redact_text(self, text: str, session_key: str) -> str:
        """Return one text redacted; see `redact_batch`."""
        return self.redact_batch([(session_key, text)])[0]

    def redact_texts(self, texts: Sequence[str], session_key: str) -> list[str]:
        """Return texts of one session redacted, in order; equal to `redact_text` on each."""
        return self.redact_batch([(session_key, text) for text in texts])

    def redact_json(self, value: Any, session_key: str) -> Any:
        """Return a copy of a JSON value with every string inside it redacted; keys and numbers stay."""
        return self.redact_batch([(session_key, value)])[0]

    def redact_jsons(self, values: Sequence[Any], session_key: str) -> list[Any]:
        """Return JSON values of one session redacted, in order; equal to `redact_json` on each."""
        return self.redact_batch([(session_key, value) for value in values])

    def redact_batch(self, items: Sequence[tuple[str, Any]]) -> list[Any]:
        """Redact texts and JSON values of any sessions in one go, the fastest way.

        Args:
            items: (session key, text or JSON value). Inputs are not changed.

        Returns:
            The redacted values, in order. Each is what it would be alone.

        Raises:
            RedactionError: The scanner failed; nothing is returned.
        """
        tasks: list[_Task] = []
        for session_key, value in items:
            tasks += [_Task(session_key, self._unit(leaf)) for leaf in leaves.iter_leaves(value)]
        redacted = iter(self._redact_tasks(tasks))
        return [leaves.rebuild(value, redacted) for _, value in items]

    def report(self) -> dict[str, int]:
        """Return the number of replacements by rule since the start or the last reset, sorted by rule."""
        return dict(sorted(self._counts.items()))

    def reset_report(self) -> dict[str, int]:
        """Return the report and start a new one."""
        report = self.report()
        self._counts.clear()
        return report

    def _unit(self, leaf: leaves.Leaf) -> Unit:
        text = leaf.text
        if self.options.home_paths:
            text, count = personal.replace_home_names(text)
            if count:
                self._counts["home_path"] += count
        if self._replace_names is not None:
            text, count = self._replace_names(text)
            if count:
                self._counts["user_name"] += count
        return Unit(leaf.context, text.encode("utf-8", "surrogatepass"))

    def _redact_tasks(self, tasks: list[_Task]) -> list[str]:
        results = [task.unit.value for task in tasks]
        for numbers in _blocks(tasks):
            for number in self._suspects(tasks, numbers):
                results[number] = self._redact_alone(tasks[number])
        return [value.decode("utf-8", "surrogatepass") for value in results]

    def _suspects(self, tasks: list[_Task], numbers: Sequence[int]) -> list[int]:
        """Return the numbers of the block's strings that a scan of the joined block gives reason to look at."""
        starts: list[int] = []
        parts: list[bytes] = []
        position = 0
        for number in numbers:
            starts.append(position)
            part = tasks[number].unit.data
            parts.append(part)
            position += len(part) + len(_SEPARATOR)
        block = _SEPARATOR.join(parts)
        suspects: set[int] = set()
        reach = _NEIGHBOUR_BYTES if len(parts) > 1 else 0
        for start, end, _ in self._find(block):
            first = bisect_right(starts, max(0, start - reach)) - 1
            last = bisect_right(starts, min(len(block) - 1, end + reach)) - 1
            suspects.update(range(first, last + 1))
        return [numbers[index] for index in sorted(suspects)]

    def _find(self, data: bytes) -> list[tuple[int, int, str]]:
        found = [(span.start, span.end, span.rule_id) for span in scanner.scan(data)] if data else []
        for rule_id, pattern in self._literals:
            found += [(match.start(), match.end(), rule_id) for match in pattern.finditer(data)]
        return found

    def _redact_alone(self, task: _Task) -> bytes:
        """Scan one string again and again until no rule finds anything more in it."""
        unit = task.unit
        for _ in range(_MAX_PASSES):
            spans = merge_spans(unit, self._find(unit.data), self.options)
            if not spans:
                return unit.value
            value = bytearray()
            position = 0
            for span in spans:
                placeholder = make_placeholder(
                    span.kind, unit.value[span.start : span.end], task.session_key, self.options.placeholder_salt
                )
                value += unit.value[position : span.start] + placeholder
                position = span.end
                self._counts[span.rule_id] += 1
            unit = Unit(unit.context, bytes(value + unit.value[position:]))
        raise RedactionError(
            f"A text of {len(task.unit.value)} bytes was not settled after {_MAX_PASSES} passes. Nothing of it was "
            "stored. Two rules feed each other: see the report by rule, and mend the rule file."
        )


def _blocks(tasks: list[_Task]) -> Iterator[Sequence[int]]:
    """Give the numbers of the strings that are scanned together: about `BLOCK_BYTES`, a longer string alone."""
    numbers: list[int] = []
    size = 0
    for number, task in enumerate(tasks):
        length = len(task.unit.data)
        if numbers and size + length > BLOCK_BYTES:
            yield numbers
            numbers, size = [], 0
        numbers.append(number)
        size += length + len(_SEPARATOR)
    if numbers:
        yield numbers
