"""A synthetic omnichannel shop: seeded touchpoints with planted truths, faults included."""
