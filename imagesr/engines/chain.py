"""Which scales of a model run, one after another, to reach a factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations_with_replacement

from imagesr.card import ModelCard
from imagesr.engines import Engine, checked_detail, load_engine
from imagesr.errors import ModelError
from imagesr.scale import Scale

MAX_SCALE = 8
SHORT = Fraction(9, 8)  # what Lanczos may add for film: 480 lines become 960 by x2, and then 1080


def load_chain(
    cards: Sequence[ModelCard],
    factor: Scale | Fraction,
    *,
    detail: float | None = None,
    clean: float | None = None,
    **options,
) -> list[Engine]:
    """Load the models that reach a factor one after another; `options` are those of `load_engine`.

    Every place in the chain has an engine of its own, since runtimes compile for one size. `clean` goes to the first
    that takes it: what comes to the others is clean already. `detail` goes to the last that takes it, since what is
    sharpened twice has halos; the others are faithful. Raises ModelError, also for one that none of them takes.
    """
    chosen = chain(cards, factor)
    if all(card.detail is None for card in chosen):
        checked_detail(detail, chosen[-1])  # the message names what enlarges, not what cleans before it
    first = next((i for i, card in enumerate(chosen) if card.clean is not None), len(chosen))
    last = max((i for i, card in enumerate(chosen) if card.detail is not None), default=0)
    more = [
        taken(card, chosen, detail=detail if i >= last else 0.0, clean=clean if i <= first else None)
        for i, card in enumerate(chosen)
    ]
    return [load_engine(card, **numbers, **options) for card, numbers in zip(chosen, more, strict=True)]


def taken(card: ModelCard, cards: Sequence[ModelCard], **numbers: float | None) -> dict[str, float | None]:
    """Return those of the numbers, `detail` and `clean`, that a card takes, or that none of the `cards` takes."""
    return {
        name: number
        for name, number in numbers.items()
        if getattr(card, name) is not None or all(getattr(other, name) is None for other in cards)
    }


def chain_name(cards: Sequence[ModelCard]) -> str:
    """Name the models of a chain as reports show them: "balanced x1.5 then x2"."""
    return f"{cards[0].name} " + " then ".join(f"x{card.scale}" for card in cards)


def chain(cards: Sequence[ModelCard], factor: Scale | Fraction) -> list[ModelCard]:
    """Choose the models to run one after another: the fewest that reach `factor`, of these the least beyond it.

    What is beyond it is computed in vain, and is taken away again by Lanczos. For film they may end up to `SHORT` below
    it, where that saves a run: Lanczos makes the rest. The result is also better than that of one run more
    (docs/experiments.md). The smallest scale runs first, so that the others see fewer pixels.

    A card of scale 1 gains no size. It runs alone where the size stays, and first where no other takes a clean.
    """
    factor = _fraction(factor)
    same = [card for card in cards if card.scale == Scale(1)]
    cards = (same if factor == 1 else [card for card in cards if card.scale != Scale(1)]) or cards
    short = SHORT if all(card.flavour == "film" for card in cards) else 1
    for length in range(1, 8):
        found = [(_product(chosen), chosen) for chosen in combinations_with_replacement(cards, length)]
        reaching = [pair for pair in found if pair[0] >= factor]
        product, chosen = min(reaching or found, key=lambda pair: abs(pair[0] - factor))
        if product * short >= factor:
            cleaner = same[:1] if factor != 1 and all(card.clean is None for card in chosen) else []
            return [*cleaner, *sorted(chosen, key=lambda card: card.scale)]
    raise ModelError(f"Expected a scale within reach of {cards[0].name}. Received: {float(factor):g}")


def whole_unit(cards: Sequence[ModelCard], *, halved: bool = False) -> int:
    """Return the unit whose multiples every model, and halved chroma, upscale to whole lengths."""
    for unit in range(1, 1024):
        length, whole = Fraction(unit), True
        for card in cards:
            whole = whole and length % card.multiple == 0
            length *= _fraction(card.scale)
        if whole and length.denominator == 1 and not (halved and (unit % 2 or length % 2)):
            return unit
    raise ModelError(
        f"Expected models whose sizes fit together. Received: {', '.join(str(card.scale) for card in cards)}"
    )


def native_scale(engines: Sequence[Engine]) -> Scale:
    """Return the scale that engines reach one after another."""
    return math.prod((engine.card.scale for engine in engines), start=Scale(1))


def reach(engines: Sequence[Engine]) -> int:
    """Return how far engines that run one after another see around a pixel, in LR pixels."""
    pixels, scale = 0, Scale(1)
    for card in (engine.card for engine in engines):
        pixels += math.ceil((card.receptive_field // 2 + card.multiple) / float(scale))
        scale = scale * card.scale
    return pixels


def _product(cards):
    return math.prod((_fraction(card.scale) for card in cards), start=Fraction(1))


def _fraction(scale):
    return Fraction(scale.up, scale.down) if isinstance(scale, Scale) else scale
