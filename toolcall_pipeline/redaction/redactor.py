"""Replace secrets by placeholders, many strings at once, with the result of one at a time.

Strings are joined to blocks, because the scanner's cost per call is far above its cost per byte. A block only says
which strings are worth a second look: those, and those next to a finding, are scanned again alone, until nothing more
is found. What is replaced therefore never depends on a string's neighbours, and a second pass changes nothing.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import xxhash

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.errors import RedactionError
from toolcall_pipeline.redaction import leaves, personal, scanner
from toolcall_pipeline.redaction.options import RedactionOptions
from toolcall_pipeline.redaction.placeholders import make_placeholder
from toolcall_pipeline.redaction.spans import Unit, merge_spans

# Small enough to stay in a core's cache while it is joined and scanned.
BLOCK_BYTES = 1 << 16
_SEPARATOR = b"\n\x1e\n\n\x1e\n"
# A finding may reach this far into a neighbour of the string it stands in: both are looked at again.
_NEIGHBOUR_BYTES = 512
_MAX_PASSES = 12
# Agents name the same paths and read the same files again and again: half of the short strings and a fifth of all bytes
# were seen before. Short ones are remembered as they are, long ones by digest.
_SHORT_CHARACTERS = 256
_MAX_REMEMBERED = 1 << 16


class Named(NamedTuple):
    """A text whose names were replaced, and how many were."""

    text: str
    home_count: int
    user_count: int


class Redactor:
    """Replaces secrets, personal names and what the user lists.

    Cheap to make and to pickle: the scanner itself is loaded on first use, once per process.
    """

    def __init__(self, options: RedactionOptions | None = None) -> None:
        self.options = options or RedactionOptions()
        self._counts: Counter[str] = Counter()
        self._replace_user_names = personal.user_name_replacer(self.options)
        self._literals = personal.literal_patterns(self.options)
        # Short strings without secrets, with what replacing names made of them, None where it changed nothing.
        self._known: dict[str, Named | None] = {}
        # Digests of long ones, names replaced, under a seed that nobody who writes a session can know.
        self._clean: set[bytes] = set()
        self._seed = int.from_bytes(os.urandom(8), "big")

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
        """Return a JSON value with every string inside it redacted; keys and numbers stay."""
        return self.redact_batch([(session_key, value)])[0]

    def redact_jsons(self, values: Sequence[Any], session_key: str) -> list[Any]:
        """Return JSON values of one session redacted, in order; equal to `redact_json` on each."""
        return self.redact_batch([(session_key, value) for value in values])

    def redact_batch(self, items: Sequence[tuple[str, Any]]) -> list[Any]:
        """Redact texts and JSON values of any sessions in one go, the fastest way.

        Args:
            items: (session key, text or JSON value). Inputs are not changed.

        Returns:
            The redacted values, in order. Each is what it would be alone; one in which nothing is found is the input itself.

        Raises:
            RedactionError: The scanner failed; nothing is returned.
        """
        texts: list[str] = []
        contexts: list[str] = []
        keys: list[str] = []
        ends: list[int] = []
        for session_key, value in items:
            leaves.collect_leaves(value, texts, contexts)
            keys.extend([session_key] * (len(texts) - len(keys)))
            ends.append(len(texts))
        changed: set[int] = set()
        for numbers in self._blocks(texts, contexts, changed):
            self._redact_block(numbers, texts, contexts, keys, changed)
        return _rebuilt(items, ends, texts, changed)

    def report(self) -> dict[str, int]:
        """Return the number of replacements by rule since the start or the last reset, sorted by rule."""
        return dict(sorted(self._counts.items()))

    def reset_report(self) -> dict[str, int]:
        """Return the report and start a new one."""
        report = self.report()
        self._counts.clear()
        return report

    def _blocks(self, texts: list[str], contexts: list[str], changed: set[int]) -> Iterator[list[int]]:
        """Give the numbers of the texts that are scanned together: about `BLOCK_BYTES`, a longer text alone.

        Short ones that are known by then are not among them: what names make of them is put in their place.
        """
        numbers: list[int] = []
        size = 0
        for number, text in enumerate(texts):
            length = len(text) + len(_SEPARATOR)
            if length < _SHORT_CHARACTERS and text in self._known and not contexts[number]:
                self._put(self._known[text], number, texts, changed)
                continue
            if numbers and size + length > BLOCK_BYTES:
                yield numbers
                numbers, size = [], 0
            numbers.append(number)
            size += length
        if numbers:
            yield numbers

    def _put(self, named: Named | None, number: int, texts: list[str], changed: set[int]) -> None:
        """Put a text without names in its place and count them."""
        if named is not None:
            texts[number] = named.text
            changed.add(number)
            self._count_names(named)

    def _redact_block(
        self, numbers: list[int], texts: list[str], contexts: list[str], keys: list[str], changed: set[int]
    ) -> None:
        """Redact some of the texts in place and add the numbers of those that changed."""
        originals = [texts[number] for number in numbers]
        names = [self._without_names(text) for text in originals]
        for number, named in zip(numbers, names, strict=True):
            self._put(named, number, texts, changed)
        units = {
            index: Unit(contexts[number], texts[number]) for index, number in enumerate(numbers) if contexts[number]
        }
        parts = [units[index].text if index in units else texts[number] for index, number in enumerate(numbers)]
        # Encoded one by one: joined first, one wide character would make all of them wide.
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        digests = [
            xxhash.xxh3_128_digest(data, self._seed) if len(part) >= _SHORT_CHARACTERS else None
            for part, data in zip(parts, encoded, strict=True)
        ]
        secret: set[int] = set()
        for index in self._suspects(parts, encoded, digests):
            number = numbers[index]
            redacted = self._redact_alone(units.get(index) or Unit("", texts[number]), keys[number])
            if redacted != texts[number]:
                texts[number] = redacted
                changed.add(number)
                secret.add(index)
        self._remember(originals, names, digests, secret.union(units))

    def _remember(
        self, originals: list[str], names: list[Named | None], digests: list[bytes | None], left_out: set[int]
    ) -> None:
        """Remember what need not be looked at again."""
        if len(self._known) > _MAX_REMEMBERED:
            self._known.clear()
        if len(self._clean) > _MAX_REMEMBERED:
            self._clean.clear()
        for index, (text, named, digest) in enumerate(zip(originals, names, digests, strict=True)):
            if index in left_out:
                continue
            if len(text) < _SHORT_CHARACTERS:
                self._known[text] = named
            elif digest is not None:
                self._clean.add(digest)

    def _without_names(self, text: str) -> Named | None:
        """Return a text without names, None where there are none."""
        if self._replace_user_names is None and not personal.may_hold_home_name(text):
            return None
        home_count = user_count = 0
        if self.options.home_paths:
            text, home_count = personal.replace_home_names(text)
        if self._replace_user_names is not None:
            text, user_count = self._replace_user_names(text)
        return Named(text, home_count, user_count) if home_count or user_count else None

    def _count_names(self, named: Named) -> None:
        for rule_id, count in (("home_path", named.home_count), ("user_name", named.user_count)):
            if count:
                self._counts[rule_id] += count

    def _suspects(self, parts: list[str], encoded: list[bytes], digests: list[bytes | None]) -> list[int]:
        """Return the numbers of the block's strings that a scan of the joined block gives reason to look at."""
        suspects = {
            number for _, pattern in self._literals for number, part in enumerate(parts) if pattern.search(part)
        }
        numbers = [number for number, digest in enumerate(digests) if digest not in self._clean]
        found = scanner.scan(_SEPARATOR.join([encoded[number] for number in numbers]))
        if found:
            starts = list(accumulate((len(encoded[number]) + len(_SEPARATOR) for number in numbers), initial=0))
            for span in found:
                first = bisect_right(starts, max(0, span.start - _NEIGHBOUR_BYTES)) - 1
                last = bisect_right(starts, span.end + _NEIGHBOUR_BYTES) - 1
                suspects.update(numbers[first : last + 1])
        return sorted(suspects)

    def _find(self, text: str) -> list[tuple[int, int, str]]:
        """Return (start, end, rule id) in bytes of everything the scanner and the user's own list name."""
        found = [(span.start, span.end, span.rule_id) for span in scanner.scan(text.encode("utf-8", "surrogatepass"))]
        for rule_id, pattern in self._literals:
            for match in pattern.finditer(text):
                start = len(text[: match.start()].encode("utf-8", "surrogatepass"))
                found.append((start, start + len(match[0].encode("utf-8", "surrogatepass")), rule_id))
        return found

    def _redact_alone(self, unit: Unit, session_key: str) -> str:
        """Scan one string again and again until no rule finds anything more in it."""
        for _ in range(_MAX_PASSES):
            value = unit.value.encode("utf-8", "surrogatepass")
            found = self._find(unit.text)
            spans = merge_spans(value, found, offset=unit.prefix_bytes, options=self.options)
            if not spans:
                return unit.value
            parts: list[bytes] = []
            position = 0
            for span in spans:
                secret = value[span.start : span.end]
                parts += [
                    value[position : span.start],
                    make_placeholder(span.kind, secret, session_key, self.options.placeholder_salt),
                ]
                position = span.end
                self._counts[span.rule_id] += 1
            parts.append(value[position:])
            # Names once more: a replacement may have made a path's beginning of what was none.
            text = b"".join(parts).decode("utf-8", "surrogatepass")
            named = self._without_names(text)
            if named is not None:
                self._count_names(named)
            unit = Unit(unit.context, text if named is None else named.text)
        raise RedactionError(
            f"A text of {len(unit.value)} characters was not settled after {_MAX_PASSES} passes. Nothing of it was "
            "stored. Two rules feed each other: see the report by rule, and mend the rule file."
        )


def _rebuilt(items: Sequence[tuple[str, Any]], ends: list[int], texts: list[str], changed: set[int]) -> list[Any]:
    """Return the items' values with their texts; a value in which nothing changed is itself."""
    values: list[Any] = []
    start = 0
    for (_, value), end in zip(items, ends, strict=True):
        if isinstance(value, str):
            values.append(texts[start])
        elif changed.isdisjoint(range(start, end)):
            values.append(value)
        else:
            values.append(leaves.rebuild(value, iter(texts[start:end])))
        start = end
    return values
