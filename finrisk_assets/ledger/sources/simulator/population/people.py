"""The people of a town and its merchants: traits, bills, jobs and journeys, drawn once."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.economy import (
    ABROAD,
    CATEGORIES,
    CODE,
    COUNTRIES,
    DAY,
    HOME_SHARES,
    HOMES,
    REGIONS,
    Economy,
)

_SHOPS_ABROAD = 25
_N_RISKY = 25
_REGION_INCOME = np.array([1.03, 1.0, 0.88, 1.08])
_PAY_DAYS = np.array([1, 2, 3, 5, 10, 15, 20, 25, 27, 28, 30, 31])
_PAY_DAY_SHARES = (0.14, 0.05, 0.05, 0.04, 0.07, 0.14, 0.05, 0.14, 0.06, 0.07, 0.05, 0.14)
_PRICES = np.array([4.99, 7.99, 9.99, 12.99, 17.99, 24.99, 39.90])
_MAX_SUBSCRIPTIONS = 5
_NAMES_PER_TOWN = 10_000
_JOB_DAYS = 1_500
"""Days; mean length of a job or trade. What is left of it and what has passed have the same distribution at any time."""
_JOBS = 7
_JOIN_LATE = 0.03
"""Share of the people who join while the ledger runs; nobody leaves, so more would let the town grow."""


@dataclass(frozen=True)
class Town:
    """One town of an economy: people who share a market, independent of all other towns.

    Attributes
    ----------
    economy
        The town's economy.
    number
        0 for the first. All towns but the last have `Economy.town_size` people.
    """

    economy: Economy
    number: int = 0

    @property
    def size(self) -> int:
        return min(self.economy.town_size, self.economy.n_customers - self.first_customer)

    @property
    def first_customer(self) -> int:
        """The number of people in the earlier towns."""
        return self.number * self.economy.town_size

    def rng(self, stage: str) -> np.random.Generator:
        """Return the stage's own random numbers, so that a change to one stage leaves the draws of the others alone."""
        return np.random.default_rng([self.economy.seed, self.number, *stage.encode()])


