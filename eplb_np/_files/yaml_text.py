"""Plain YAML from untrusted files: mappings, lists, integers and text, and nothing that YAML adds.

The text is taken apart into events, of which nothing is constructed: there are no tags, anchors
and aliases to obey, and integers are decimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LONGEST = 1 << 22
MOST_EVENTS = 1 << 20
"""Events of a text: each value, and each end of a list or mapping."""

MOST_EVENTS_IN_PYTHON = 1 << 16
LONGEST_IN_PYTHON = 1 << 20
"""Events and characters where PyYAML has no compiled parser, and takes ten times as long."""

DEEPEST = 4

INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")


def parse_yaml(text: str) -> dict[Any, Any]:
    """Return the mapping that a text of YAML is; its integers are ints, all else text or None."""
    try:
        import yaml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise ValueError("YAML is read by PyYAML: pip install 'eplb-np[yaml]'") from None
    compiled = hasattr(yaml, "CSafeLoader")
    loader = yaml.CSafeLoader if compiled else yaml.SafeLoader
    most = MOST_EVENTS if compiled else MOST_EVENTS_IN_PYTHON
    if not compiled and len(text) > LONGEST_IN_PYTHON:
        raise ValueError(
            f"it has more than {LONGEST_IN_PYTHON >> 20} MiB, which PyYAML is too slow for without "
            "its compiled parser: install PyYAML from a wheel"
        )
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST >> 20} MiB of YAML")
    events = _Events(yaml.parse(text, Loader=loader), most)
    events.expect("StreamStart")
    events.expect("DocumentStart")
    found = events.value(0)
    events.expect("DocumentEnd")
    events.expect("StreamEnd")
    if not isinstance(found, dict):
        raise ValueError("it is no mapping of YAML")
    return found


class _Events:
    def __init__(self, events: Iterator[Any], most: int) -> None:
        self._events = events
        self._left = most
        self._most = most

    def _next(self) -> tuple[str, Any]:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {self._most} values")
        event = next(self._events)
        return type(event).__name__.removesuffix("Event"), event

    def expect(self, kind: str) -> None:
        found, _ = self._next()
        if found != kind:
            raise ValueError(f"it is not a single document of YAML: {found} where {kind} is due")

    def value(self, depth: int) -> Any:
        kind, event = self._next()
        return self._value(kind, event, depth)

    def _value(self, kind: str, event: Any, depth: int) -> Any:
        line = event.start_mark.line + 1
        if kind == "Alias" or event.anchor is not None or event.tag is not None:
            raise ValueError(f"line {line} has an alias, an anchor or a tag: write plain YAML")
        if kind == "Scalar":
            return _scalar(event)
        if depth == DEEPEST:
            raise ValueError(f"line {line} has more than {DEEPEST} lists or mappings in each other")
        if kind == "SequenceStart":
            return self._sequence(depth + 1)
        return self._mapping(depth + 1)

    def _sequence(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while True:
            kind, event = self._next()
            if kind == "SequenceEnd":
                return found
            found.append(self._value(kind, event, depth))

    def _mapping(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        while True:
            kind, event = self._next()
            if kind == "MappingEnd":
                return found
            line = event.start_mark.line + 1
            key = self._value(kind, event, depth)
            if isinstance(key, (list, dict)):
                raise ValueError(f"line {line} has a key that is a list or a mapping")
            if key in found:
                raise ValueError(f"line {line} has the key {key!r} again")
            found[key] = self.value(depth)


def _scalar(event: Any) -> int | str | None:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block of text
        return text
    if INTEGER.fullmatch(text):
        return int(text)
    return None if text in ("", "~", "null") else text
