"""The SQL of expressions on PostgreSQL: one rule for each way in which Ibis' own differs from what DuckDB computes, or fails."""

import math
import re
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.sql.compilers.base import NULL
from ibis.backends.sql.compilers.postgres import PostgresCompiler
from ibis.backends.sql.datatypes import PostgresType

from finrisk_assets.features.compiled import steps_apart

CODE_POINTS, CASE_MAPPING = "C", "pg_c_utf8"
"""Collations: by code points, in which texts are compared, and Unicode's of lower and upper case. The database's own has no effect."""

BELOW_HALF = 0.49999999999999994
"""The largest number below a half: with a half itself, the number before it would be rounded up."""

LARGEST = sys.float_info.max

EXPONENT_FROM = 1e15
"""The number from which PostgreSQL writes whole numbers with an exponent; DuckDB does so from ten times as much."""

FENCED_FROM = 6
"""Operations of an expression from which its step is computed once, apart from its uses. Fewer make more steps, which cost as well."""

_TOKEN = re.compile(r"\\x\{([0-9A-Fa-f]+)\}|\\.|\[\^?|.", re.DOTALL)


def translate_pattern(pattern: str) -> str:
    """Return a pattern of the common part of RE2 and Python as an advanced regular expression of PostgreSQL."""
    parts: list[str] = []
    class_start = -1
    for token in _TOKEN.finditer(pattern):
        text, is_in_class = token[0], class_start >= 0
        if token[1]:
            # No text of PostgreSQL's has the character 0, and no pattern may name it.
            text = chr(max(int(token[1], 16), 1))
        elif text == r"\z":
            text = r"\Z"
        elif text[0] == "[" and not is_in_class:
            class_start = token.end()
        elif text == "]" and is_in_class and token.start() > class_start:
            class_start = -1
        elif text == "." and not is_in_class:
            text = r"[^\n]"
        parts.append(text)
    return "".join(parts)


class EngineTypes(PostgresType):
    """Ibis' types of PostgreSQL, which has no whole numbers without a sign."""

    @classmethod
    def from_ibis(cls, dtype: Any) -> Any:
        if dtype.is_unsigned_integer():
            return super().from_ibis(dt.Decimal(20, 0) if dtype.is_uint64() else dt.int64)
        return super().from_ibis(dtype)


