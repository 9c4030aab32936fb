"""A parser of a command line that refuses it in one sentence."""

import re
from collections.abc import Callable, Iterable, Sequence
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from pyro_dpvae._checks import nearest

__all__ = ["CommandParser", "UsageError"]

_KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "of true and false"),
    float: ("a number", "of numbers"),
    int: ("a whole number", "of whole numbers"),
    str: ("text", "of texts"),
    NoneType: ("null", "of nulls"),
}
_LONGEST = 80  # characters of a value that a message repeats


class UsageError(Exception):
    """A command line was refused; of no class that the parser takes for that of a bad value.

    Args:
        refusal: what must be, what was got, and the option that may be meant.
        command: the command whose help lists the options.
    """

    def __init__(self, refusal: str, command: str) -> None:
        super().__init__(f"{refusal}; '{command} --help' lists the options")
        self.refusal = refusal


class CommandParser(ArgumentParser):
    """A parser that raises what it refuses, instead of printing its usage and ending Python.

    Args:
        options: of ``ArgumentParser``.

    Attributes:
        hint: returns what may be meant by an unknown option, given the known ones.
    """

    hint: Callable[[str, Iterable[str]], str] = staticmethod(nearest)

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def as_typed(self, text: str) -> str:
        """Return a text of the parser with options spelled as users spell them."""
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always, with what must be, what was got, and the option that may be meant.
        """
        raise UsageError(self.as_typed(self._refusal(message)), self.prog) from ex

    def _refusal(self, message: str) -> str:
        """Return what the parser says of a command line as a sentence of ours."""
        if found := re.match(r'Parser key "([^"]+)":\s*(.*)', message, re.DOTALL):
            return self._bad_value(*found.groups())
        if found := re.match(
            r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", message
        ):
            option, value, choices = found.groups()
            return _not_among(option, value, choices)
        if found := re.match(r"argument (\S+): expected one argument", message):
            return f"{found[1]} must be followed by a value"
        if found := re.match(r"the following arguments are required: (.*)", message):
            names = [self._name(key) for key in found[1].split(", ")]
            return f"{' and '.join(names)} must be given"
        if found := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
            return self._unknown(found[1].split())
        if found := re.match(r"Option '(.*)' is not accepted", message):
            known = [action.dest for action in self._actions]
            return f"there is no option {found[1]!r}{self.hint(found[1], known)}"
        return " ".join(message.split())

    def _bad_value(self, key: str, reason: str) -> str:
        name = self._name(key)
        if found := re.match(r"(.*) not among choices \[(.*)\]", reason):
            return _not_among(name, found[1], found[2])
        if found := re.match(r"(?:File does not exist|Path is not a file): '(.*)'", reason):
            return f"{name} must name a file that exists; got {found[1]}"
        value = re.search(r"Given value: (.*)", reason, re.DOTALL) or re.search(
            r"Got value: (.*)", reason
        )
        hint = next((getattr(a, "_typehint", None) for a in self._actions if a.dest == key), None)
        if value is None or hint is None:
            return f"{name}: {' '.join(reason.split())}"
        return f"{name} must be {_kind(hint)}; got {_shortened(value[1])}"

    def _unknown(self, arguments: Sequence[str]) -> str:
        option = next((one.partition("=")[0] for one in arguments if one.startswith("-")), None)
        if option is None:
            return f"unexpected argument {' '.join(arguments)!r}; options start with --"
        known = [self.as_typed(name) for action in self._actions for name in action.option_strings]
        return f"there is no option {option}{self.hint(option, known)}"

    def _name(self, key: str) -> str:
        """Return an option as it is spelled, or what stands at its place."""
        action = next((one for one in self._actions if one.dest == key), None)
        if action is None:
            return key
        return action.option_strings[0] if action.option_strings else key.upper()


def _not_among(name: str, value: str, choices: str) -> str:
    return f"{name} must be one of {choices.replace(chr(39), '')}; got {_shortened(value)}"


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]} ..."


def _kind(hint: Any) -> str:
    """Return what a type of option takes, in words.

    Example:
        >>> _kind(int | None)
        'a whole number or null'
    """
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_kind, get_args(hint)))
    if hint in _KINDS:
        return _KINDS[hint][0]
    element = next(iter(get_args(hint)), None)
    return f"a list {_KINDS[element][1]}" if element in _KINDS else str(hint)
