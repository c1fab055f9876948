"""The contracts: event models, journey.yml, settings, errors, and the layout of landed records."""
