"""Arithmetic by walking the syntax tree of an expression: nothing is run, and every step is bounded."""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType

_MOST_CHARS = 500
_MOST_BITS = 10_000
"""Of a whole number: about 3,000 digits."""
_MOST_FACTORIAL = 500
_MOST_DIGITS = 300
Number = int | float


class CannotCalculate(ValueError):
    """What is wrong with an expression, in words for whoever wrote it."""


def calculate(expression: str) -> str:
    """The value of `expression`. Raises `CannotCalculate`."""
    if len(expression) > _MOST_CHARS:
        raise CannotCalculate(f"The expression has more than {_MOST_CHARS} characters.")
    try:
        # a caret is meant as a power, wherever people write one
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(expression.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CannotCalculate("This is no arithmetic expression: write for example (2 + 3) * sqrt(16).") from None
    try:
        return _render(_value(tree.body))
    except ZeroDivisionError:
        raise CannotCalculate("It divides by zero.") from None
    except OverflowError:
        raise CannotCalculate("A number in it becomes too large.") from None
    except RecursionError:
        raise CannotCalculate("It is nested too deeply.") from None


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > _MOST_BITS:
        raise CannotCalculate("A number in it becomes too large.")
    value = base**exponent
    if isinstance(value, complex):
        raise CannotCalculate("It takes a root of a negative number.")
    return value


def _factorial(number: Number) -> Number:
    if not isinstance(number, int) or not 0 <= number <= _MOST_FACTORIAL:
        raise CannotCalculate(f"factorial takes whole numbers from 0 to {_MOST_FACTORIAL}.")
    return math.factorial(number)


def _round(number: Number, num_digits: Number = 0) -> Number:
    if not isinstance(num_digits, int) or abs(num_digits) > _MOST_DIGITS:
        raise CannotCalculate(f"round takes whole numbers of digits, up to {_MOST_DIGITS}.")
    return round(number, num_digits)


_BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.Pow: _power,
    }
)
_FUNCTIONS: Mapping[str, Callable[..., Number]] = MappingProxyType(
    {
        **{name: getattr(math, name) for name in ("sqrt", "exp", "log10", "log2", "floor", "ceil", "hypot")},
        **{name: getattr(math, name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "radians", "degrees")},
        "log": math.log,
        "ln": math.log,
        "abs": abs,
        "round": _round,
        "min": min,
        "max": max,
        "factorial": _factorial,
    }
)
_CONSTANTS = MappingProxyType({"pi": math.pi, "e": math.e, "tau": math.tau})


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _call(name, [_value(argument) for argument in arguments])
        case _:
            pass
    names = ", ".join((*_FUNCTIONS, *_CONSTANTS))
    raise CannotCalculate(f"Only numbers, + - * / // % ** and parentheses can be used, and: {names}.")


def _call(name: str, arguments: list[Number]) -> Number:
    try:
        return _bounded(_FUNCTIONS[name](*arguments))
    except TypeError:
        raise CannotCalculate(f"{name} does not take {len(arguments)} such values.") from None
    except OverflowError:
        raise
    except ValueError as error:
        if isinstance(error, CannotCalculate):
            raise
        raise CannotCalculate(f"{name} has no value there.") from None


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and number.bit_length() > _MOST_BITS:
        raise CannotCalculate("A number in it becomes too large.")
    return number


def _render(number: Number) -> str:
    if isinstance(number, float) and number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    return f"{number:.15g}" if isinstance(number, float) else str(number)
