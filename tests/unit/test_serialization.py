"""Records read from plain values: what fits is taken, and what does not is named."""

from dataclasses import dataclass
from typing import Any

import pytest

from harness.model.serialization import from_json_value, to_json_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()


def test_tuples_are_read_as_they_were_written() -> None:
    for sample in (Sample(), Sample(names=("a", "b"), numbers=(1, 2), shares=(0.5,))):
        assert from_json_value(Sample, to_json_value(sample)) == sample
    assert from_json_value(Sample, {"shares": [1, 0.5]}) == Sample(shares=(1.0, 0.5))


@pytest.mark.parametrize(
    "value",
    [
        {"names": ["a", 1]},
        {"names": [1]},
        {"names": [None]},
        {"names": "ab"},
        {"numbers": [1, "2"]},
        {"numbers": [True]},
    ],
)
def test_a_tuple_with_something_else_in_it_is_refused_by_its_name(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^Sample\.{next(iter(value))}: "):
        from_json_value(Sample, value)
