"""What is planted: personas with their probabilities, and the stories an analysis should find again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Persona:
    """A kind of customer. Rates are per day, the others probabilities of the step named, given the one before."""

    name: str
    weight: float
    visits_per_day: float
    store_visits_per_day: float
    product_view: float
    add_to_cart: float
    checkout: float
    order: float
    sign_up: float
    sign_in: float
    ticket_after_order: float
    store_purchase: float
    newsletter_click: float
    review_after_order: float
    mean_order_value: float


PERSONAS = (
    Persona("loyal_regular", 0.18, 0.30, 0.05, 0.80, 0.50, 0.80, 0.85, 0.70, 0.75, 0.06, 0.70, 0.16, 0.12, 62.0),
    Persona("bargain_hunter", 0.24, 0.24, 0.02, 0.75, 0.38, 0.60, 0.70, 0.50, 0.50, 0.08, 0.50, 0.20, 0.04, 34.0),
    Persona("window_shopper", 0.30, 0.20, 0.01, 0.60, 0.12, 0.35, 0.50, 0.15, 0.25, 0.05, 0.20, 0.05, 0.02, 45.0),
    Persona("gift_buyer", 0.10, 0.08, 0.01, 0.85, 0.55, 0.80, 0.85, 0.35, 0.40, 0.10, 0.60, 0.04, 0.03, 88.0),
    Persona("store_loyalist", 0.12, 0.05, 0.14, 0.55, 0.20, 0.50, 0.60, 0.40, 0.40, 0.03, 0.75, 0.08, 0.03, 41.0),
    Persona("troubled", 0.06, 0.26, 0.01, 0.75, 0.40, 0.65, 0.65, 0.60, 0.60, 0.45, 0.40, 0.05, 0.01, 55.0),
)
"""`weight` is the share of customers; the weights add up to 1."""

ACQUISITION = (
    # source, medium, campaign, weight, multiplier of the order probability on the first visit
    ("google", "organic", None, 0.34, 1.0),
    ("google", "cpc", "brand-search", 0.18, 1.25),
    ("instagram", "paid_social", "winter-look", 0.22, 0.60),
    ("newsletter", "email", "welcome", 0.06, 1.10),
    (None, None, None, 0.20, 1.0),
)


@dataclass(frozen=True)
class Stories:
    """Planted effects, by day of the scenario (the first is 0)."""

    checkout_bug_days: tuple[int, int] = (18, 21)
    checkout_bug_device: str = "mobile"
    checkout_bug_failure: float = 0.65
    working_campaign: str = "catalog-spring"
    working_campaign_day: int = 12
    working_campaign_lift: float = 0.60
    idle_campaign: str = "postcard-spring"
    idle_campaign_day: int = 14
    campaign_days: int = 14
    support_delay_days: tuple[int, int] = (8, 16)
    support_delay_hours: float = 80.0
    usual_first_reply_hours: float = 5.0
    visits_after_slow_reply: float = 0.25
    experiment: str = "free-shipping"
    experiment_cart_lift: float = 0.5
    experiment_lift: float = 0.12
    placebo_experiment: str = "footer-colour"
    refund: float = 0.04


STORIES = Stories()


def planted() -> dict[str, Any]:
    """Everything planted, for the truth file."""
    return {
        "personas": [asdict(persona) for persona in PERSONAS],
        "acquisition": [
            {"source": source, "medium": medium, "campaign": campaign, "weight": weight, "order_multiplier": factor}
            for source, medium, campaign, weight, factor in ACQUISITION
        ],
        "stories": asdict(STORIES),
    }
