"""The rules between flags: what one needs, excludes or implies. Each flag's declaration names its rules."""

from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


def flag(dest: str) -> str:
    """Return an option's name as it is typed: `--batch-size` for `batch_size`."""
    return "--" + dest.replace("_", "-")


@dataclass(frozen=True)
class Need:
    """A condition without which a flag has no effect.

    Attributes:
        wanted: the flags that meet the condition, as they are typed: "--sched step or multistep".
        dests: the options that `met` reads.
        met: whether the options meet the condition.
        because: why the flag has no effect otherwise.
        noted: whether an unmet need is logged instead of refused: for the original's commands, and for flags that
            several stages or machines share.
        shown: the option whose value the message adds: "--sched step, not cosine".
        verb: "needs", or "excludes" where `wanted` must be absent.
        only_with: a setting without which the condition holds, for the reference: "--classify-view weak".
    """

    wanted: str
    dests: tuple[str, ...]
    met: Callable[[Namespace], bool]
    because: str
    noted: bool = False
    shown: str = ""
    verb: str = "needs"
    only_with: str = ""


def on(dest: str, because: str) -> Need:
    """Return the need for a flag that is given: --amp-dtype needs --amp."""
    return Need(flag(dest), (dest,), lambda args: bool(getattr(args, dest)), because)


def off(dest: str, because: str) -> Need:
    """Return the need for a flag that is not given: --hflip has no effect with --no-aug."""
    return Need(flag(dest), (dest,), lambda args: not getattr(args, dest), because, verb="excludes")


def above(limit: float, dest: str, because: str, name: str = "") -> Need:
    """Return the need for a number above a limit; `name` is the short form of the flag."""
    wanted = f"{name or flag(dest)} above {limit:g}"
    return Need(wanted, (dest,), lambda args: getattr(args, dest) > limit, because)


def among(dest: str, values: Sequence[str], because: str, noted: bool = False) -> Need:
    """Return the need for one of several values: --min-lr needs --sched cosine or tanh."""
    words = ", ".join(values[:-1]) + (" or " if values[:-1] else "") + values[-1]
    return Need(f"{flag(dest)} {words}", (dest,), lambda args: getattr(args, dest) in values, because, noted, dest)


def with_contrast(because: str) -> Need:
    """Return the need for the SimCLR loss."""
    return above(0, "simclr_loss_weight", because, "-wls")


def with_labels(because: str) -> Need:
    """Return the need for the classification loss."""
    return above(0, "classification_loss_weight", because, "-wlc")


def repeated(args: Namespace, pairs: str, flags: dict[str, str]) -> Iterator[str]:
    """Yield a sentence for each name among a flag's NAME=VALUE pairs that a given flag sets too.

    Args:
        args: the options.
        pairs: the option that holds the pairs.
        flags: the option that sets each name.
    """
    for name, dest in flags.items():
        if name in getattr(args, pairs) and getattr(args, dest) is not None:
            yield f"{flag(pairs)} {name}=... is what {flag(dest)} sets: use that flag alone"


@dataclass(frozen=True)
class Implied:
    """A value of one flag that sets another flag: --contrastive none sets -wls 0.

    Attributes:
        values: the values that set the other option; empty means every value but those that are off.
        other: the other option.
        settled: the value that it is set to.
        because: why another value would contradict.
    """

    values: tuple[Any, ...]
    other: str
    settled: Any
    because: str

    def applies(self, value: Any) -> bool:
        """Return whether a value of the flag sets the other option."""
        return value in self.values if self.values else bool(value)


