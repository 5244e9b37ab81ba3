"""Ten invented data sets in the forms in which people have them, each with the mapping that a user would write.

Every set is drawn from a seed. Its quirks are those of a known kind of file: codes for missing values, no header, decimal commas, two
columns of amounts, a preamble, files that overlap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

Draw = np.random.Generator


@dataclass(frozen=True)
class OwnFiles:
    """The files of one data set, by name, and the mapping; `features` are the lines of its list of features."""

    mapping: str
    files: Mapping[str, bytes]
    features: str = ""

    @property
    def yaml(self) -> str:
        return self.mapping.replace("FEATURES\n", self.features)

    def write(self, folder: Path) -> Path:
        """Write the files and the mapping, and return the mapping's path."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        (folder / "own.yaml").write_text(self.yaml, "utf-8")
        return folder / "own.yaml"


def _lines(header: str, rows: Sequence[Sequence[Any]], mark: str = ",") -> bytes:
    lines = [header] * bool(header) + [mark.join(map(str, row)) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def _happens(draw: Draw, log_odds: Any) -> Any:
    return draw.random(len(log_odds)) < 1 / (1 + np.exp(-log_odds))


def _with_point(number: float) -> str:
    """Return a number as 1.234,50."""
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


# Loans -------------------------------------------------------------------------------------------------------------------------


def give_me_some_credit(draw: Draw) -> OwnFiles:
    """Return loans with a nameless index column, the codes 96 and 98 for no value, and NA."""
    n = 1_200
    late = draw.poisson(0.4, n)
    used, income = draw.gamma(0.8, 0.5, n), np.exp(draw.normal(8.4, 0.5, n))
    bad = _happens(draw, -2.4 + 0.9 * late + 1.2 * np.minimum(used, 2) - 0.3 * (np.log(income) - 8.4))
    late[draw.random(n) < 0.02] = 98
    late[draw.random(n) < 0.01] = 96
    rows = [
        (i + 1, int(bad[i]), f"{used[i]:.6f}", draw.integers(21, 90), late[i], "NA" if draw.random() < 0.15 else round(income[i]))
        for i in range(n)
    ]
    mapping = """name: give_me
currency: USD
tables:
  loans:
    file: cs-training.csv
    missing: [NA]
    columns:
      loan_id: {row_number: true}
      customer_id: {row_number: true}
      is_default: SeriousDlqin2yrs
    extra:
FEATURES
"""
    features = """      - {name: credit_used, from: RevolvingUtilization, unit: ratio, description: Credit used, feature: {monotone: 1}}
      - {name: times_late, from: NumberOfTime30-59DaysPastDue, type: int64, missing: [96, 98], description: Late payments,
         feature: {monotone: 1, zero: No payment was late}}
      - {name: monthly_income, from: MonthlyIncome, unit: currency, description: Monthly income, feature: {monotone: -1}}
      - {name: age_years, from: age, type: int64, personal: protected}
"""
    header = ",SeriousDlqin2yrs,RevolvingUtilization,age,NumberOfTime30-59DaysPastDue,MonthlyIncome"
    return OwnFiles(mapping, {"cs-training.csv": _lines(header, rows)}, features)


def pakdd(draw: Draw) -> OwnFiles:
    """Return loans without a header, in Latin-1 with tabs, of which a text of sixty shop areas tells most."""
    n = 1_500
    areas = [f"Área {number}" for number in range(1, 61)]
    weight = dict(zip(areas, draw.normal(0, 1, 60), strict=True))
    area = draw.choice(areas, n, p=np.r_[np.full(30, 0.03), np.full(30, 0.1 / 30)])
    income = np.exp(draw.normal(6.5, 0.5, n))
    bad = _happens(draw, -1.2 + np.array([weight[name] for name in area]) - 0.5 * (np.log(income) - 6.5))
    rows = [(i + 1, "" if draw.random() < 0.05 else area[i], draw.choice(["M", "F"]), f"{income[i]:.2f}", int(bad[i])) for i in range(n)]
    mapping = """name: pakdd
currency: BRL
tables:
  customers:
    file: modeling.txt
    delimiter: "\\t"
    encoding: latin-1
    header: &header [id, area, sex, income, bad]
    columns: {customer_id: id, gender: sex, country: {value: BR}}
  loans:
    file: modeling.txt
    delimiter: "\\t"
    encoding: latin-1
    header: *header
    columns: {loan_id: id, customer_id: id, is_default: bad}
    extra:
FEATURES
"""
    features = """      - {name: shop_area, from: area, description: Shop area, feature: {category: true}}
      - {name: monthly_income, from: income, unit: currency, description: Monthly income, feature: {monotone: -1}}
"""
    return OwnFiles(mapping, {"modeling.txt": _lines("", rows, "\t").decode().encode("latin-1")}, features)


def heloc(draw: Draw) -> OwnFiles:
    """Return loans with the outcome as Good and Bad, and the codes -7, -8 and -9 for no value."""
    n = 1_000
    score, months, burden = draw.normal(72, 10, n).round(), draw.integers(1, 300, n), draw.gamma(2, 20, n).round()
    bad = _happens(draw, -0.1 - 0.09 * (score - 72) + 0.015 * (burden - 40))
    codes = [draw.choice(["", "-9", "-8", "-7"], n, p=[0.9, 0.05, 0.03, 0.02]) for _ in range(3)]
    numbers = [codes[k][i] or int(column[i]) for i in range(n) for k, column in enumerate((score, months, burden))]
    rows = [("Bad" if bad[i] else "Good", *numbers[3 * i : 3 * i + 3]) for i in range(n)]
    mapping = """name: heloc
currency: USD
tables:
  loans:
    file: heloc.csv
    missing: [-7, -8, -9]
    columns:
      loan_id: {row_number: true}
      customer_id: {row_number: true}
      is_default: {from: RiskPerformance, values: {Bad: true, Good: false}}
    extra:
FEATURES
"""
    features = """      - {name: external_estimate, from: ExternalRiskEstimate, unit: number, feature: {monotone: -1}}
      - {name: oldest_trade_months, from: MSinceOldestTradeOpen, unit: months, description: Age of the oldest trade, feature: {}}
      - {name: revolving_burden, from: NetFractionRevolvingBurden, unit: number, description: Revolving burden, feature: {monotone: 1}}
"""
    header = "RiskPerformance,ExternalRiskEstimate,MSinceOldestTradeOpen,NetFractionRevolvingBurden"
    return OwnFiles(mapping, {"heloc.csv": _lines(header, rows)}, features)


def spanish_credit(draw: Draw) -> OwnFiles:
    """Return dated loans with semicolons, decimal commas and points between thousands."""
    n = 1_200
    amount, income = np.exp(draw.normal(8.5, 0.6, n)).round(2), np.exp(draw.normal(9.8, 0.4, n)).round(2)
    days = np.sort(draw.integers(0, 900, n))
    bad = _happens(draw, -1.6 + 1.3 * (np.log(amount) - 8.5) - 1.5 * (np.log(income) - 9.8))
    first = datetime(2021, 1, 4)
    rows = [
        (
            f"C-{i:05d}",
            f"{first + timedelta(days=int(days[i])):%d/%m/%Y}",
            _with_point(amount[i]),
            draw.choice([12, 24, 36]),
            _with_point(income[i]),
            "SÍ" if bad[i] else "NO",
        )
        for i in range(n)
    ]
    mapping = """name: credito
currency: EUR
begins: 2021-01
ends: 2023-12
tables:
  loans:
    file: creditos.csv
    delimiter: ;
    columns:
      loan_id: Expediente
      customer_id: Expediente
      applied_at: {from: Fecha, format: "%d/%m/%Y"}
      loan_amount: {from: Importe, decimal: ",", thousands: "."}
      term_months: Plazo
      is_default: {from: Impago, values: {SÍ: true, NO: false}}
    extra:
FEATURES
"""
    features = """      - {name: yearly_income, from: Ingresos, decimal: ",", thousands: ".", unit: currency, description: Yearly income,
         feature: {monotone: -1}}
"""
    return OwnFiles(mapping, {"creditos.csv": _lines("Expediente;Fecha;Importe;Plazo;Ingresos;Impago", rows, ";")}, features)


def snapshots(draw: Draw) -> OwnFiles:
    """Return monthly snapshots of the same people's loans, with a column that says which rows are the test set."""
    rows = []
    for person in range(220):
        burden = draw.normal(0, 1)
        for month in range(1, 9):
            burden += draw.normal(0, 0.5)
            bad = draw.random() < 1 / (1 + np.exp(1.5 - 1.4 * burden))
            sample = "out" if person % 4 == 0 else "in"
            rows.append((f"p{person}", f"2023-{month:02d}-28", f"{burden:.3f}", draw.choice(["rent", "own", "free"]), int(bad), sample))
    mapping = """name: snapshots
currency: EUR
begins: 2023-01
ends: 2023-12
tables:
  loans:
    file: snapshots.csv
    split: {column: sample, test: [out]}
    columns:
      loan_id: {id: content}
      customer_id: customer_id
      applied_at: {from: month, format: "%Y-%m-%d"}
      is_default: bad
    extra:
FEATURES
"""
    features = """      - {name: burden, from: burden, unit: number, description: Burden, feature: {monotone: 1}}
      - {name: housing, from: housing, description: Housing, feature: {category: true}}
"""
    return OwnFiles(mapping, {"snapshots.csv": _lines("customer_id,month,burden,housing,bad,sample", rows)}, features)


# Movements ---------------------------------------------------------------------------------------------------------------------

_SHOPS = ("Grocer", "Bakery", "Fuel", "Books", "Chemist", "Cinema", "Cafe", "Toys")


def _payments(draw: Draw, people: int, days: int, per_day: float, first: datetime) -> list[tuple[str, datetime, float, str]]:
    """Return payments of people at shops of their own, in order of time: who, when, how much, where."""
    payments = []
    for person in range(people):
        shops, usual = draw.choice(_SHOPS, 4, replace=False), draw.uniform(10, 60)
        for day in np.flatnonzero(draw.random(days) < per_day):
            at = first + timedelta(days=int(day), hours=int(draw.integers(7, 22)), minutes=int(draw.integers(0, 60)))
            payments.append((f"u{person}", at, round(float(usual * np.exp(draw.normal(0, 0.5))), 2), str(draw.choice(shops))))
    return sorted(payments, key=lambda payment: payment[1])


def vub(draw: Draw) -> OwnFiles:
    """Return movements with a debit and a credit column, and a free text that tells the category."""
    rows = []
    for number, (who, at, amount, shop) in enumerate(_payments(draw, 15, 120, 0.8, datetime(2023, 1, 1))):
        text, factor = {0: ("Salario mensual", 60), 7: ("Alquiler", 30)}.get(number % 15, (f"Pago {shop} n. {number}", 1))
        sides = (_with_point(amount * factor), "")
        debit, credit = reversed(sides) if number % 15 == 0 else sides
        rows.append((f"M{number}", who, f"{at:%d-%m-%Y %H:%M}", text, debit, credit))
    mapping = """name: vub
currency: EUR
begins: 2023-01
ends: 2023-05
tables:
  transactions:
    file: movimientos.csv
    delimiter: ;
    columns:
      transaction_id: Reference
      customer_id: Cliente
      occurred_at: {from: Fecha, format: "%d-%m-%Y %H:%M"}
      amount: {debit: Cargo, credit: Abono, decimal: ",", thousands: "."}
      category: {from: Categoria, contains: {salario: salary, alquiler: rent, grocer: food, fuel: transport}, otherwise: other}
"""
    return OwnFiles(mapping, {"movimientos.csv": _lines("Reference;Cliente;Fecha;Categoria;Cargo;Abono", rows, ";")})


def cards(draw: Draw) -> OwnFiles:
    """Return card payments in local time, with merchants as text and frauds that are known a week later."""
    rows = []
    for number, (who, at, amount, shop) in enumerate(_payments(draw, 40, 240, 0.2, datetime(2023, 3, 1))):
        is_fraud = draw.random() < 0.06
        amount, shop = (round(amount * 9, 2), "Far away") if is_fraud else (amount, shop)
        rows.append((number, who, f"{at:%Y-%m-%d %H:%M:%S}", amount, f'"{shop}, Madrid"', int(is_fraud)))
    mapping = """name: cards
currency: EUR
begins: 2023-03
ends: 2023-11
tables:
  transactions:
    file: cards.csv
    columns:
      transaction_id: trans_num
      customer_id: cc_num
      occurred_at: {from: trans_date_trans_time, format: "%Y-%m-%d %H:%M:%S", timezone: Europe/Madrid}
      amount: amt
      direction: {value: debit}
      merchant: merchant
      is_fraud: is_fraud
"""
    return OwnFiles(mapping, {"cards.csv": _lines("trans_num,cc_num,trans_date_trans_time,amt,merchant,is_fraud", rows)})


def hundred_customers(draw: Draw) -> OwnFiles:
    """Return three months of movements of 100 customers, without any outcome."""
    rows = [
        (number, who, at.isoformat(), amount if number % 9 else amount * 25, "C" if number % 9 == 0 else "D", shop)
        for number, (who, at, amount, shop) in enumerate(_payments(draw, 100, 91, 0.2, datetime(2024, 1, 1)))
    ]
    mapping = """name: hundred
currency: EUR
begins: 2024-01
ends: 2024-03
tables:
  transactions:
    file: export.csv
    columns:
      transaction_id: id
      customer_id: customer_id
      occurred_at: timestamp
      amount: amount
      direction: {from: direction, values: {C: credit, D: debit}}
      merchant: counterparty
"""
    return OwnFiles(mapping, {"export.csv": _lines("id,customer_id,timestamp,amount,direction,counterparty", rows)})


def statement(draw: Draw) -> OwnFiles:
    """Return the statement of one account: lines above the header, signed amounts, and a mark at the end of each line."""
    rows = [
        (f"{at:%d.%m.%Y %H:%M}", shop, _with_point(-amount if number % 12 else 40 * amount), "")
        for number, (_, at, amount, shop) in enumerate(reversed(_payments(draw, 1, 400, 0.9, datetime(2023, 1, 2))))
    ]
    mapping = """name: statement
currency: EUR
begins: 2023-01
ends: 2024-03
tables:
  transactions:
    file: umsaetze.csv
    delimiter: ;
    encoding: cp1252
    columns:
      transaction_id: {id: content}
      customer_id: {value: me}
      occurred_at: {from: Buchungsdatum, format: "%d.%m.%Y %H:%M", timezone: Europe/Berlin}
      amount: {from: Betrag, decimal: ",", thousands: ".", absolute: true}
      direction: {sign_of: Betrag, decimal: ",", thousands: "."}
      merchant: Empfänger
"""
    header = "Konto;DE00 0000 0000\nStand;02.03.2024\n\nBuchungsdatum;Empfänger;Betrag;"
    return OwnFiles(mapping, {"umsaetze.csv": _lines(header, rows, ";").decode().encode("cp1252")})


def overlapping_files(draw: Draw) -> OwnFiles:
    """Return three exports that overlap by weeks, whose rows have no identifier."""
    payments = _payments(draw, 16, 120, 0.7, datetime(2024, 1, 1))
    rows = [
        (who, f"{at:%Y-%m-%d %H:%M}", -amount if number % 11 else 30 * amount, shop)
        for number, (who, at, amount, shop) in enumerate(payments)
    ]
    third = len(rows) // 3
    parts = rows[: third + 90], rows[third - 60 : 2 * third + 90], rows[2 * third - 60 :]
    mapping = """name: overlap
currency: CHF
begins: 2024-01
ends: 2024-06
tables:
  transactions:
    file: export-*.csv
    columns:
      transaction_id: {id: content}
      customer_id: client
      occurred_at: {from: booking_time, format: "%Y-%m-%d %H:%M"}
      amount: {from: amount, absolute: true}
      direction: {sign_of: amount}
      merchant: shop
"""
    return OwnFiles(mapping, {f"export-{number}.csv": _lines("client,booking_time,amount,shop", part) for number, part in enumerate(parts)})


DATA_SETS: Mapping[str, Callable[[Draw], OwnFiles]] = {
    make.__name__: make
    for make in (
        give_me_some_credit,
        pakdd,
        heloc,
        spanish_credit,
        snapshots,
        vub,
        cards,
        hundred_customers,
        statement,
        overlapping_files,
    )
}
"""Name of a data set -> its maker."""


def make_files(name: str) -> OwnFiles:
    """Return a data set, equal at every call."""
    return DATA_SETS[name](np.random.default_rng([*name.encode()]))
