"""From landed records to silver: bronze, dedupe, identity, sessions, orders, stages, journeys, customers."""
