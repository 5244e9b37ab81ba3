"""Who lives in the economy, and the merchants they meet: people's traits, jobs and journeys, drawn once."""

from dataclasses import dataclass

import numpy as np

from .economy import ABROAD, CATEGORIES, COUNTRIES, DAY, HOME_SHARES, HOMES, REGIONS, Economy

_SHOPS_ABROAD = 25
_REGION_INCOME = np.array([1.03, 1.0, 0.88, 1.08])
_PAY_DAYS = np.array([1, 15, 25, 31])
MAX_SUBSCRIPTIONS = 5


@dataclass(frozen=True)
class Market:
    """The merchants: shops at home (by category), shops abroad (by country), then employers, landlords and the rest.

    Attributes
    ----------
    names
        Merchant code -> opaque identifier.
    first_shop
        Category code -> its first shop; one more entry ends the last category. Shape ``(n_categories + 1,)``.
    popularity
        Share of its category's purchases that goes to each shop at home; shape ``(n_shops,)``.
    risky
        Shops at home where stolen cards are tried out; they have genuine buyers, too.
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

    @property
    def n_shops(self) -> int:
        return len(self.popularity)

    def draw(self, category: int, uniform: np.ndarray) -> np.ndarray:
        """Turn uniform numbers into shops of the category, by popularity."""
        first, last = self.first_shop[category], self.first_shop[category + 1]
        share = np.cumsum(self.popularity[first:last])
        return first + np.minimum(np.searchsorted(share, uniform * share[-1], side="right"), last - first - 1)

    def abroad(self, country: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Turn country codes and uniform numbers into shops in those countries, the first ones met most often."""
        return (
            self.first_abroad
            + (country.astype(np.int64) - len(HOMES)) * _SHOPS_ABROAD
            + (_SHOPS_ABROAD * uniform**1.5).astype(np.int64)
        )


@dataclass(frozen=True)
class People:
    """The people, one element (or row) each.

    Attributes
    ----------
    birth_year, gender, region, home, opened, limit
        As they stand in the tables; `home` is a country code, `opened` the second the account is opened (below 0: before
        the ledger begins), `limit` the agreed overdraft in currency.
    income
        Mean monthly income while in work, in currency.
    salaried, pay_day
        Whether there is a salary, and on which day of the month (31 stands for the last).
    hired
        Second since which the person has the job or the trade.
    discipline
        0 for someone who spends what comes in and more, 1 for a saver.
    activity
        Factor on the number of purchases.
    working
        Whether in work, by month; shape ``(n_customers, n_months)``.
    away
        Country code of the place, by day, 0 at home; shape ``(n_customers, n_days)``.
    favourites
        The shops one returns to; shape ``(n_customers, n_categories, 4)``.
    """

    birth_year: np.ndarray
    gender: np.ndarray
    region: np.ndarray
    home: np.ndarray
    opened: np.ndarray
    limit: np.ndarray
    income: np.ndarray
    salaried: np.ndarray
    pay_day: np.ndarray
    hired: np.ndarray
    discipline: np.ndarray
    activity: np.ndarray
    working: np.ndarray
    away: np.ndarray
    favourites: np.ndarray

    def __len__(self) -> int:
        return len(self.income)


