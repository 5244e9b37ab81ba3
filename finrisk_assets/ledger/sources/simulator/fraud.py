"""Three kinds of fraud, laid over the genuine movements: card testing, account takeover and compromised merchants."""

import numpy as np

from .economy import ABROAD, CODE, DAY, HOMES, HOUR, Economy
from .events import ACCOUNT_TAKEOVER, CARD_TESTING, COMPROMISED_MERCHANT, NOBODY, Events, concatenate, events
from .people import Market, People


def defraud(economy: Economy, market: Market, people: People, genuine: Events) -> tuple[Events, np.ndarray]:
    """Add fraud and its refunds to genuine movements.

    Returns
    -------
    events
        The genuine movements, some of them turned fraudulent, then the added frauds, then the refunds.
    probability
        Each movement's probability of being fraud, before the dice fell.
    """
    rng = economy.rng("fraud")
    wanted = economy.fraud_share * len(genuine) * np.asarray(economy.fraud.mix) / sum(economy.fraud.mix)
    ticket = _mean_ticket(people, genuine)
    probability = _compromise(economy, market, genuine, wanted[COMPROMISED_MERCHANT - 1], rng)
    hit = rng.random(len(genuine)) < probability
    genuine.scenario[hit] = COMPROMISED_MERCHANT
    ratio = economy.fraud.compromised_ratio * rng.lognormal(0, 0.4, int(hit.sum()))
    genuine.cents[hit] = np.maximum(np.rint(genuine.cents[hit] * ratio), 1).astype(np.int64)
    tested = _card_tests(economy, market, people, ticket, wanted[CARD_TESTING - 1], rng)
    taken = _takeovers(economy, market, people, ticket, wanted[ACCOUNT_TAKEOVER - 1], rng)
    added = concatenate(tested, taken)
    added = added.take((added.second >= people.opened[added.customer]) & (added.second < economy.n_days * DAY))
    everything = concatenate(genuine, added)
    fraud = np.flatnonzero(everything.scenario)
    everything.reported[fraud] = everything.second[fraud] + (
        rng.uniform(*economy.fraud.label_delay_days, len(fraud)) * DAY
    ).astype(np.int64)
    refunds = _refunds(economy, people, everything, fraud)
    certain = np.concatenate([np.ones(len(added)), np.zeros(len(refunds))])
    return concatenate(everything, refunds), np.concatenate([probability, certain])


def _mean_ticket(people: People, genuine: Events) -> np.ndarray:
    """Mean amount of each person's purchases, in currency."""
    who, cents = genuine.customer[genuine.elastic], genuine.cents[genuine.elastic]
    count = np.bincount(who, minlength=len(people))
    total = np.bincount(who, cents, minlength=len(people)) / 100
    overall = total.sum() / max(count.sum(), 1)
    return np.where(count > 0, total / np.maximum(count, 1), overall)