class EngineCompiler(PostgresCompiler):
    """Ibis' compiler for PostgreSQL, with DuckDB's meaning of casts, texts, patterns, divisions, rounding and sums."""

    __slots__ = ()

    type_mapper = EngineTypes

    # Ibis writes a method for each of these over those of the class; the inherited ones are there already.
    SIMPLE_OPS: ClassVar[dict[type, str]] = {}

    # --- queries ---------------------------------------------------------------------------------------------------

    def to_sqlglot(self, expr: Any, *, limit: Any = None, params: Any = None) -> Any:
        # A step of an expression stays a subquery of its own, for `visit_Select` to keep.
        with steps_apart():
            return super().to_sqlglot(expr, limit=limit, params=params)

    def visit_Select(self, op: Any, **parts: Any) -> Any:  # noqa: N802
        select = super().visit_Select(op, **parts)
        is_fenced = isinstance(select, sge.Select) and any(_count_operations(value) >= FENCED_FROM for value in op.selections.values())
        # PostgreSQL would copy the expression into each of its uses and compute it as often; it does not pass an offset.
        return select.offset(0, copy=False) if is_fenced else select

    # --- texts -----------------------------------------------------------------------------------------------------

    def visit_SortKey(self, op: Any, *, arg: Any, ascending: Any, nulls_first: Any) -> Any:  # noqa: N802
        return super().visit_SortKey(op, arg=_collate(op.arg, arg), ascending=ascending, nulls_first=nulls_first)

    def visit_Min(self, op: Any, *, arg: Any, where: Any) -> Any:  # noqa: N802
        return super().visit_Min(op, arg=_collate(op.arg, arg), where=where)

    def visit_Max(self, op: Any, *, arg: Any, where: Any) -> Any:  # noqa: N802
        return super().visit_Max(op, arg=_collate(op.arg, arg), where=where)

    def _compare(self, kind: type[sge.Expression], op: Any, left: Any, right: Any) -> Any:
        return self.binop(kind, _collate(op.left, left), _collate(op.right, right))

    def visit_Less(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        return self._compare(sge.LT, op, left, right)

    def visit_LessEqual(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        return self._compare(sge.LTE, op, left, right)

    def visit_Greater(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        return self._compare(sge.GT, op, left, right)

    def visit_GreaterEqual(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        return self._compare(sge.GTE, op, left, right)

    def visit_Lowercase(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        return _collate(op, self.f.lower(_collate(op.arg, arg, CASE_MAPPING)))

    def visit_Uppercase(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        return _collate(op, self.f.upper(_collate(op.arg, arg, CASE_MAPPING)))

    def visit_ScalarUDF(self, op: Any, **arguments: Any) -> Any:  # noqa: N802
        if self.__sql_name__(op) == "nfc_normalize":
            return self.f.anon.normalize(*arguments.values(), self.v.NFC)
        return super().visit_ScalarUDF(op, **arguments)

    # --- patterns --------------------------------------------------------------------------------------------------

    def visit_RegexSearch(self, op: Any, *, arg: Any, pattern: Any) -> Any:  # noqa: N802
        return self.f.regexp_like(arg, _translate(op, pattern))

    def visit_RegexReplace(self, op: Any, *, arg: Any, pattern: Any, replacement: Any) -> Any:  # noqa: N802
        return super().visit_RegexReplace(op, arg=arg, pattern=_translate(op, pattern), replacement=replacement)

    def visit_RegexExtract(self, op: Any, *, arg: Any, pattern: Any, index: Any) -> Any:  # noqa: N802
        # Empty, not null, where there is no match or the group has none.
        found = self.f.anon.regexp_substr(arg, _translate(op, pattern), 1, 1, "c", index)
        return self.if_(arg.is_(sg.not_(NULL)), self.f.coalesce(found, ""), NULL)

    # --- casts -----------------------------------------------------------------------------------------------------

    def visit_Cast(self, op: Any, *, arg: Any, to: dt.DataType) -> Any:  # noqa: N802
        given = op.arg.dtype
        if given.is_boolean() and to.is_numeric():
            return self.cast(self.cast(arg, dt.int32), to)
        if given.is_numeric() and to.is_boolean():
            return sge.NEQ(this=sge.paren(arg), expression=sge.convert(0))
        if given.is_floating() and to.is_string():
            return self._number_text(op, arg)
        return super().visit_Cast(op, arg=arg, to=to)

    def visit_TryCast(self, op: Any, *, arg: Any, to: dt.DataType) -> Any:  # noqa: N802
        given = op.arg.dtype
        if given.is_string() and to.is_floating():
            return self._read_float(arg, to)
        if given.is_string() and to.is_integer():
            # The type reads hexadecimal and underscores too.
            return self.if_(sg.and_(self.f.regexp_like(arg, "^[+-]?[0-9]+$"), self._is_valid(arg, to)), self.cast(arg, to))
        if given.is_string() and to.is_timestamp():
            return self.if_(self._is_valid(arg, to), self.cast(arg, to))
        if given.is_floating() and to.is_integer():
            return self.if_(sge.Between(this=arg, low=sge.convert(-(2.0**63)), high=sge.convert(2.0**63 - 1024)), self.cast(arg, to))
        return self.visit_Cast(op, arg=arg, to=to)

    def visit_TimestampFromUNIX(self, op: Any, *, arg: Any, unit: Any) -> Any:  # noqa: N802
        seconds = self.cast(arg, dt.float64) / sge.convert({"s": 1.0, "ms": 1e3, "us": 1e6}[unit.short])
        return self.f.timezone("UTC", self.f.anon.to_timestamp(seconds))

    def _is_valid(self, arg: Any, to: dt.DataType) -> Any:
        return self.f.anon.pg_input_is_valid(arg, self.type_mapper.to_string(to))

    def _read_float(self, arg: Any, to: dt.DataType) -> Any:
        """Read a text as a number: an infinity or 0 where it is beyond the range, which PostgreSQL refuses."""
        is_number = self.f.regexp_like(arg, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
        is_small = self.f.regexp_like(arg, r"[eE]-|^[+-]?0*\.0*[0-9]*$")
        is_large = self.if_(
            self._is_valid(arg, dt.decimal), self.f.abs(self.cast(arg, dt.decimal)) > sge.convert(1), sg.not_(sge.paren(is_small))
        )
        infinity = self.if_(self.f.starts_with(arg, "-"), self.NEG_INF, self.POS_INF)
        beyond = self.if_(is_large, infinity, self.cast(sge.convert(0), dt.float64))
        return sge.Case(ifs=[self.if_(sg.and_(is_number, self._is_valid(arg, to)), self.cast(arg, to)), self.if_(is_number, beyond)])

    def _number_text(self, op: Any, arg: Any) -> Any:
        """Write a number as DuckDB does."""
        return self._once(op.arg, arg, self._write_number)

    def _write_number(self, arg: Any) -> Any:
        # By name: the lower case of a database's collation may have another i.
        text = self.f.replace(self.f.replace(self.cast(arg, dt.string), "Infinity", "inf"), "NaN", "nan")
        digits = self.if_(self.f.abs(arg) < sge.convert(EXPONENT_FROM), text, self.cast(self.cast(arg, dt.int64), dt.string))
        is_whole = sg.and_(self.f.abs(arg) < sge.convert(EXPONENT_FROM * 10), arg.eq(self.f.trunc(arg)))
        return self.if_(is_whole, sge.DPipe(this=digits, expression=sge.convert(".0")), text)

    def _once(self, op: ops.Value, arg: Any, make: Callable[[Any], Any]) -> Any:
        """Return what is made of an operand in several uses, computed once: PostgreSQL would compute it for each of them."""
        if isinstance(op, ops.Field | ops.Literal) or op.find((ops.WindowFunction, ops.Reduction), filter=ops.Value):
            # In a query of its own an aggregate would be over one row.
            return make(arg)
        step = sg.select(arg.as_("number")).offset(0).subquery("once")
        return sg.select(make(sg.column("number", table="once"))).from_(step).subquery()

    # --- numbers ---------------------------------------------------------------------------------------------------

    def visit_ExtractYear(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        return self._extract(op, "year", arg)

    def visit_ExtractMonth(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        return self._extract(op, "month", arg)

    def visit_ExtractDay(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        return self._extract(op, "day", arg)

    def _extract(self, op: Any, part: str, arg: Any) -> Any:
        # A decimal number, with which all that follows would be slow.
        return self.cast(self.f.extract(self.v[part], arg), op.dtype)

    def visit_Divide(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        # The cast is explicit: left to sqlglot, it lands in another use of a shared operand, and whole numbers divide as such.
        dividend = self.cast(left, dt.float64)
        quotient = self.binop(sge.Div, dividend, right)
        if isinstance(op.right, ops.NullIf) or (isinstance(op.right, ops.Literal) and op.right.value):
            return quotient
        # By 0: an infinity with the sign of the dividend, or no number, as IEEE 754 has it.
        return self.if_(sge.paren(right).eq(0), self.binop(sge.Mul, dividend.copy(), self.POS_INF), quotient)

    def visit_Round(self, op: Any, *, arg: Any, digits: Any) -> Any:  # noqa: N802
        if not op.arg.dtype.is_floating():
            return super().visit_Round(op, arg=arg, digits=digits)
        if op.dtype.is_integer():
            return self.cast(self._round_half_away(arg), op.dtype)
        # As decimal numbers, of which PostgreSQL rounds, floats would keep 15 digits.
        power = float(f"1e{op.digits.value}")
        return arg if math.isinf(power) else self._once(op.arg, arg, lambda number: self._round_to(number, power))

    def _round_to(self, number: Any, power: float) -> Any:
        factor = self.cast(sge.convert(power), dt.float64)
        rounded = self.binop(sge.Div, self._round_half_away(self.binop(sge.Mul, number, factor)), factor)
        # A zero keeps its sign, and a number beyond the range is whole.
        is_within = sg.and_(self.f.abs(number) < self.cast(sge.convert(LARGEST / power), dt.float64), number.neq(0))
        return self.if_(is_within, rounded, number)

    def _round_half_away(self, arg: Any) -> Any:
        # PostgreSQL rounds halves to the even number.
        half = self.binop(sge.Mul, self.f.sign(arg), self.cast(sge.convert(BELOW_HALF), dt.float64))
        return self.f.trunc(self.binop(sge.Add, arg, half))

    def visit_Sum(self, op: Any, *, arg: Any, where: Any) -> Any:  # noqa: N802
        total = super().visit_Sum(op, arg=arg, where=where)
        # A sum of 64-bit integers is a decimal number, with which all that follows would be slow.
        return self.cast(total, op.dtype) if op.dtype.is_integer() else total

    def visit_Mean(self, op: Any, *, arg: Any, where: Any) -> Any:  # noqa: N802
        return self.cast(super().visit_Mean(op, arg=arg, where=where), dt.float64)

    def visit_WindowFunction(self, op: Any, *, func: Any, **arguments: Any) -> Any:  # noqa: N802
        dtype = op.func.dtype
        if op.start is not None and dtype.is_floating() and isinstance(op.func, (ops.Sum, ops.Mean, ops.StandardDev)):
            # Only of an exact type can a value leave the frame again: of floats each frame would be added up anew.
            aggregate = func.find(sge.AggFunc)
            aggregate.set("this", self.cast(aggregate.this, dt.decimal))
            func = self.cast(func.this if isinstance(func, sge.Cast) else func, dtype)
        if isinstance(func, sge.Cast):
            return self.cast(super().visit_WindowFunction(op, func=func.this, **arguments), dtype)
        return super().visit_WindowFunction(op, func=func, **arguments)


def _count_operations(value: ops.Value) -> int:
    """Return the number of operations of which a value is made within its own step."""
    return len(value.find(ops.Value, filter=ops.Value))


def _translate(op: Any, pattern: Any) -> Any:
    return sge.convert(translate_pattern(op.pattern.value)) if isinstance(op.pattern, ops.Literal) else pattern


def _collate(op: Any, arg: Any, collation: str = CODE_POINTS) -> Any:
    """Return a text compared in a collation; other values as they are."""
    if not op.dtype.is_string():
        return arg
    return sge.paren(sge.Collate(this=sge.paren(arg), expression=sg.to_identifier(collation, quoted=True)))