@dataclass(frozen=True)
class Market:
    """The merchants: shops at home (by category), shops abroad (by country), then employers, landlords and the rest.

    Attributes
    ----------
    names
        Merchant code -> opaque identifier; its number says the town.
    first_shop
        Category code -> its first shop; one more entry ends the last category. Shape ``(n_categories + 1,)``.
    popularity
        Share of its category's purchases that goes to each shop at home; shape ``(n_shops,)``.
    risky
        Shops at home where stolen cards are tested; they also have genuine buyers.
    first_abroad, first_employer, first_landlord, first_provider
        Where each of the other kinds begins.
    """

    names: tuple[str, ...]
    first_shop: np.ndarray
    popularity: np.ndarray
    risky: np.ndarray
    first_abroad: int
    first_employer: int
    first_landlord: int
    first_provider: int

    def draw(self, category: int, uniform: np.ndarray) -> np.ndarray:
        """Turn uniform numbers into shops of the category, by popularity."""
        first, last = self.first_shop[category], self.first_shop[category + 1]
        share = np.cumsum(self.popularity[first:last])
        return first + np.minimum(np.searchsorted(share, uniform * share[-1], side="right"), last - first - 1)

    def abroad(self, country: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Turn country codes and uniform numbers into shops in those countries, the first ones met most often."""
        return self.first_abroad + (country.astype(np.int64) - len(HOMES)) * _SHOPS_ABROAD + (_SHOPS_ABROAD * uniform**1.5).astype(np.int64)


@dataclass(frozen=True)
class People:
    """The people of a town, one element (or row) each.

    Attributes
    ----------
    birth_year, gender, region, home, limit
        As they stand in the tables; `home` is a country code, `limit` the agreed overdraft in currency.
    opened
        Second at which the account is opened, below 0 before the ledger begins. Later ones open as a month begins.
    opened_month
        Month of the ledger in which the account's movements begin.
    income
        Mean monthly income while in work as the ledger begins, in currency, whole tens: it is declared on joining.
    salaried, pay_day
        Whether there is a salary, and on which day of the month (31 stands for the last).
    hired
        Seconds at which the person begins a job or a trade, in ascending order, the last one before the ledger first; shape ``(n, 7)``.
    discipline
        0 for someone who lives from pay to pay, 1 for a saver.
    buffer, debts
        As in `households.State`.
    activity
        Factor on the number of purchases.
    rent, utilities
        What they cost in a month, in currency; utilities before the season.
    subscriptions
        Monthly price of each, 0 where there is none; shape ``(n, 5)``.
    away
        Country code of the place, by day, 0 at home; shape ``(n, n_days)``.
    favourites
        The shops one returns to; shape ``(n, n_categories, 4)``.
    """

    birth_year: np.ndarray
    gender: np.ndarray
    region: np.ndarray
    home: np.ndarray
    opened: np.ndarray
    opened_month: np.ndarray
    limit: np.ndarray
    income: np.ndarray
    salaried: np.ndarray
    pay_day: np.ndarray
    hired: np.ndarray
    discipline: np.ndarray
    buffer: np.ndarray
    debts: np.ndarray
    activity: np.ndarray
    rent: np.ndarray
    utilities: np.ndarray
    subscriptions: np.ndarray
    away: np.ndarray
    favourites: np.ndarray

    def __len__(self) -> int:
        return len(self.income)


def draw_market(town: Town) -> Market:
    """Draw the merchants. Popularity falls by rank as in Zipf's law."""
    rng = town.rng("market")
    shops = np.array([category.shops for category in CATEGORIES])
    first_shop = np.concatenate([[0], np.cumsum(shops)])
    online = CODE["online"]
    risky = np.sort(rng.choice(np.arange(first_shop[online], first_shop[online + 1]), _N_RISKY, replace=False))
    first_abroad = int(first_shop[-1])
    first_employer = first_abroad + _SHOPS_ABROAD * len(ABROAD)
    counts = {"M": first_employer, "E": max(town.size // 12, 1), "R": max(town.size // 6, 1), "P": 24}
    first = town.number * _NAMES_PER_TOWN
    return Market(
        names=tuple(f"{kind}{first + code:05d}" for kind, count in counts.items() for code in range(count)),
        first_shop=first_shop,
        popularity=np.concatenate([_zipf(n) for n in shops]),
        risky=risky,
        first_abroad=first_abroad,
        first_employer=first_employer,
        first_landlord=first_employer + counts["E"],
        first_provider=first_employer + counts["E"] + counts["R"],
    )


def draw_people(town: Town, market: Market) -> People:
    """Draw the people. Income rises and falls with age and differs by region and, a little, by gender."""
    economy, rng, n = town.economy, town.rng("people"), town.size
    age = np.clip(rng.normal(42, 13, n), 18, 80).astype(np.int64)
    gender = rng.choice(3, n, p=[0.495, 0.495, 0.01])
    region = rng.choice(len(REGIONS), n, p=[0.28, 0.27, 0.22, 0.23])
    level = 2_500 * np.exp(rng.normal(0, 0.38, n) - ((age - 48) / 45) ** 2) * _REGION_INCOME[region]
    income = np.maximum(np.rint(level * np.where(gender == 1, 0.95, 1.0) / 10) * 10, 400)
    late = (rng.random(n) < _JOIN_LATE) & (economy.n_months > 1)
    opened_month = np.where(late, rng.integers(1, max(economy.n_months, 2), n), 0)
    discipline = rng.beta(2.2, 2.2, n)
    effects = economy.household
    salaried = rng.random(n) >= effects.irregular_share
    wanted = effects.buffer_months * np.exp(effects.buffer_discipline * (discipline - 0.5) + rng.normal(0, effects.buffer_spread, n))
    return People(
        birth_year=economy.start.year - age,
        gender=gender,
        region=region,
        home=rng.choice(len(HOMES), n, p=HOME_SHARES),
        opened=np.where(late, economy.month_days[opened_month], -rng.integers(30, 3_650, n)) * DAY,
        opened_month=opened_month,
        limit=np.where(rng.random(n) < 0.7, np.rint(level * rng.uniform(0.3, 1.5, n) / 100) * 100, 0.0),
        income=income,
        salaried=salaried,
        pay_day=rng.choice(_PAY_DAYS, n, p=_PAY_DAY_SHARES),
        hired=_draw_jobs(rng, n),
        discipline=discipline,
        buffer=wanted * np.where(salaried, 1.0, effects.buffer_irregular),
        debts=2.0 * (0.5 - discipline) + rng.normal(0, 0.9, n),
        activity=rng.gamma(6, 1 / 6, n).clip(0.3, 2.5),
        rent=income * rng.uniform(0.26, 0.42, n),
        utilities=income * rng.uniform(0.05, 0.09, n),
        subscriptions=rng.choice(_PRICES, (n, _MAX_SUBSCRIPTIONS)) * (rng.random((n, _MAX_SUBSCRIPTIONS)) < 0.45),
        away=_away(town, rng),
        favourites=np.stack([market.draw(c, rng.random((n, 4))) for c in range(len(CATEGORIES))], axis=1),
    )


def _zipf(n: int) -> np.ndarray:
    weight = 1 / np.arange(2, n + 2) ** 0.9
    return weight / weight.sum()


def _draw_jobs(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw when each person begins a job, in seconds: the present one as the ledger begins, and those after it."""
    passed, lengths = rng.exponential(_JOB_DAYS, size), rng.exponential(_JOB_DAYS, (size, _JOBS - 1))
    return (np.column_stack([-passed, np.cumsum(lengths, axis=1)]) * DAY).astype(np.int64)


def _away(town: Town, rng: np.random.Generator) -> np.ndarray:
    """Mark the days of each journey with its country, most of them in the first countries of the list."""
    economy = town.economy
    away = np.zeros((town.size, economy.n_days), dtype=np.int8)
    n_trips = rng.poisson(economy.trips_per_month * economy.n_months * town.size)
    length = rng.integers(3, 15, n_trips)
    trip = np.repeat(np.arange(n_trips), length)
    day_of_trip = np.arange(len(trip)) - np.repeat(np.cumsum(length) - length, length)
    traveller = rng.integers(0, town.size, n_trips)
    country = len(HOMES) + (len(ABROAD) * rng.random(n_trips) ** 1.6).astype(np.int64)
    day = rng.integers(0, economy.n_days, n_trips)[trip] + day_of_trip
    inside = day < economy.n_days
    away[traveller[trip][inside], day[inside]] = country[trip][inside]
    assert len(COUNTRIES) < 128
    return away
