"""What people earn and buy when all goes well: pay, fixed costs and purchases, before fraud and before money is short."""

import numpy as np

from .economy import CATEGORIES, CODE, DAY, HOUR, Category, Economy
from .events import NOBODY, Events, concatenate, events
from .people import MAX_SUBSCRIPTIONS, Market, People


def everyday(economy: Economy, market: Market, people: People) -> Events:
    """Return every genuine movement but penalties and refunds, from the day each account is opened."""
    fixed, monthly_cost = _fixed_costs(economy, market, people)
    parts = (_opening(economy, people), _pay(economy, market, people), fixed, _purchases(economy, market, people, monthly_cost))
    everything = concatenate(*parts, _sprees(economy, market, people))
    return everything.take(everything.second >= np.maximum(people.opened, 0)[everything.customer])


def _opening(economy: Economy, people: People) -> Events:
    """What is on the account when its ledger begins: savers have several months' income."""
    rng = economy.rng("opening")
    amount = people.income * rng.lognormal(-1.2 + 2.4 * people.discipline, 0.6)
    who = np.arange(len(people))
    return events(who, np.maximum(people.opened, 0), amount, CODE["opening_balance"], NOBODY, people.home, sign=1)


def _pay(economy: Economy, market: Market, people: People) -> Events:
    """Salaries on the pay day, benefits out of work, or irregular payments.

    Where the pay day falls on a weekend, the salary comes on the Friday before, or on the first Monday of the month.
    """
    rng = economy.rng("pay")
    who, month = np.divmod(np.arange(len(people) * economy.n_months), economy.n_months)
    start, length = economy.month_days[:-1], np.diff(economy.month_days)
    day = start[month] + np.minimum(people.pay_day[who], length[month]) - 1
    weekday = _weekday(economy, day)
    friday = day - np.maximum(weekday - 4, 0)
    day = np.where(friday >= start[month], friday, day + 7 - weekday)
    calendar = (economy.start.month - 1 + month) % 12
    raised = 1 + 0.03 * ((economy.start.month - 1 + month) // 12)
    bonus = 1 + 0.5 * ((calendar == 10) & (rng.random(len(people)) < 0.5)[who])
    amount = people.income[who] * raised * bonus * rng.normal(1, 0.01, len(who))
    second = day * DAY + rng.integers(4 * HOUR, 9 * HOUR, len(who))
    working, salaried = people.working[who, month], people.salaried[who]
    employer = market.first_employer + rng.integers(0, market.first_landlord - market.first_employer, len(people))[who]
    earns, idle = salaried & working, salaried & ~working
    salary = events(who[earns], second[earns], amount[earns], CODE["salary"], employer[earns], people.home[who[earns]], sign=1)
    benefit = 0.5 * people.income[who[idle]]
    benefits = events(who[idle], second[idle], benefit, CODE["benefits"], NOBODY, people.home[who[idle]], sign=1)

    own = np.flatnonzero(~people.salaried)
    per_month = rng.uniform(0.8, 3.0, len(own))
    times = rng.poisson(per_month * economy.n_months)
    payer = np.repeat(own, times)
    second = (rng.random(len(payer)) * economy.n_days).astype(np.int64) * DAY + rng.integers(8 * HOUR, 18 * HOUR, len(payer))
    spread = np.repeat(rng.uniform(0.2, 0.7, len(own)), times)
    amount = people.income[payer] / np.repeat(per_month, times) * np.exp(rng.normal(0, 1, len(payer)) * spread - spread**2 / 2)
    client = rng.integers(market.first_employer, market.first_landlord, len(payer))
    return concatenate(
        salary, benefits, events(payer, second, amount, CODE["self_employment"], client, people.home[payer], sign=1)
    )


def _fixed_costs(economy: Economy, market: Market, people: People) -> tuple[Events, np.ndarray]:
    """Rent, utilities (dearer in winter) and subscriptions, and what they cost each person in a month."""
    rng = economy.rng("fixed costs")
    n, home = len(people), people.home
    who, month = np.divmod(np.arange(n * economy.n_months), economy.n_months)
    calendar = (economy.start.month - 1 + month) % 12
    start = economy.month_days[:-1] * DAY

    rent = people.income * rng.uniform(0.26, 0.42, n)
    rent_second = rng.integers(0, 5, n) * DAY + rng.integers(5 * HOUR, 8 * HOUR, n)
    landlord = rng.integers(market.first_landlord, market.first_provider, n)
    utilities = people.income * rng.uniform(0.05, 0.09, n)
    heat = 1 + 0.35 * np.cos(2 * np.pi * calendar / 12)
    provider = market.first_provider + rng.integers(0, 8, n)
    utility_second = start[month] + rng.integers(5, 12, n)[who] * DAY + rng.integers(5 * HOUR, 9 * HOUR, len(who))

    count = rng.binomial(MAX_SUBSCRIPTIONS, 0.45, n)
    subscriber = np.repeat(np.arange(n), count)
    price = rng.choice([4.99, 7.99, 9.99, 12.99, 17.99, 24.99, 39.90], len(subscriber))
    subscription, when = np.divmod(np.arange(len(subscriber) * economy.n_months), economy.n_months)
    billed = rng.integers(0, 28, len(subscriber)) * DAY + rng.integers(1 * HOUR, 6 * HOUR, len(subscriber))
    seller = market.first_provider + rng.integers(8, 24, len(subscriber))
    subscribed = subscriber[subscription]

    cost = rent + utilities + np.bincount(subscriber, price, minlength=n)
    costs = concatenate(
        events(who, start[month] + rent_second[who], rent[who], CODE["rent"], landlord[who], home[who]),
        events(who, utility_second, utilities[who] * heat, CODE["utilities"], provider[who], home[who]),
        events(
            subscribed, start[when] + billed[subscription], price[subscription], CODE["subscriptions"], seller[subscription],
            home[subscribed],
        ),
        _mishaps(economy, market, people),
    )  # fmt: skip
    return costs, cost


def _mishaps(economy: Economy, market: Market, people: People) -> Events:
    """Large expenses that nobody planned: the car, the roof, a tooth."""
    rng = economy.rng("mishaps")
    who = rng.integers(0, len(people), rng.poisson(economy.mishap_rate * economy.n_months * len(people)))
    second = rng.integers(0, economy.n_days, len(who)) * DAY + rng.integers(8 * HOUR, 19 * HOUR, len(who))
    shop = market.draw(CODE["household"], rng.random(len(who)))
    return events(who, second, people.income[who] * rng.lognormal(-0.7, 0.5, len(who)), CODE["repairs"], shop, people.home[who])


def _purchases(economy: Economy, market: Market, people: People, monthly_cost: np.ndarray) -> Events:
    """Purchases: how many a person makes is Poisson; what they cost follows from what is left after the fixed costs."""
    rng = economy.rng("purchases")
    left = np.maximum((1.00 - 0.26 * people.discipline) * people.income - monthly_cost, 0.15 * people.income)
    mean_ticket = sum(c.share * c.ticket * np.exp(c.spread**2 / 2) for c in CATEGORIES)
    scale = left / (economy.purchases_per_month * people.activity * mean_ticket)
    mood = rng.lognormal(0, 0.18, (len(people), economy.n_months))
    parts = []
    for code, category in enumerate(CATEGORIES):
        mean = economy.purchases_per_month * category.share * economy.n_months * people.activity
        who = np.repeat(np.arange(len(people)), rng.poisson(mean))
        day = _days(economy, category, rng.random(len(who)))
        month = np.searchsorted(economy.month_days, day, side="right") - 1
        amount = category.ticket * scale[who] * mood[who, month] * rng.lognormal(0, category.spread, len(who))
        shop = np.where(
            rng.random(len(who)) < 0.65,
            people.favourites[who, code, (4 * rng.random(len(who)) ** 1.7).astype(np.int64)],
            market.draw(code, rng.random(len(who))),
        )
        place = people.away[who, day]
        abroad = (place > 0) & (category.abroad | (rng.random(len(who)) < 0.3))
        shop = np.where(abroad, market.abroad(place, rng.random(len(who))), shop)
        country = np.where(abroad, place, people.home[who])
        second = day * DAY + seconds_of_day(category.hours, rng, len(who))
        parts.append(events(who, second, amount, code, shop, country, elastic=True))
    return concatenate(*parts)


def _sprees(economy: Economy, market: Market, people: People) -> Events:
    """Genuine bursts of small payments at the shops that card testers like, and a few large ones at odd hours.

    They are what keeps fraud from being plain to see.
    """
    rng = economy.rng("sprees")
    months = len(people) * economy.n_months
    start = _evenings(economy, rng, rng.poisson(0.02 * months))
    player = np.flatnonzero(rng.random(len(people)) < 0.3)
    player = rng.choice(player if len(player) else np.arange(len(people)), len(start))
    shop = rng.choice(market.risky, len(start))
    size = rng.integers(2, 7, len(start))
    burst = np.repeat(np.arange(len(start)), size)
    second = np.minimum(start[burst] + rng.integers(0, 2_400, len(burst)), economy.n_days * DAY - HOUR)
    small = events(
        player[burst], second, 3.0 * rng.lognormal(0, 0.8, len(burst)), CODE["online"], shop[burst], people.home[player[burst]],
    )  # fmt: skip

    start = _evenings(economy, rng, rng.poisson(0.04 * months))
    buyer = rng.integers(0, len(people), len(start))
    category = rng.choice([CODE["online"], CODE["shopping"]], len(start))
    uniform = rng.random(len(start))
    shop = np.where(category == CODE["online"], market.draw(CODE["online"], uniform), market.draw(CODE["shopping"], uniform))
    amount = people.income[buyer] * rng.lognormal(-2.3, 0.6, len(start))
    second = np.minimum(start, economy.n_days * DAY - HOUR)
    return concatenate(small, events(buyer, second, amount, category, shop, people.home[buyer]))


def seconds_of_day(hours: tuple[tuple[float, float, float], ...], rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw times of day from the peaks (hour, standard deviation, weight); past midnight wraps round."""
    peak = np.array(hours)
    which = rng.choice(len(peak), size, p=peak[:, 2] / peak[:, 2].sum())
    hour = rng.normal(peak[which, 0], peak[which, 1])
    return (hour * HOUR).astype(np.int64) % DAY


def _evenings(economy: Economy, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw moments late in the day, some after midnight."""
    return rng.integers(0, economy.n_days, size) * DAY + seconds_of_day(((22.5, 2.0, 1),), rng, size)


def _days(economy: Economy, category: Category, uniform: np.ndarray) -> np.ndarray:
    """Turn uniform numbers into days: weekends, December and the days after the first of a month differ by category."""
    day = np.arange(economy.n_days)
    date = np.datetime64(economy.start, "D") + day
    month = date.astype("datetime64[M]")
    weight = np.where(_weekday(economy, day) >= 5, category.weekend, 1.0)
    weight *= np.where(month.astype(np.int64) % 12 == 11, category.winter, 1.0)
    weight *= 1 + 0.25 * np.exp(-(date - month.astype("datetime64[D]")).astype(np.float64) / 5)
    share = np.cumsum(weight)
    return np.minimum(np.searchsorted(share, uniform * share[-1], side="right"), economy.n_days - 1)


def _weekday(economy: Economy, day: np.ndarray) -> np.ndarray:
    """Monday is 0."""
    return (economy.start.weekday() + day) % 7
