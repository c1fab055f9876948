"""Airflow DAGs, thin, and the steps they share with the command line."""
