"""Episodes: short series of purchases that look like a stolen card, a few of which are one.

A thief and an owner draw an episode's attributes (the hour, the shops, the number and the amount of payments) from the same families of
distributions with different parameters (`FraudEffects`). So the probability that an episode is a theft is known exactly, by Bayes' rule
from what is drawn, and needs no history of the ledger.
"""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.events import Events, make_events
from finrisk_assets.ledger.sources.simulator.population.economy import ABROAD, CODE, DAY, HOMES, HOUR
from finrisk_assets.ledger.sources.simulator.population.people import Market, People, Town

GENUINE, CARD_TESTING, ACCOUNT_TAKEOVER = range(3)
SCENARIOS: tuple[str, ...] = ("genuine", "card_testing", "account_takeover")

_LONGEST_S = 60 * HOUR
_NIGHT_S = 6 * HOUR


@dataclass(frozen=True)
class Episodes:
    """Episodes, one element each.

    Attributes
    ----------
    scenario
        Which fraud, or ``GENUINE``.
    probability
        Probability of a fraud before it was drawn.
    reported
        Second at which a fraud is reported; 0 for a genuine episode.
    """

    scenario: np.ndarray
    probability: np.ndarray
    reported: np.ndarray


def draw_episodes(town: Town, market: Market, people: People) -> tuple[Episodes, Events]:
    """Draw the episodes of a town, and their purchases; the cents of these are weights at this stage.

    People who pay more often are hit more often, and have more look-alikes too.
    """
    economy, rng, effects = town.economy, town.rng("episodes"), town.economy.fraud
    years = economy.n_months / 12
    n_fraud = rng.poisson(economy.fraud_rate * years * len(people))
    n = n_fraud + rng.poisson(effects.lookalikes_per_year * years * len(people))
    is_fraud = np.arange(n) < n_fraud
    buyer = rng.choice(len(people), n, p=people.activity / people.activity.sum())

    odds = np.full(n, _log(economy.fraud_rate) - _log(effects.lookalikes_per_year))
    is_burst, ratio = _draw_either(is_fraud, effects.testing_share, rng)
    odds = odds + ratio
    is_night, ratio = _draw_either(is_fraud, effects.night_share, rng)
    odds = odds + ratio
    is_abroad, ratio = _draw_either(is_fraud, effects.abroad_share, rng)
    odds = odds + np.where(is_burst, 0, ratio)
    is_risky, ratio = _draw_either(is_fraud, effects.risky_share, rng)
    odds = odds + np.where(is_burst, ratio, 0)
    many, few = effects.more_payments
    more = rng.poisson(np.where(is_fraud, many, few))
    odds = odds + more * np.log(many / few) - (many - few)
    thief, owner = np.log(effects.amount_share)
    log_share = rng.normal(np.where(is_fraud, thief, owner), effects.amount_spread)
    if effects.amount_spread:
        odds = odds + ((log_share - owner) ** 2 - (log_share - thief) ** 2) / (2 * effects.amount_spread**2)

    hour = np.where(is_night, rng.uniform(0, 6, n), rng.uniform(7, 24, n))
    # Evenly over the ledger, thieves and owners apart, so that small ledgers have some of both in every month.
    day = np.concatenate([(np.arange(size) + rng.random(size)) / max(size, 1) for size in (n_fraud, n - n_fraud)]) * economy.n_days
    start = day.astype(np.int64) * DAY + (hour * HOUR).astype(np.int64)
    purchases, last = _purchases(town, market, people, buyer, start, 2 + more, log_share, is_burst, is_abroad, is_risky, rng)
    low, high = effects.label_delay_days
    latest = np.maximum(start + high * DAY - last - HOUR, low * DAY)
    reported = last + rng.uniform(low * DAY, latest).astype(np.int64)
    scenario = np.where(is_fraud, np.where(is_burst, CARD_TESTING, ACCOUNT_TAKEOVER), GENUINE).astype(np.int8)
    probability = 1 / (1 + np.exp(-odds)) if economy.fraud_rate else np.zeros(n)
    return Episodes(scenario, probability, np.where(is_fraud, reported, 0)), purchases


def _draw_either(is_fraud: np.ndarray, shares: tuple[float, float], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an attribute with the thief's or the owner's share; return it and the logarithm of its likelihood ratio."""
    thief, owner = shares
    drawn = rng.random(len(is_fraud)) < np.where(is_fraud, thief, owner)
    return drawn, np.asarray(np.where(drawn, np.log(thief / owner), np.log((1 - thief) / (1 - owner))))


def _purchases(
    town: Town,
    market: Market,
    people: People,
    buyer: np.ndarray,
    start: np.ndarray,
    n_payments: np.ndarray,
    log_share: np.ndarray,
    is_burst: np.ndarray,
    is_abroad: np.ndarray,
    is_risky: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Events, np.ndarray]:
    """Return the purchases of each episode, and the second of its last one.

    A burst tries the card with small amounts at one online shop, then pays large ones online. A spree goes from shop to shop.
    """
    n = len(buyer)
    episode = np.repeat(np.arange(n), n_payments)
    place_in = np.arange(len(episode)) - np.repeat(np.cumsum(n_payments) - n_payments, n_payments)
    is_small = is_burst[episode] & (place_in < (n_payments // 2)[episode])
    gap = np.where(is_small, rng.uniform(30, 240, len(episode)), rng.exponential(1.5 * HOUR, len(episode)) + 60)
    total = np.cumsum(gap)
    first = np.cumsum(n_payments) - n_payments
    passed = np.minimum(total - np.repeat(total[first] if n else total[:0], n_payments), _LONGEST_S)
    second = start[episode] + passed.astype(np.int64)
    last = np.zeros(n, dtype=np.int64)
    np.maximum.at(last, episode, second)

    online, shopping = CODE["online"], CODE["shopping"]
    category = np.where(is_burst[episode], online, rng.choice([online, shopping, CODE["cash"]], len(episode), p=[0.4, 0.45, 0.15]))
    uniform = rng.random(len(episode)) ** 0.7
    shop = np.select(
        [category == online, category == shopping],
        [market.draw(online, uniform), market.draw(shopping, uniform)],
        market.draw(CODE["cash"], uniform),
    )
    tester = np.where(is_risky, rng.choice(market.risky, n), market.draw(online, rng.random(n)))
    shop = np.where(is_small, tester[episode], shop)
    place = (len(HOMES) + rng.integers(0, len(ABROAD), n))[episode]
    abroad = (is_abroad & ~is_burst)[episode]
    shop = np.where(abroad, market.abroad(place, rng.random(len(episode))), shop)
    country = np.where(abroad, place, people.home[buyer[episode]])
    weight = rng.lognormal(0, 0.7, len(episode))
    large = np.where(is_small, 0, weight)
    share = large / np.bincount(episode, large, n)[episode] if n else large
    amount = np.where(is_small, 200.0 * weight, people.income[buyer[episode]] * 100 * np.exp(log_share)[episode] * share)
    events = make_events(buyer[episode], second, np.maximum(amount, 1), category, shop, country, episode=episode)
    return events.take(second < town.economy.n_days * DAY), last


def _log(value: float) -> float:
    return float(np.log(value)) if value else -np.inf
