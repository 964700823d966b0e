"""Replace secrets by placeholders, many strings at once, with the result of one at a time.

Strings are joined to blocks, because the scanner's cost per call is far above its cost per byte. A block only says
which strings are worth a second look: those, and those next to a finding, are scanned again alone, until nothing more
is found. What is replaced therefore never depends on a string's neighbours, and a second pass changes nothing.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import xxhash
from stringzilla import find

from toolcall_pipeline.artifacts import sha256_json
from toolcall_pipeline.errors import RedactionError
from toolcall_pipeline.redaction import addresses, leaves, personal, scanner
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


class Part(msgspec.Struct, gc=False):
    """One of the strings that are scanned together: its number, itself, the bytes to scan, and what is known of it."""

    number: int
    text: str
    data: bytes
    digest: bytes | None = None
    named: Named | None = None
    unit: Unit | None = None
    is_secret: bool = False


class Batch:
    """The strings of some texts and JSON values, and what becomes of them.

    Attributes:
        texts: The strings, redacted in place.
        contexts: The telling name each stands under, or an empty string.
    """

    def __init__(self, items: Sequence[tuple[str, Any]]) -> None:
        self.texts: list[str] = []
        self.contexts: list[str] = []
        self._items = items
        self._ends: list[int] = []
        self._changed: set[int] = set()
        for _, value in items:
            if isinstance(value, str):
                self.texts.append(value)
                self.contexts.append("")
            else:
                leaves.collect_leaves(value, self.texts, self.contexts)
            self._ends.append(len(self.texts))

    def session_key(self, number: int) -> str:
        """Return the session key of the item that a string belongs to."""
        return self._items[bisect_right(self._ends, number)][0]

    def put(self, number: int, text: str) -> None:
        """Put another text in a string's place."""
        self.texts[number] = text
        self._changed.add(number)

    def values(self) -> list[Any]:
        """Return the items' values with their texts; a value in which nothing changed is itself."""
        values: list[Any] = []
        start = 0
        for (_, value), end in zip(self._items, self._ends, strict=True):
            if isinstance(value, str):
                values.append(self.texts[start])
            elif self._changed.isdisjoint(range(start, end)):
                values.append(value)
            else:
                values.append(leaves.rebuild(value, iter(self.texts[start:end])))
            start = end
        return values


