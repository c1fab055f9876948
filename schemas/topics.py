"""Kafka topics, one per channel, and their names on the drop folder."""

from __future__ import annotations

CHANNELS = ("web", "email", "store", "support")
CHANNEL_TOPICS = {channel: f"journeys.{channel}.v1" for channel in CHANNELS}
SOURCE_TOPICS = tuple(CHANNEL_TOPICS.values())
DEAD_LETTER_TOPIC = "journeys.dead_letter.v1"
