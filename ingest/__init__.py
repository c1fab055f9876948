"""Getting touchpoints in: producers, Kafka in and out, the drop folder, landing, dead letters."""