def _compromise(economy: Economy, market: Market, genuine: Events, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """Give each purchase its probability of being fraudulent: above 0 while its shop is compromised.

    Each shop has one window at most; shops join, popular ones sooner, until `wanted` frauds are expected. (The order is
    a draw without replacement, by Gumbel noise on the logarithm of each shop's weight.)
    """
    n = market.n_shops
    length = rng.uniform(*economy.fraud.compromised_days, n) * DAY
    start = rng.uniform(0, 1, n) * np.maximum(economy.n_days * DAY - length, 0)
    shop = np.where(genuine.elastic & (genuine.merchant < n), genuine.merchant, NOBODY)
    inside = (shop != NOBODY) & (genuine.second >= start[shop]) & (genuine.second < (start + length)[shop])
    expected = economy.fraud.compromised_share * np.bincount(shop[inside], minlength=n)
    order = np.argsort(-2 * np.log(market.popularity) - rng.gumbel(size=n), kind="stable")
    so_far = np.cumsum(expected[order])
    chosen = np.zeros(n, dtype=bool)
    chosen[order[so_far - expected[order] / 2 <= wanted]] = wanted > 0
    return np.where(inside & chosen[shop], economy.fraud.compromised_share, 0.0)


def _card_tests(
    economy: Economy, market: Market, people: People, ticket: np.ndarray, wanted: float, rng: np.random.Generator
) -> Events:
    """Bursts of small payments within minutes at risky shops, then a large one elsewhere within the hour."""
    n = int(rng.poisson(wanted / 5.5))
    victim = rng.integers(0, len(people), n)
    start = _day_of_attack(economy, people, victim, rng) * DAY + rng.integers(0, DAY - 2 * HOUR, n)
    size = rng.integers(2, 8, n)
    burst = np.repeat(np.arange(n), size)
    second = start[burst] + rng.integers(0, 900, len(burst))
    amount = economy.fraud.test_amount * rng.lognormal(0, 0.7, len(burst))
    shop = rng.choice(market.risky, n)[burst]
    home = people.home[victim]
    cashout = start + 900 + rng.integers(0, HOUR, n)
    large = ticket[victim] * economy.fraud.cashout_ratio * rng.lognormal(0, 0.5, n)
    where = market.draw(CODE["online"], rng.random(n) ** 0.7)
    return concatenate(
        events(victim[burst], second, amount, CODE["online"], shop, home[burst], scenario=CARD_TESTING),
        events(victim, cashout, large, CODE["online"], where, home, scenario=CARD_TESTING),
    )


def _takeovers(
    economy: Economy, market: Market, people: People, ticket: np.ndarray, wanted: float, rng: np.random.Generator
) -> Events:
    """One to four large payments within hours: often at night, often at new shops, half of them abroad."""
    n = int(rng.poisson(wanted / 2.5))
    victim = rng.integers(0, len(people), n)
    night = rng.random(n) < 0.5
    hour = np.where(night, rng.uniform(0, 6, n), rng.uniform(7, 24, n))
    start = _day_of_attack(economy, people, victim, rng) * DAY + (hour * HOUR).astype(np.int64)
    size = rng.integers(1, 5, n)
    spell = np.repeat(np.arange(n), size)
    second = start[spell] + np.minimum(rng.exponential(2 * HOUR, len(spell)), 12 * HOUR).astype(np.int64)
    amount = ticket[victim[spell]] * economy.fraud.takeover_ratio * rng.lognormal(-0.25, 0.7, len(spell))
    place = len(HOMES) + rng.integers(0, len(ABROAD), n)[spell]
    abroad = (rng.random(n) < 0.5)[spell]
    category = rng.choice([CODE["online"], CODE["shopping"]], n)[spell]
    uniform = rng.random(len(spell)) ** 0.7
    shop = np.where(category == CODE["online"], market.draw(CODE["online"], uniform), market.draw(CODE["shopping"], uniform))
    shop = np.where(abroad, market.abroad(place, rng.random(len(spell))), shop)
    country = np.where(abroad, place, people.home[victim[spell]])
    return events(victim[spell], second, amount, category, shop, country, scenario=ACCOUNT_TAKEOVER)


def _day_of_attack(economy: Economy, people: People, victim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A day after the account was opened, all of them equally likely."""
    first = np.maximum(people.opened[victim] // DAY + 1, 0)
    return first + (rng.random(len(victim)) * (economy.n_days - first)).astype(np.int64)


def _refunds(economy: Economy, people: People, everything: Events, fraud: np.ndarray) -> Events:
    """The bank pays a fraud back when it is reported. The amount is settled with the balances."""
    fraud = fraud[everything.reported[fraud] < economy.n_days * DAY]
    who = everything.customer[fraud]
    paid = everything.cents[fraud] / 100
    return events(who, everything.reported[fraud], paid, CODE["refund"], NOBODY, people.home[who], sign=1, refunds=fraud)
