"""Scale: the fraction by which a picture grows, and the sizes that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Scale:
    """Hold an upscaling factor as the fraction `up/down` in lowest terms, e.g. 3/2."""

    up: int
    down: int = 1

    def __post_init__(self):
        if self.up < 1 or self.down < 1:
            raise ValueError(f"Expected a positive scale. Received: {self.up}/{self.down}")
        lowest = Fraction(self.up, self.down)
        object.__setattr__(self, "up", lowest.numerator)
        object.__setattr__(self, "down", lowest.denominator)

    @classmethod
    def parse(cls, value: Scale | Fraction | float | str) -> Scale:
        """Read a scale from `"3/2"`, `"1.5"`, `1.5`, `2` or a `Scale`.

        Raises ValueError for what is not a positive number.
        """
        if isinstance(value, Scale):
            return value
        try:
            # str() first, so that 1.1 means 11/10 and not the nearest binary fraction.
            fraction = Fraction(str(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"Expected a scale such as 1.5, 3/2 or 2. Received: {value!r}") from None
        return cls(fraction.numerator, fraction.denominator)

    def __float__(self):
        return self.up / self.down

    def __str__(self):
        """Write the scale as the folder names do: `1.5`, `2`; `4/3` where decimals do not end."""
        text = f"{float(self):.4g}"
        return text if Fraction(text) == Fraction(self.up, self.down) else f"{self.up}/{self.down}"

    def __lt__(self, other: Scale) -> bool:
        return self.up * other.down < other.up * self.down

    def __mul__(self, other: Scale) -> Scale:
        return Scale(self.up * other.up, self.down * other.down)

    def grow(self, length: int) -> int:
        """Return the length after scaling, rounded to the nearest integer (ties up)."""
        return (2 * length * self.up + self.down) // (2 * self.down)
