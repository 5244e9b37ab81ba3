"""The movements of a month: pay, bills, mishaps, fees, and purchases that add up to the month's totals to the cent."""

import numpy as np

from finrisk_assets.ledger.sources.simulator.events import NO_MERCHANT, Events, concatenate, make_events
from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths
from finrisk_assets.ledger.sources.simulator.population.economy import CATEGORIES, CODE, DAY, HOUR, Category
from finrisk_assets.ledger.sources.simulator.population.people import Market, People, Town

_LEAST_CENTS = 10
"""Cents; every purchase costs at least this."""

_BOUNCED_DAYS = 3
"""Days after which a bounced bill is paid."""


def split_into_movements(town: Town, market: Market, people: People, months: HouseholdMonths, of_episodes: Events) -> Events:
    """Return every movement of the months, without refunds, in order of time.

    Parameters
    ----------
    of_episodes
        The purchases of `episodes.draw_episodes`; those of an account that is not open yet do not take place.
    """
    everything = concatenate(
        _opening(people, months),
        _pay(town, market, people, months),
        _bills(town, market, people, months),
        _mishaps(town, market, people, months),
        _penalties(town, people, months),
        _purchases(town, market, people, months, of_episodes),
    )
    return everything.in_order()


def share_out(total: np.ndarray, group: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share whole cents among the members of each group, in proportion to their weights.

    Parameters
    ----------
    total
        Cents by group; at least `_LEAST_CENTS` for each member.
    group
        Group of each member, in ascending order.
    weight
        Above 0.

    Returns
    -------
    numpy.ndarray
        Cents of each member, at least `_LEAST_CENTS`, which add up to the totals exactly.
    """
    if len(group) == 0:
        return np.zeros(0, dtype=np.int64)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    size = np.diff(np.append(first, len(group)))
    which = np.repeat(np.arange(len(first)), size)
    whole = np.cumsum(weight)
    before = (whole[first] - weight[first])[which]
    share = (whole - before) / np.add.reduceat(weight, first)[which]
    last = np.append(first[1:], len(group)) - 1
    share[last] = 1.0  # exactly, whatever the rounding
    free = (total[group[first]] - _LEAST_CENTS * size)[which]
    up_to = np.rint(np.minimum(share, 1.0) * free).astype(np.int64)
    start = np.zeros(len(group), dtype=bool)
    start[first] = True
    return _LEAST_CENTS + np.where(start, up_to, up_to - np.concatenate([[0], up_to[:-1]]))


def _opening(people: People, months: HouseholdMonths) -> Events:
    """Return the opening balances as credits."""
    customer, opened = np.arange(len(people)), np.maximum(people.opened, 0)
    return make_events(customer, opened, months.opening(people), CODE["opening_balance"], NO_MERCHANT, people.home, sign=1)


def _pay(town: Town, market: Market, people: People, months: HouseholdMonths) -> Events:
    """Return salaries or benefits on the pay day, and irregular earnings in one to three payments.

    Where the pay day falls on a weekend, the salary comes on the Friday before, or on the first Monday of the month.
    """
    economy, rng = town.economy, town.rng("pay")
    customer, month = np.nonzero(months.is_open)
    start, length = economy.month_days[:-1], np.diff(economy.month_days)
    day = start[month] + np.minimum(people.pay_day[customer], length[month]) - 1
    weekday = _weekday(town, day)
    friday = day - np.maximum(weekday - 4, 0)
    day = np.where(friday >= start[month], friday, day + 7 - weekday)
    second = day * DAY + rng.integers(7 * HOUR, 9 * HOUR, len(customer))
    employer = rng.integers(market.first_employer, market.first_landlord, len(people))[customer]
    amount, working = months.income[customer, month], months.working[customer, month]
    monthly = people.salaried[customer]
    category = np.where(working, CODE["salary"], CODE["benefits"])
    payer = np.where(working, employer, NO_MERCHANT)
    regular = make_events(
        customer[monthly], second[monthly], amount[monthly], category[monthly], payer[monthly], people.home[customer[monthly]], sign=1
    )

    own, own_month, earned = customer[~monthly], month[~monthly], amount[~monthly]
    times = rng.integers(1, 4, len(own))
    payment = np.repeat(np.arange(len(own)), times)
    day = start[own_month[payment]] + (rng.random(len(payment)) * length[own_month[payment]]).astype(np.int64)
    second = day * DAY + rng.integers(8 * HOUR, 18 * HOUR, len(payment))
    client = rng.integers(market.first_employer, market.first_landlord, len(payment))
    part = share_out(earned, payment, rng.uniform(0.5, 1.5, len(payment)))
    earner = own[payment]
    return concatenate(regular, make_events(earner, second, part, CODE["self_employment"], client, people.home[earner], sign=1))


def _bills(town: Town, market: Market, people: People, months: HouseholdMonths) -> Events:
    """Return rent, utilities and subscriptions. Where the utilities bounce, a fee is charged at once and they are paid days later."""
    economy, rng, n, home = town.economy, town.rng("bills"), len(people), people.home
    customer, month = np.nonzero(months.is_open)
    start = economy.month_days[:-1] * DAY
    rent_second = (rng.integers(0, 5, n) * DAY + rng.integers(8 * HOUR, 10 * HOUR, n))[customer]
    landlord = rng.integers(market.first_landlord, market.first_provider, n)[customer]
    utility_second = start[month] + (rng.integers(5, 12, n) * DAY + rng.integers(8 * HOUR, 10 * HOUR, n))[customer]
    provider = market.first_provider + rng.integers(0, 8, n)[customer]
    missed = months.is_missed[customer, month]
    fee = round(100 * economy.household.missed_fee_amount)

    subscriber, slot = np.nonzero(people.subscriptions)
    price = people.subscriptions[subscriber, slot]
    billed = rng.integers(0, 28, len(price)) * DAY + rng.integers(7 * HOUR, 9 * HOUR, len(price))
    seller = market.first_provider + rng.integers(8, 24, len(price))
    subscription, when = np.nonzero(months.is_open[subscriber])
    subscribed = subscriber[subscription]
    return concatenate(
        make_events(customer, start[month] + rent_second, np.rint(people.rent * 100)[customer], CODE["rent"], landlord, home[customer]),
        make_events(
            customer, utility_second + missed * _BOUNCED_DAYS * DAY, np.rint(months.utilities[customer, month]), CODE["utilities"],
            provider, home[customer],
        ),
        make_events(customer[missed], utility_second[missed], fee, CODE["returned_payment"], NO_MERCHANT, home[customer[missed]]),
        make_events(
            subscribed, start[when] + billed[subscription], np.rint(price * 100)[subscription], CODE["subscriptions"],
            seller[subscription], home[subscribed],
        ),
    )  # fmt: skip


def _mishaps(town: Town, market: Market, people: People, months: HouseholdMonths) -> Events:
    """Return large unplanned expenses: the car, the roof, a tooth."""
    rng = town.rng("mishaps")
    customer, month = np.nonzero(months.is_open & (months.mishap > 0))
    second = _day_in(town, month, rng) * DAY + rng.integers(8 * HOUR, 19 * HOUR, len(customer))
    shop = market.draw(CODE["household"], rng.random(len(customer)))
    return make_events(customer, second, months.mishap[customer, month], CODE["repairs"], shop, people.home[customer])


def _penalties(town: Town, people: People, months: HouseholdMonths) -> Events:
    """Return the penalties for months that close below zero, in their last second."""
    customer, month = np.nonzero(months.is_open & (months.penalty > 0))
    last = town.economy.month_days[month + 1] * DAY - 1
    return make_events(customer, last, months.penalty[customer, month], CODE["penalty"], NO_MERCHANT, people.home[customer])


def _purchases(town: Town, market: Market, people: People, months: HouseholdMonths, of_episodes: Events) -> Events:
    """Return the month's spending after the bills as purchases, at least one a month."""
    economy = town.economy
    purchases = concatenate(_everyday(town, market, people, months), of_episodes)
    month = month_of(town, purchases.second)
    group = purchases.customer.astype(np.int64) * economy.n_months + month
    keep = months.is_open[purchases.customer, month]
    order = np.flatnonzero(keep)[np.argsort(group[keep], kind="stable")]
    purchases, group = purchases.take(order), group[order]
    return Events(**{**vars(purchases), "cents": share_out(to_spend(people, months).ravel(), group, purchases.cents.astype(np.float64))})


def to_spend(people: People, months: HouseholdMonths) -> np.ndarray:
    """Return the amount that each month leaves for purchases, in cents; shape ``(n, n_months)``."""
    bills = np.rint(people.rent * 100) + np.rint(people.subscriptions * 100).sum(axis=1)
    return months.spending - bills.astype(np.int64)[:, None] - np.rint(months.utilities).astype(np.int64)


def month_of(town: Town, second: np.ndarray) -> np.ndarray:
    """Return the month of the ledger of each second."""
    return np.searchsorted(town.economy.month_days * DAY, second, side="right") - 1


def _everyday(town: Town, market: Market, people: People, months: HouseholdMonths) -> Events:
    """Return ordinary purchases, Poisson in number. Their cents are weights at this stage."""
    economy, rng = town.economy, town.rng("purchases")
    mean_ticket = sum(c.share * c.ticket * np.exp(c.spread**2 / 2) for c in CATEGORIES)
    scale = 0.45 * people.income / (economy.purchases_per_month * people.activity * mean_ticket)
    parts = []
    for code, category in enumerate(CATEGORIES):
        mean = economy.purchases_per_month * category.share * economy.n_months * people.activity
        customer = np.repeat(np.arange(len(people)), rng.poisson(mean))
        day = _days(town, category, rng.random(len(customer)))
        if code == CODE["groceries"]:  # every open month has groceries
            everyone, month = np.nonzero(months.is_open)
            customer, day = np.concatenate([customer, everyone]), np.concatenate([day, _day_in(town, month, rng)])
        amount = category.ticket * scale[customer] * rng.lognormal(0, category.spread, len(customer))
        shop = np.where(
            rng.random(len(customer)) < 0.65,
            people.favourites[customer, code, (4 * rng.random(len(customer)) ** 1.7).astype(np.int64)],
            market.draw(code, rng.random(len(customer))),
        )
        place = people.away[customer, day]
        abroad = (place > 0) & (category.abroad | (rng.random(len(customer)) < 0.3))
        shop = np.where(abroad, market.abroad(place, rng.random(len(customer))), shop)
        country = np.where(abroad, place, people.home[customer])
        second = day * DAY + _seconds_of_day(category.hours, rng, len(customer))
        parts.append(make_events(customer, second, np.maximum(amount * 100, 1), code, shop, country))
    return concatenate(*parts)


def _seconds_of_day(hours: tuple[tuple[float, float, float], ...], rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw times of day from the peaks (hour, standard deviation, weight); past midnight wraps round."""
    peak = np.array(hours)
    which = rng.choice(len(peak), size, p=peak[:, 2] / peak[:, 2].sum())
    hour = rng.normal(peak[which, 0], peak[which, 1])
    return (hour * HOUR).astype(np.int64) % DAY


def _day_in(town: Town, month: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a day of each month, all equally likely."""
    start, length = town.economy.month_days[:-1], np.diff(town.economy.month_days)
    return start[month] + (rng.random(len(month)) * length[month]).astype(np.int64)


def _days(town: Town, category: Category, uniform: np.ndarray) -> np.ndarray:
    """Turn uniform numbers into days: weekends, December and the days after the first of a month differ by category.

    Months differ by their length and by December alone, not by their number of weekends.
    """
    day = np.arange(town.economy.n_days)
    date = np.datetime64(town.economy.start, "D") + day
    month = date.astype("datetime64[M]")
    weight = np.where(_weekday(town, day) >= 5, category.weekend, 1.0)
    weight *= 1 + 0.25 * np.exp(-(date - month.astype("datetime64[D]")).astype(np.float64) / 5)
    number = (month - month[0]).astype(np.int64)
    weight *= (np.bincount(number) / np.bincount(number, weight))[number]
    weight *= np.where(month.astype(np.int64) % 12 == 11, category.winter, 1.0)
    share = np.cumsum(weight)
    return np.minimum(np.searchsorted(share, uniform * share[-1], side="right"), len(day) - 1)


def _weekday(town: Town, day: np.ndarray) -> np.ndarray:
    """Return the weekday of each day; Monday is 0."""
    return (town.economy.start.weekday() + day) % 7