@dataclass(frozen=True)
class Declaration:
    """A flag as it was declared.

    Attributes:
        dest: the name of the option.
        spellings: its names on the command line, the first being the usual one.
        default: the value of the option when the flag is not given.
        help: the meaning, in words.
        off: values that turn the flag off, so that its needs do not apply.
        needs: conditions for the flag to have an effect, the most important one first.
        excludes: another option that sets the same thing, and why both cannot be given.
        implies: a value that sets another option.
        refused: why the flag is refused and what to do instead; empty for a flag that works.
    """

    dest: str
    spellings: tuple[str, ...]
    default: Any
    help: str
    off: tuple[Any, ...] = ()
    needs: tuple[Need, ...] = ()
    excludes: tuple[str, str] | None = None
    implies: Implied | None = None
    refused: str = ""

    def asks(self, args: Namespace) -> bool:
        """Return whether the option differs from its default and is not off."""
        value = getattr(args, self.dest)
        return value != self.default and value not in self.off

    @property
    def name(self) -> str:
        """The flag that departs from the default, as it is typed: `--no-model-ema-warmup` for a switch that is on."""
        return flag(f"no_{self.dest}" if self.default is True else self.dest)

    def unmet(self, args: Namespace) -> Need | None:
        """Return the first need that the options do not meet; None if the flag has an effect or is off."""
        if not self.asks(args):
            return None
        return next((need for need in self.needs if not need.met(args)), None)


@dataclass
class Rules:
    """The declarations of a parser, by the name of the option, and what follows from them."""

    declared: dict[str, Declaration] = field(default_factory=dict)

    def contradictions(self, given: dict[str, Any]) -> Iterator[str]:
        """Yield a sentence for each pair of flags that contradict each other in one source."""
        for dest, rule in self.declared.items():
            if rule.excludes and dest in given and rule.excludes[0] in given:
                yield f"{flag(dest)} and {flag(rule.excludes[0])} exclude each other: {rule.excludes[1]}"
            implied = rule.implies
            if (
                implied
                and implied.applies(given.get(dest))
                and given.get(implied.other, implied.settled) != implied.settled
            ):
                one = f"{flag(dest)} {given[dest]}" if implied.values else flag(dest)
                other = f"--no-{implied.other}" if implied.settled is True else flag(implied.other)
                yield f"{one} and {other} exclude each other: {implied.because}"

    def drop_contradicted(self, recipe: dict[str, Any], typed: dict[str, Any]) -> None:
        """Remove from the recipe what typed flags contradict; add to both the options that their values imply."""
        for dest, rule in self.declared.items():
            if rule.excludes:
                for winner, loser in ((dest, rule.excludes[0]), (rule.excludes[0], dest)):
                    if winner in typed:
                        recipe.pop(loser, None)
            if implied := rule.implies:
                contradicted = typed.get(implied.other, implied.settled) != implied.settled
                if implied.applies(recipe.get(dest)) and (dest in typed or contradicted):
                    recipe.pop(dest)
                for given in (recipe, typed):
                    if implied.applies(given.get(dest)):
                        given[implied.other] = implied.settled

    def without_effect(self, args: Namespace, recipe: Collection[str], typed: Collection[str]) -> str | None:
        """Return an option of the recipe that a typed one leaves without effect: amp_dtype, after --no-amp."""
        for dest, rule in self.declared.items():
            need = rule.unmet(args) if dest in recipe and dest not in typed else None
            if need and not need.noted and any(other in typed for other in need.dests):
                return dest
        return None

    def mistakes(self, args: Namespace) -> Iterator[str]:
        """Yield a sentence for each flag that is refused, and for each whose need is not met."""
        for dest, rule in self.declared.items():
            if rule.refused and rule.asks(args):
                yield f"{flag(dest)} is refused: {rule.refused}"
        for rule in self.declared.values():
            need = rule.unmet(args)
            if need and not need.noted:
                now = f", not {getattr(args, need.shown)}" if need.shown else ""
                yield f"{rule.name} {need.verb} {need.wanted}{now}: {need.because}"

    def notes(self, args: Namespace) -> list[str]:
        """Return a sentence for each flag that is accepted although it has no effect."""
        found = [(rule, rule.unmet(args)) for rule in self.declared.values()]
        return [f"{rule.name} has no effect here: {need.because}" for rule, need in found if need and need.noted]
