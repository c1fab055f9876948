"""What people and the brand do: web visits, store visits, orders and what follows, newsletters, support."""

from __future__ import annotations

import random
from typing import Any

from ingest.scenario.people import DAY, HOUR, MINUTE, Person, Recorder, cart_probability, order_probability
from ingest.scenario.personas import STORIES

PRODUCTS = tuple(f"sku-{number:03d}" for number in range(200))


class Actor:
    """One person's life in the scenario."""

    def __init__(self, recorder: Recorder, rng: random.Random, person: Person, days: int) -> None:
        self.recorder, self.rng, self.person = recorder, rng, person
        self.end = days * DAY
        self.visit_count = 0
        self.kiosk = "kiosk-berlin-1"

    def live(self) -> None:
        """Every act of the person, in time order."""
        at = self.person.arrives_at
        self.web_visit(at)
        while (at := self._next_visit(at)) < self.end:
            is_store = self.rng.random() < self._store_share()
            self.store_visit(at) if is_store else self.web_visit(at)
        self.newsletters()
        self.paper_mail()

    def _rate(self, at: float) -> float:
        rate = self.person.persona.visits_per_day + self.person.persona.store_visits_per_day
        slow = self.person.slow_reply_at
        if slow is not None and at >= slow:
            rate *= STORIES.visits_after_slow_reply
        if self.person.gets_working_campaign:
            begins, ends = _CAMPAIGN
            if begins <= at < ends:
                rate *= 1 + STORIES.working_campaign_lift
        return rate

    def _next_visit(self, at: float) -> float:
        """Two hours at least, then by a Poisson process whose rate changes at the instants of the stories."""
        at += 2 * HOUR
        changes = sorted(instant for instant in (*_CAMPAIGN, self.person.slow_reply_at or 0.0) if instant > at)
        wanted = self.rng.expovariate(1.0)  # visits to expect until the next one
        for change in changes:
            expected = self._rate(at) * (change - at) / DAY
            if wanted < expected:
                break
            wanted, at = wanted - expected, change
        return at + wanted / self._rate(at) * DAY

    def _store_share(self) -> float:
        persona = self.person.persona
        return persona.store_visits_per_day / (persona.store_visits_per_day + persona.visits_per_day)

    def _emit(self, event_type: str, at: float, identifiers: dict[str, Any], **more: Any) -> None:
        if at < self.end:
            channel = more.pop("channel", "web")
            self.recorder.event(event_type, at, channel, identifiers, more.pop("properties", None),
                                person=self.person, **more)  # fmt: skip

    def web_visit(self, at: float, *, clicked: dict[str, Any] | None = None) -> None:
        """A visit on one device: pages, products, cart, checkout, perhaps an order; perhaps with a login."""
        person, rng, persona = self.person, self.rng, self.person.persona
        is_first = self.visit_count == 0
        self.visit_count += 1
        slot = rng.randrange(len(person.cookies))
        who: dict[str, Any] = {"anonymous_id": person.cookies[slot]}
        origin = {"source": person.source, "medium": person.medium, "campaign": person.campaign} if is_first else {}
        origin = clicked or origin
        if is_first and person.medium in ("cpc", "paid_social"):
            self._emit("ad_clicked", at - 2, who, **origin)
        if is_first:
            self._experiments(at, who)
        for _ in range(1 + int(rng.expovariate(0.9))):
            self._emit("page_viewed", at, who, properties={"page_path": rng.choice(_PAGES)}, **origin)
            at += 5 + rng.expovariate(1 / 40)
        if person.is_registered and rng.random() < persona.sign_in:
            who = {"customer_id": person.customer_id, **who}
            self._emit("signed_in", at, who)
            at += 4 + rng.random() * 10
        if rng.random() < 0.25:
            self._emit("products_searched", at, who, properties={"query": rng.choice(_SEARCHES)})
            at += 8 + rng.expovariate(1 / 20)
        if rng.random() > persona.product_view:
            return
        product = rng.choice(PRODUCTS)
        for _ in range(1 + int(rng.expovariate(0.8))):
            self._emit("product_viewed", at, who, properties={"product_id": product})
            at += 10 + rng.expovariate(1 / 45)
            product = rng.choice(PRODUCTS)
        if rng.random() > cart_probability(person):
            return
        self._emit("product_added", at, who, properties={"product_id": product})
        at += 15 + rng.expovariate(1 / 30)
        if rng.random() < 0.15:
            self._emit("product_removed", at, who, properties={"product_id": product})
            at += 5 + rng.expovariate(1 / 10)
        self._emit("cart_viewed", at, who)
        at += 10 + rng.expovariate(1 / 25)
        if rng.random() > persona.checkout:
            return
        self._checkout(at, who, person.devices[slot], is_first_visit=is_first)

    def _experiments(self, at: float, who: dict[str, Any]) -> None:
        person = self.person
        for experiment, variant in (
            (STORIES.experiment, person.experiment_variant),
            (STORIES.placebo_experiment, person.placebo_variant),
        ):
            self._emit("experiment_viewed", at + 1, who, experiment=experiment, variant=variant)
        self.recorder.counts[f"assigned/{person.experiment_variant}"] += 1

    def _checkout(self, at: float, who: dict[str, Any], device: str, *, is_first_visit: bool) -> None:
        rng, person, counts = self.rng, self.person, self.recorder.counts
        self._emit("checkout_started", at, who)
        at += 20 + rng.expovariate(1 / 60)
        if rng.random() < 0.2:
            self._emit("coupon_applied", at, who, properties={"coupon_code": rng.choice(("WELCOME10", "SPRING5"))})
            at += 5
        first, last = STORIES.checkout_bug_days
        in_bug = first * DAY <= at < last * DAY and device == STORIES.checkout_bug_device
        label = f"checkout/{person.persona.name}"
        counts[f"{label}/started"] += 1
        if in_bug and rng.random() < STORIES.checkout_bug_failure:
            counts["checkout_bug/failed"] += 1
            self._emit("error_encountered", at, who, properties={"error_code": "payment-timeout"})
            return
        if rng.random() < order_probability(person, at, is_first_visit=is_first_visit):
            counts[f"{label}/ordered"] += 1
            self._order(at, who)

    def _order(self, at: float, who: dict[str, Any]) -> None:
        """The browser's pixel and the shop's own event tell of the same order under two ids."""
        rng, person = self.rng, self.person
        if at + 5 >= self.end:
            return
        order = self._new_order(at, "web")
        properties = {name: order[name] for name in ("order_id", "amount", "currency")}
        if rng.random() < 0.92:
            self._emit("order_completed", at, who, properties=properties)
        shop = {"customer_id": person.customer_id, "email_hmac": person.email}
        if not person.is_registered and rng.random() > person.persona.sign_up:
            shop = {"email_hmac": person.email}
        elif not person.is_registered:
            person.is_registered = True
            self._emit("signed_up", at - 10, {"customer_id": person.customer_id, **_soft(who)})
            self._onboard(at, {"customer_id": person.customer_id, **_soft(who)})
        # The thank-you page carries the shop's identifiers next to the cookie, so that visits before can be stitched.
        self._emit("order_completed", at + 1.5, {**shop, **_soft(who)}, properties=properties, received_after=1.0)
        self._after_order(at, order, shop)

    def _new_order(self, at: float, channel: str) -> dict[str, Any]:
        person = self.person
        amount = max(5.0, self.rng.lognormvariate(0, 0.45) * person.persona.mean_order_value)
        order = {
            "order_id": f"{channel[0].upper()}{person.number:07d}-{len(person.orders) + 1}",
            "amount": f"{amount:.2f}",
            "currency": "USD",
            "ordered_at": self.recorder.stamp(at),
            "channel": channel,
        }
        person.orders.append(order)
        self.recorder.counts["orders"] += 1
        return order

    def _onboard(self, at: float, who: dict[str, Any]) -> None:
        rng = self.rng
        if rng.random() < 0.75:
            self._emit("account_activated", at + rng.expovariate(1 / (6 * HOUR)), who)
        for step in range(3):
            if rng.random() > 0.6:
                break
            later = at + (step + 1) * DAY * rng.random() * 2
            self._emit("onboarding_step_completed", later, who, properties={"step": f"step-{step + 1}"})
        if rng.random() < 0.08:
            self._emit("subscribed", at + 3 * DAY, who)

    def _after_order(self, at: float, order: dict[str, Any], who: dict[str, Any]) -> None:
        rng, persona = self.rng, self.person.persona
        self._emit("email_sent", at + 30, who, channel="email", campaign="order-confirmation")
        if rng.random() < STORIES.refund:
            refund = {"order_id": order["order_id"], "amount": order["amount"], "currency": "USD"}
            later = at + (2 + 6 * rng.random()) * DAY
            if later < self.end:
                self.recorder.counts["refunds"] += 1
            self._emit("order_refunded", later, who, properties=refund, channel=order["channel"])
        if rng.random() < persona.ticket_after_order:
            self._ticket(at + rng.expovariate(1 / (2 * DAY)), who)
        if rng.random() < persona.review_after_order:
            event_type = "product_reviewed" if rng.random() < 0.7 else "product_shared"
            self._emit(
                event_type, at + (3 + 5 * rng.random()) * DAY, who, properties={"product_id": rng.choice(PRODUCTS)}
            )
        if rng.random() < 0.1:
            score = min(10, max(0, round(rng.gauss(8 if persona.name != "troubled" else 5, 2))))
            self._emit("nps_submitted", at + 9 * DAY, who, channel="email", properties={"nps_score": score})

    def _ticket(self, at: float, who: dict[str, Any]) -> None:
        """A ticket with replies; a slow first reply makes the person stay away."""
        rng, person = self.rng, self.person
        if at >= self.end:
            return
        self.recorder.counts["tickets"] += 1
        ticket = {"ticket_id": f"T{person.number:07d}-{self.recorder.counts['tickets']}"}
        first, last = STORIES.support_delay_days
        is_slow = first * DAY <= at < last * DAY
        hours = STORIES.support_delay_hours if is_slow else STORIES.usual_first_reply_hours
        if rng.random() < 0.3:
            self._emit(rng.choice(("call_started", "chat_started")), at - 5 * MINUTE, who, channel="support")
        self._emit("ticket_created", at, who, channel="support", properties=ticket)
        reply_at = at + hours * HOUR * (0.6 + 0.8 * rng.random())
        if is_slow and person.slow_reply_at is None:
            person.slow_reply_at = reply_at
        self._emit("ticket_replied", reply_at, who, channel="support", properties={**ticket, "author": "agent"})
        if rng.random() < 0.4:
            customer_at = reply_at + rng.expovariate(1 / (4 * HOUR))
            self._emit(
                "ticket_replied", customer_at, who, channel="support", properties={**ticket, "author": "customer"}
            )
            reply_at = customer_at
        solved_at = reply_at + (1 + rng.expovariate(1 / 12)) * HOUR
        self._emit("ticket_solved", solved_at, who, channel="support", properties=ticket)
        if rng.random() < 0.1:
            self._emit("ticket_reopened", solved_at + DAY, who, channel="support", properties=ticket)
            self._emit("ticket_solved", solved_at + 2 * DAY, who, channel="support", properties=ticket)
        if rng.random() < 0.35:
            rating = max(1, min(5, round(rng.gauss(2.1 if is_slow else 4.1, 0.9))))
            self._emit("csat_submitted", solved_at + 2 * HOUR, who, channel="support",
                       properties={**ticket, "csat_rating": rating})  # fmt: skip

    def store_visit(self, at: float) -> None:
        """A visit to a store; the loyalty card, where there is one, says who."""
        rng, person = self.rng, self.person
        self.visit_count += 1
        who: dict[str, Any] = {"loyalty_id": person.loyalty_id} if person.loyalty_id else {}
        store = {"store_id": f"store-{person.number % 12:02d}"}
        if person.loyalty_id is None:
            self._emit("store_entered", at, {}, channel="store", properties=store)
            return
        self._emit("store_entered", at, who, channel="store", properties=store)
        if store["store_id"] == "store-00" and rng.random() < 0.8:
            self._emit(
                "loyalty_card_scanned", at + 60, {**who, "device_id": self.kiosk}, channel="store", properties=store
            )
        else:
            self._emit("loyalty_card_scanned", at + 60, who, channel="store", properties=store)
        if rng.random() < person.persona.store_purchase and at + 15 * MINUTE < self.end:
            order = self._new_order(at + 10 * MINUTE, "store")
            if rng.random() < 0.4:  # an e-receipt joins card and e-mail
                who = {"email_hmac": person.email, **who}
            properties = {name: order[name] for name in ("order_id", "amount", "currency")} | store
            self._emit("order_completed", at + 10 * MINUTE, who, channel="store", properties=properties)
            self._after_order(at + 10 * MINUTE, order, who)

    def newsletters(self) -> None:
        """A weekly newsletter to registered people: sent, delivered, opened (by people and machines), clicked."""
        rng, person = self.rng, self.person
        if not person.is_registered:
            return
        for week in range(int(self.end // (7 * DAY)) + 1):
            at = week * 7 * DAY + 2 * DAY + 9 * HOUR + rng.random() * HOUR
            if at < person.arrives_at or at >= self.end:
                continue
            who = {"email_hmac": person.email}
            name = {"campaign": f"newsletter-{week + 1}", "source": "newsletter", "medium": "email"}
            self._emit("email_sent", at, who, channel="email", **name)
            if rng.random() < 0.01:
                self._emit("email_bounced", at + 20, who, channel="email", **name)
                continue
            self._emit("email_delivered", at + 15, who, channel="email", **name)
            if rng.random() < 0.12:
                self._emit("email_opened", at + 40, who, channel="email", properties={"is_machine_open": True}, **name)
            if rng.random() > 0.4:
                continue
            at += rng.expovariate(1 / (5 * HOUR))
            self._emit("email_opened", at, who, channel="email", **name)
            if rng.random() < 0.004:
                self._emit("email_marked_as_spam", at + 30, who, channel="email", **name)
            if rng.random() < 0.006:
                self._emit("unsubscribed", at + 45, who, channel="email", **name)
            if rng.random() < person.persona.newsletter_click:
                cookie = person.cookies[0]
                self._emit("email_link_clicked", at + 20, {**who, "anonymous_id": cookie}, channel="email", **name)
                if at + 25 < self.end:
                    self.web_visit(at + 25, clicked=name)

    def paper_mail(self) -> None:
        """Two paper campaigns to registered people: one works, one does not."""
        person = self.person
        who = {"customer_id": person.customer_id}
        if person.is_registered and person.gets_working_campaign:
            day = STORIES.working_campaign_day
            self._emit("mail_sent", day * DAY, who, channel="email", campaign=STORIES.working_campaign)
        if person.is_registered and person.gets_idle_campaign:
            day = STORIES.idle_campaign_day
            self._emit("mail_sent", day * DAY, who, channel="email", campaign=STORIES.idle_campaign)


def _soft(who: dict[str, Any]) -> dict[str, Any]:
    return {"anonymous_id": who["anonymous_id"]}


_CAMPAIGN = (STORIES.working_campaign_day * DAY, (STORIES.working_campaign_day + STORIES.campaign_days) * DAY)
_PAGES = ("/", "/new", "/sale", "/women", "/men", "/kids", "/about", "/stores", "/blog/spring")
_SEARCHES = ("shoes", "rain jacket", "gift", "socks", "backpack")
