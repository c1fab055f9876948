"""The DuckDB file: building models, quality gates, publishing and querying."""