class Block:
    """Strings joined to be searched as one.

    Attributes:
        data: They and what stands between them.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.data = _SEPARATOR.join(parts)
        self._lengths = map(len, parts)
        # Where the string behind each one begins, worked out when the first is asked for.
        self._ends: list[int] = []

    def index_at(self, place: int) -> int:
        """Return which of the strings a byte is in, or behind."""
        if not self._ends:
            self._ends = list(accumulate(length + len(_SEPARATOR) for length in self._lengths))
        return min(bisect_right(self._ends, place), len(self._ends) - 1)

    def holding(self, words: Iterable[bytes]) -> list[int]:
        """Return which of the strings hold one of the words, in order."""
        found: set[int] = set()
        for word in words:
            place = find(self.data, word)
            while place >= 0:
                index = self.index_at(place)
                found.add(index)
                place = find(self.data, word, self._ends[index]) if index + 1 < len(self._ends) else -1
        return sorted(found)


class Redactor:
    """Replaces secrets, personal names and what the user lists.

    Cheap to make and to pickle: the scanner itself is loaded on first use, once per process.
    """

    def __init__(self, options: RedactionOptions | None = None) -> None:
        self.options = options or RedactionOptions()
        self._counts: Counter[str] = Counter()
        self._replace_user_names = personal.user_name_replacer(self.options)
        self._literals = personal.literal_patterns(self.options)
        # Strings without secrets: short ones with what replacing names made of them, None where it changed nothing; digests
        # of long ones, under a seed that nobody who writes a session can know, with whether they hold names.
        self._known_short: dict[str, Named | None] = {}
        self._known_long: dict[bytes, bool] = {}
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
        batch = Batch(items)
        for numbers in self._blocks(batch):
            self._redact_block(numbers, batch)
        return batch.values()

    def report(self) -> dict[str, int]:
        """Return the number of replacements by rule since the start or the last reset, sorted by rule."""
        return dict(sorted(self._counts.items()))

    def reset_report(self) -> dict[str, int]:
        """Return the report and start a new one."""
        report = self.report()
        self._counts.clear()
        return report

    def _blocks(self, batch: Batch) -> Iterator[list[int]]:
        """Give the numbers of the texts that are scanned together: about `BLOCK_BYTES`, a longer text alone.

        Short ones that are known by then are not among them: what names make of them is put in their place.
        """
        contexts, known = batch.contexts, self._known_short
        numbers: list[int] = []
        size = 0
        for number, text in enumerate(batch.texts):
            length = len(text) + len(_SEPARATOR)
            if length < _SHORT_CHARACTERS and text in known and not contexts[number]:
                self._put(known[text], number, batch)
                continue
            if numbers and size + length > BLOCK_BYTES:
                yield numbers
                numbers, size = [], 0
            numbers.append(number)
            size += length
        if numbers:
            yield numbers

    def _put(self, named: Named | None, number: int, batch: Batch) -> None:
        """Put a text without names in its place and count them."""
        if named is not None:
            batch.put(number, named.text)
            self._count_names(named)

    def _count_names(self, named: Named) -> None:
        for rule_id, count in (("home_path", named.home_count), ("user_name", named.user_count)):
            if count:
                self._counts[rule_id] += count

    def _redact_block(self, numbers: list[int], batch: Batch) -> None:
        """Redact some of the texts in place."""
        texts, contexts = batch.texts, batch.contexts
        parts: list[Part] = []
        for number in numbers:
            part = Part(number, texts[number], _encode(texts[number]))
            if len(part.data) >= _SHORT_CHARACTERS and not contexts[number]:
                part.digest = xxhash.xxh3_128_digest(part.data, self._seed)
                holds_names = self._known_long.get(part.digest)
                if holds_names is not None:
                    if holds_names:
                        self._put(self._without_names(part.text, part.data), number, batch)
                    continue
            parts.append(part)
        for part in self._name_holders(parts):
            part.named = self._without_names(part.text, part.data)
            if part.named is not None:
                self._put(part.named, part.number, batch)
                part.data = _encode(part.named.text)
        for part in parts:
            if contexts[part.number]:
                part.unit = Unit(contexts[part.number], texts[part.number])
                part.data = _encode(part.unit.text)
        for part in self._suspects(parts, texts):
            number = part.number
            redacted = self._redact_alone(part.unit or Unit("", texts[number]), batch.session_key(number))
            if redacted != texts[number]:
                batch.put(number, redacted)
                part.is_secret = True
        self._remember(parts)

    def _remember(self, parts: list[Part]) -> None:
        """Remember what need not be scanned again."""
        for known in (self._known_short, self._known_long):
            if len(known) > _MAX_REMEMBERED:
                known.clear()
        for part in parts:
            if part.is_secret or part.unit is not None:
                continue
            if part.digest is not None:
                self._known_long[part.digest] = part.named is not None
            elif len(part.text) < _SHORT_CHARACTERS:
                self._known_short[part.text] = part.named

    def _name_holders(self, parts: list[Part]) -> list[Part]:
        """Return the parts that may hold names."""
        if self._replace_user_names is not None:
            return parts
        if not self.options.home_paths:
            return []
        block = Block([part.data for part in parts])
        return [parts[index] for index in block.holding(personal.HOME_NAME_HINTS)]

    def _without_names(self, text: str, data: bytes) -> Named | None:
        """Return a text, given with its UTF-8, without names; None where there are none."""
        home_count = user_count = 0
        if self.options.home_paths:
            text, home_count = personal.replace_home_names(text, data)
        if self._replace_user_names is not None:
            text, user_count = self._replace_user_names(text)
        return Named(text, home_count, user_count) if home_count or user_count else None

    def _suspects(self, parts: list[Part], texts: list[str]) -> list[Part]:
        """Return the parts that a scan of all, joined, gives reason to look at."""
        suspects = {
            index
            for _, pattern in self._literals
            for index, part in enumerate(parts)
            if pattern.search(texts[part.number])
        }
        block = Block([part.data for part in parts])
        for span in scanner.scan(block.data):
            # An address ends where its own signs end, and takes nothing from another finding.
            reach = 0 if span.rule_id == addresses.RULE_ID else _NEIGHBOUR_BYTES
            first = block.index_at(max(0, span.start - reach))
            suspects.update(range(first, block.index_at(span.end - 1 + reach) + 1))
        return [parts[index] for index in sorted(suspects)]

    def _find(self, text: str) -> list[tuple[int, int, str]]:
        """Return (start, end, rule id) in bytes of everything the scanner and the user's own list name."""
        found = [(span.start, span.end, span.rule_id) for span in scanner.scan(_encode(text))]
        for rule_id, pattern in self._literals:
            for match in pattern.finditer(text):
                start = len(_encode(text[: match.start()]))
                found.append((start, start + len(_encode(match[0])), rule_id))
        return found

    def _redact_alone(self, unit: Unit, session_key: str) -> str:
        """Scan one string again and again until no rule finds anything more in it."""
        for _ in range(_MAX_PASSES):
            value = _encode(unit.value)
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
            data = b"".join(parts)
            text = data.decode("utf-8", "surrogatepass")
            named = self._without_names(text, data)
            if named is not None:
                self._count_names(named)
            unit = Unit(unit.context, text if named is None else named.text)
        raise RedactionError(
            f"A text of {len(unit.value)} characters was not settled after {_MAX_PASSES} passes. Nothing of it was "
            "stored. Two rules feed each other: see the report by rule, and mend the rule file."
        )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