def market(economy: Economy) -> Market:
    """Draw the merchants. Popularity falls by rank as in Zipf's law."""
    rng = economy.rng("market")
    shops = np.array([category.shops for category in CATEGORIES])
    first_shop = np.concatenate([[0], np.cumsum(shops)])
    popularity = np.concatenate([_zipf(n) for n in shops])
    online = [category.name for category in CATEGORIES].index("online")
    risky = np.sort(rng.choice(np.arange(first_shop[online], first_shop[online + 1]), 25, replace=False))
    n_employers, n_landlords, n_providers = max(economy.n_customers // 12, 1), max(economy.n_customers // 6, 1), 24
    first_abroad = int(first_shop[-1])
    first_employer = first_abroad + _SHOPS_ABROAD * len(ABROAD)
    names = (
        *(f"M{code:05d}" for code in range(first_employer)),
        *(f"E{code:05d}" for code in range(n_employers)),
        *(f"R{code:05d}" for code in range(n_landlords)),
        *(f"P{code:05d}" for code in range(n_providers)),
    )
    first_landlord = first_employer + n_employers
    return Market(
        names, first_shop, popularity, risky, first_abroad, first_employer, first_landlord, first_landlord + n_landlords
    )


def people(economy: Economy, market: Market) -> People:
    """Draw the people. Income rises and falls with age and differs by region and, a little, by gender."""
    rng = economy.rng("people")
    n = economy.n_customers
    age = np.clip(rng.normal(42, 13, n), 18, 80).astype(np.int64)
    gender = rng.choice(3, n, p=[0.495, 0.495, 0.01])
    region = rng.choice(len(REGIONS), n, p=[0.28, 0.27, 0.22, 0.23])
    level = 2_500 * np.exp(rng.normal(0, 0.38, n) - ((age - 48) / 45) ** 2) * _REGION_INCOME[region]
    salaried = rng.random(n) >= economy.irregular_share
    late = rng.random(n) < 0.12
    opened = np.where(late, rng.uniform(0, 0.5 * economy.n_days, n), -rng.uniform(30, 3_650, n))
    discipline = rng.beta(2.2, 2.2, n)
    return People(
        birth_year=economy.start.year - age,
        gender=gender,
        region=region,
        home=rng.choice(len(HOMES), n, p=HOME_SHARES),
        opened=(opened * DAY).astype(np.int64),
        limit=np.where(rng.random(n) < 0.7, np.rint(level * rng.uniform(0.3, 1.5, n) / 100) * 100, 0.0),
        income=level * np.where(gender == 1, 0.95, 1.0),
        salaried=salaried,
        pay_day=rng.choice(_PAY_DAYS, n, p=[0.3, 0.15, 0.25, 0.3]),
        hired=(-rng.exponential(1_500, n).clip(20, 12_000) * DAY).astype(np.int64),
        discipline=discipline,
        activity=rng.gamma(6, 1 / 6, n).clip(0.3, 2.5),
        working=_working(economy, rng, salaried, discipline),
        away=_away(economy, rng),
        favourites=np.stack([market.draw(c, rng.random((n, 4))) for c in range(len(CATEGORIES))], axis=1),
    )


def _zipf(n: int) -> np.ndarray:
    weight = 1 / np.arange(2, n + 2) ** 0.9
    return weight / weight.sum()


def _working(economy: Economy, rng: np.random.Generator, salaried: np.ndarray, discipline: np.ndarray) -> np.ndarray:
    """Each salaried person may lose the job once, for two to six months."""
    n = economy.n_customers
    lost = rng.geometric(np.maximum(economy.job_loss_rate * (1.4 - 0.8 * discipline), 1e-12)) - 1
    lost = np.where(salaried & (economy.job_loss_rate > 0), lost, economy.n_months)
    found = lost + rng.integers(2, 7, n)
    month = np.arange(economy.n_months)
    return (month < lost[:, None]) | (month >= found[:, None])


def _away(economy: Economy, rng: np.random.Generator) -> np.ndarray:
    """Mark the days of each journey with its country, most of them in the first countries of the list."""
    away = np.zeros((economy.n_customers, economy.n_days), dtype=np.int8)
    n_trips = rng.poisson(economy.trips_per_month * economy.n_months * economy.n_customers)
    length = rng.integers(3, 15, n_trips)
    trip = np.repeat(np.arange(n_trips), length)
    day_of_trip = np.arange(len(trip)) - np.repeat(np.cumsum(length) - length, length)
    traveller = rng.integers(0, economy.n_customers, n_trips)
    country = len(HOMES) + (len(ABROAD) * rng.random(n_trips) ** 1.6).astype(np.int64)
    day = rng.integers(0, economy.n_days, n_trips)[trip] + day_of_trip
    inside = day < economy.n_days
    away[traveller[trip][inside], day[inside]] = country[trip][inside]
    assert len(COUNTRIES) < 128
    return away
