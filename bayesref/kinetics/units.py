"""Times in seconds and rates in 1/s from text with a unit: "10us", "2 ms", "1/ps", "3e4 /s", "5 ns^-1"."""

import re

from bayesref._checks import InputError

UNIT = {
    "fs": 1e-15,
    "ps": 1e-12,
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_UNIT = "|".join(sorted(UNIT, key=len, reverse=True))
_TIME = re.compile(rf"\s*({_NUMBER})\s*({_UNIT})?\s*")
_PER = re.compile(rf"\s*({_NUMBER})?\s*(?:1\s*)?/\s*({_NUMBER})?\s*({_UNIT})\s*")
_INVERSE = re.compile(rf"\s*({_NUMBER})\s*(?:({_UNIT})(?:\^-1|-1|⁻¹))?\s*")


def seconds(value: str | float) -> float:
    """A time in s; text may carry a unit, a number alone is in s.

    >>> seconds("2 ms")
    0.002
    """
    if not isinstance(value, str):
        return float(value)
    found = _TIME.fullmatch(value)
    if not found:
        raise InputError(f"{value!r} is no time; write a number and one of {', '.join(UNIT)}, as in '10us'.")
    return float(found[1]) * UNIT[found[2] or "s"]


def per_second(value: str | float) -> float:
    """A rate in 1/s; text may carry an inverse unit, a number alone is in 1/s.

    >>> per_second("2 /ms")
    2000.0
    """
    if not isinstance(value, str):
        return float(value)
    found = _PER.fullmatch(value)
    if found:
        time = float(found[2] or 1) * UNIT[found[3]]
        if time == 0:
            raise InputError(f"The rate {value!r} divides by zero; write a time above zero.")
        return float(found[1] or 1) / time
    found = _INVERSE.fullmatch(value)
    if not found:
        raise InputError(f"{value!r} is no rate; write '3e4', '1/ps', '2 /ms' or '5 ns^-1'.")
    return float(found[1]) / UNIT[found[2] or "s"]
